"""The section `http` of the settings: HTTP/1.1, its files and forms, the handshake of WebSocket included."""

from dataclasses import dataclass

from mooring.errors import ConfigError

from .option import GIB, HOUR, Section, check_hosts, check_networks, option


@dataclass(frozen=True)
class Http(Section):
    """HTTP/1.1, the WebSocket handshake included."""

    header_timeout: float = option(
        10.0, "Time for a request head to arrive, from its first byte; then 408.", "s", bounds=(0.1, HOUR)
    )
    keepalive_timeout: float = option(
        75.0, "How long a connection may be idle between requests.", "s", bounds=(0, HOUR)
    )
    request_line_limit: int = option(
        8192, "Longest request line; a longer one is answered 414.", "bytes", bounds=(64, 1 << 20)
    )
    header_field_limit: int = option(
        8192, "Longest header field; a longer one is answered 431.", "bytes", bounds=(64, 1 << 20)
    )
    header_limit: int = option(16384, "Longest request head; then 431.", "bytes", bounds=(256, 1 << 20))
    header_count_limit: int = option(100, "Most header fields of a request; then 431.", "fields", bounds=(1, 10_000))
    body_limit: int = option(
        1 << 20,
        "Largest request body; then 413. More than 1 GiB only with `stream_request_body`.",
        "bytes",
        bounds=(0, 1 << 40),
    )
    stream_request_body: bool = option(
        False,
        "Hand a request over when its head is there, if its body is longer than `stream_body_above`; the handler takes "
        "the body by `request.stream()` or `request.read()`, at its own speed. Else every body is collected first.",
    )
    stream_body_above: int = option(
        65536, "Shorter bodies are collected also if `stream_request_body` is on.", "bytes", bounds=(0, 1 << 20)
    )
    body_min_rate: int = option(
        500,
        "How fast a body has to come at least, on average over the time in which it is waited for; else 408. 0: any.",
        "bytes/s",
        bounds=(0, 1 << 30),
    )
    body_grace: float = option(5.0, "From when on that is looked at.", "s", bounds=(0, HOUR))
    form_field_limit: int = option(1000, "Most fields of a urlencoded form; then 413.", "fields", bounds=(1, 100_000))
    multipart_part_limit: int = option(
        100, "Most parts, fields and files, of a multipart form; then 413.", "parts", bounds=(1, 10_000)
    )
    form_memory: int = option(
        1 << 20, "Most bytes of the fields of a multipart form, without its files; then 413.", "bytes", bounds=(0, GIB)
    )
    upload_spool_size: int = option(
        65536, "A larger file of a form is kept in a temporary file, not in memory.", "bytes", bounds=(0, GIB)
    )
    upload_file_limit: int = option(
        0,
        "Most such files that all forms of one worker may have open together; a form that needs one more is answered "
        "503. 0: half of the descriptors that the worker may have, 4096 at most.",
        "files",
        bounds=(0, 1 << 20),
    )
    document_root: str = option(
        "",
        "Directory whose files are served under their names, before the `request` handler is asked; empty: none. "
        "Regular files only, a directory by its `index.html`, without listings; symbolic links are not followed, "
        "and names that begin with a dot are not served, except `.well-known`.",
    )
    static_file_limit: int = option(
        1 << 20,
        "Largest file, or part of one, that is read and sent at once, and compressed if that is asked for. A larger "
        "one is sent by the gateway, as fast as the client reads; so is one above 64 KiB that is not to be compressed.",
        "bytes",
        bounds=(0, GIB),
    )
    compress: bool = option(
        False,
        "Compress bodies of text-like types, up to 1 MiB and not those sent by parts, in a coding that the client "
        "accepts: gzip, with `mooring-server[compress]` also zstd and br. Answers that set a cookie are left "
        "as they are.",
    )
    compress_min_size: int = option(1024, "The smallest body that `compress` is for.", "bytes", bounds=(1, 1 << 20))
    access_log: bool = option(
        False,
        "Log a line for each request that a worker has answered, whatever `log_level` is; the logger is "
        "`mooring.access`. What the gateway refuses by itself is in its own log.",
    )
    allowed_hosts: tuple[str, ...] = option(
        (),
        "Hosts that requests may be for, such as `example.org` or `*.example.org`, whatever the port; others are "
        "answered 421. None: any. Keeps web pages from reaching a server on a private address by a name of their own.",
        "hosts",
        check=check_hosts,
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        "Proxies in front of the server, such as `10.0.0.0/8`, or `unix`: whoever comes through a Unix socket. If a "
        "request comes from one, its X-Forwarded-For and X-Forwarded-Proto say the client's address and scheme "
        "(`request.remote_ip`, `scheme`, the check of origins). From anybody else they mean nothing.",
        "networks",
        check=check_networks,
    )
    keepalive_requests: int = option(
        1000, "Requests answered on one connection before it is closed.", "requests", bounds=(1, 1 << 31)
    )
    server_header: bool = option(True, "Send `Server: mooring` with every response.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.body_limit > GIB and not self.stream_request_body:
            raise ConfigError(f"body_limit={self.body_limit}: more than 1 GiB needs stream_request_body=True")
