"""Settings: what each option means, what it may be, and what it is by default.

One frozen dataclass per section; `Settings` holds the sections and is built from flat names, which is how
users write them (`Server(worker_num=4)`). An option is documented and bounded at its field and nowhere
else: the checks, the error messages and the settings page are made from there (options.py).
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, NamedTuple

from .errors import ConfigError
from .operation import Operation
from .options import (
    HOUR,
    Section,
    allowed,
    check_dispatch,
    check_filled,
    check_hosts,
    check_networks,
    check_origins,
    check_path,
    check_protocols,
    number,
    option,
    type_name,
)
from .sockets import Listen, Tls

GIB = 1 << 30


def usable_cpus() -> int:
    """The CPUs this process may run on, which a container or taskset may have made fewer."""
    return min(len(os.sched_getaffinity(0)), 256)


@dataclass(frozen=True)
class Process(Section):
    """The process tree."""

    mode: str = option(
        "process",
        "`process`: gateways keep the connections and workers run the application, so that a worker can be "
        "reloaded or die without a client noticing. `base`: each process does both; fewer processes, and the "
        "end of one closes its connections.",
        choices=("process", "base"),
    )
    worker_num: int = option(
        usable_cpus(),
        "Processes that run the application.",
        "processes",
        low=1,
        high=256,
        shown="usable CPUs",
    )
    spare_worker_num: int = option(
        0,
        "Processes that have loaded the application and wait. When a worker or task worker dies, one of them takes its "
        "place at once, however long the application takes to load; then another is started. In `base` mode for task "
        "workers only.",
        "processes",
        low=0,
        high=64,
    )
    gateway_num: int = option(
        1, "Processes that keep the connections; not used in `base` mode.", "processes", low=1, high=32
    )
    dispatch: str = option(
        "connection",
        "Which worker serves a connection: `connection`: the least loaded one when it comes; `address`: the same for "
        "all of an address; `user`: the same for all that are bound to a user (until then the least loaded one); or "
        "MODULE:FUNCTION, which is given what is known of a connection (`fd`, `remote_ip`, `server_port`, `user`) and "
        "returns a key, the same worker for the same key, or None. That function runs in the gateways: keep it small; "
        "it is loaded when they start. Not used in `base` mode.",
        check=check_dispatch,
    )
    graceful_timeout: float = option(
        30.0, "How long a stop or a reload waits for running handlers.", "s", low=0, high=HOUR
    )
    event_timeout: float = option(
        5.0,
        "How long a reload waits for the handler of `before_reload`, and a worker that leaves for `worker_exit`.",
        "s",
        low=0,
        high=HOUR,
    )
    boot_timeout: float = option(
        30.0,
        "How long a new process may take to import the application and be ready.",
        "s",
        low=0.1,
        high=HOUR,
    )
    restart_free: int = option(
        3,
        "Restarts of one process without delay; the next ones in the same series wait longer each time.",
        "restarts",
        low=0,
        high=1000,
    )
    restart_window: float = option(
        10.0,
        "A process that has served for so long ends its series of restarts.",
        "s",
        low=0,
        high=HOUR,
    )
    restart_backoff_max: float = option(
        5.0, "The longest delay before a process that keeps ending is started again.", "s", low=0, high=HOUR
    )
    degraded_after: int = option(
        10,
        "Restarts in one series after which a process is reported as degraded, in the log and in `stats()`. While all "
        "workers are, and none is there, requests are answered 503.",
        "restarts",
        low=1,
        high=10_000,
    )
    degraded_hold_time: float = option(
        10.0,
        "How long the messages of a WebSocket wait for a worker while all are degraded; then it is closed with 1013.",
        "s",
        low=0,
        high=HOUR,
    )
    max_request: int = option(
        0,
        "Messages and requests after which a worker is replaced, one at a time, as by a reload; 0 means never.",
        "events",
        low=0,
        high=1 << 40,
    )
    max_request_grace: int = option(
        -1,
        "Up to so many more, at random for each worker, so that they are not all replaced at one time; -1 means half "
        "of `max_request`.",
        "events",
        low=-1,
        high=1 << 40,
    )
    worker_memory_limit: int = option(
        0,
        "A worker with more memory (resident) is replaced, as by a reload; 0: no limit.",
        "bytes",
        low=0,
        high=1 << 50,
    )
    worker_hang_timeout: float = option(
        30.0,
        "A worker whose loop does not turn for so long (a blocking call, C code that holds the interpreter) writes its "
        "stacks to the log and is aborted, then killed; 0 means never. Not in `base` mode with one process.",
        "s",
        low=0,
        high=HOUR,
    )
    overdue_after: float = option(
        0.0,
        "A handler that has not ended after so long is reported, once, and goes on; 0 means never.",
        "s",
        low=0,
        high=HOUR,
    )
    gateway_hang_timeout: float = option(30.0, "The same for a gateway; its connections end.", "s", low=0, high=HOUR)
    watch: tuple[str, ...] = option(
        (),
        "Files and directories: a change in one reloads the workers. Needs `mooring[watch]`.",
        "paths",
        check=check_filled,
    )
    control_socket: str = option(
        "",
        "Path of a Unix socket on which other programs of this user can ask for counts and connections, push, reload "
        "and stop: `mooring status --socket PATH`, `mooring.connect(PATH)`. Its permissions are 0600. One that a dead "
        "server has left is replaced; anything else there is left alone, and the start fails. Empty: there is none.",
        check=check_path,
    )
    log_level: str = option(
        "info",
        "The least serious line that is logged.",
        choices=("debug", "info", "warning", "error", "critical"),
    )

    @property
    def beat_period(self) -> float:
        """Seconds between two signs of life of a process, often enough for the shortest hang timeout."""
        return min(1.0, (self.worker_hang_timeout or 4.0) / 4, (self.gateway_hang_timeout or 4.0) / 4)


@dataclass(frozen=True)
class Http(Section):
    """HTTP/1.1, the WebSocket handshake included."""

    header_timeout: float = option(
        10.0, "Time for a request head to arrive, from its first byte; then 408.", "s", low=0.1, high=HOUR
    )
    keepalive_timeout: float = option(
        75.0, "How long a connection may be idle between requests.", "s", low=0, high=HOUR
    )
    request_line_limit: int = option(
        8192, "Longest request line; a longer one is answered 414.", "bytes", low=64, high=1 << 20
    )
    header_field_limit: int = option(
        8192, "Longest header field; a longer one is answered 431.", "bytes", low=64, high=1 << 20
    )
    header_limit: int = option(16384, "Longest request head; then 431.", "bytes", low=256, high=1 << 20)
    header_count_limit: int = option(100, "Most header fields of a request; then 431.", "fields", low=1, high=10_000)
    body_limit: int = option(
        1 << 20,
        "Largest request body; then 413. More than 1 GiB only with `stream_request_body`.",
        "bytes",
        low=0,
        high=1 << 40,
    )
    stream_request_body: bool = option(
        False,
        "Hand a request over when its head is there, if its body is longer than `stream_body_above`; the handler takes "
        "the body by `request.stream()` or `request.read()`, at its own speed. Else every body is collected first.",
    )
    stream_body_above: int = option(
        65536, "Shorter bodies are collected also if `stream_request_body` is on.", "bytes", low=0, high=1 << 20
    )
    body_min_rate: int = option(
        500,
        "How fast a body has to come at least, on average over the time in which it is waited for; else 408. 0: any.",
        "bytes/s",
        low=0,
        high=1 << 30,
    )
    body_grace: float = option(5.0, "From when on that is looked at.", "s", low=0, high=HOUR)
    form_field_limit: int = option(1000, "Most fields of a urlencoded form; then 413.", "fields", low=1, high=100_000)
    multipart_part_limit: int = option(
        100, "Most parts, fields and files, of a multipart form; then 413.", "parts", low=1, high=10_000
    )
    form_memory: int = option(
        1 << 20, "Most bytes of the fields of a multipart form, without its files; then 413.", "bytes", low=0, high=GIB
    )
    upload_spool_size: int = option(
        65536, "A larger file of a form is kept in a temporary file, not in memory.", "bytes", low=0, high=GIB
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
        low=0,
        high=GIB,
    )
    compress: bool = option(
        False,
        "Compress bodies of text-like types, up to 1 MiB and not those sent by parts, in a coding that the client "
        "accepts: gzip, with `mooring[compress]` also zstd and br. Answers that set a cookie are left as they are.",
    )
    compress_min_size: int = option(1024, "The smallest body that `compress` is for.", "bytes", low=1, high=1 << 20)
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
        1000, "Requests answered on one connection before it is closed.", "requests", low=1, high=1 << 31
    )
    server_header: bool = option(True, "Send `Server: mooring` with every response.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.body_limit > GIB and not self.stream_request_body:
            raise ConfigError(f"body_limit={self.body_limit}: more than 1 GiB needs stream_request_body=True")


@dataclass(frozen=True)
class WebSocket(Section):
    """The WebSocket protocol, its topics and sessions."""

    max_message_size: int = option(
        1 << 20,
        "Largest message, fragments added up; a larger one closes with 1009.",
        "bytes",
        low=1,
        high=GIB,
    )
    max_fragments: int = option(
        1024, "Most fragments of one message; more close with 1009.", "frames", low=1, high=1 << 24
    )
    close_timeout: float = option(5.0, "How long the peer may take to answer a close frame.", "s", low=0, high=HOUR)
    handshake_timeout: float = option(
        10.0,
        "How long the handlers of `handshake`, `origin` and `subprotocol` may take together; then the client gets 504.",
        "s",
        low=0.1,
        high=HOUR,
    )
    ping_interval: float = option(
        25.0,
        "A client of which nothing was heard for so long is sent a ping; 0 means never.",
        "s",
        low=0,
        high=HOUR,
    )
    pong_timeout: float = option(
        10.0, "How long it may take to answer; then the connection is closed with 1006.", "s", low=0.1, high=HOUR
    )
    heartbeat_idle_time: float = option(
        0.0,
        "A client of which nothing was heard for so long, neither a message nor a ping nor a pong, is closed with "
        "1001; 0 means never. Below `ping_interval` it closes clients that say nothing by themselves.",
        "s",
        low=0,
        high=24 * HOUR,
    )
    subprotocols: tuple[str, ...] = option(
        (),
        "Subprotocols the application speaks; of those that a client offers, its first is taken.",
        "names",
        check=check_protocols,
    )
    allowed_origins: tuple[str, ...] = option(
        (),
        'Origins allowed besides the server\'s own, such as `"https://example.org"`; `"*"` allows all.',
        "origins",
        check=check_origins,
    )
    check_origin: bool = option(
        True, "Refuse with 403 a WebSocket opened by a page of another origin. Without an Origin: accepted."
    )
    control_frame_limit: int = option(
        50, "Pings and pongs a client may send in 10 s; more close with 1008.", "frames", low=1, high=65535
    )
    open_websocket_ping_frame: bool = option(
        False, "Hand pings to `message`, too. They are answered by the gateway in any case."
    )
    open_websocket_pong_frame: bool = option(False, "Hand pongs to `message`, too.")
    open_websocket_close_frame: bool = option(
        False, "Hand close frames to `message`, as a `CloseFrame` with `code` and `reason`, before `close`."
    )
    websocket_compression: bool = option(
        False,
        "Compress messages with clients that offer permessage-deflate (RFC 7692). Never mix secrets and what a "
        "stranger can choose in one compressed message.",
    )
    compression_threshold: int = option(64, "Smaller messages are not compressed.", "bytes", low=0, high=GIB)
    compression_level: int = option(6, "zlib's level: 1 is fastest, 9 smallest.", low=1, high=9)
    compression_memory: int = option(8, "zlib's memory level.", low=1, high=9)
    compression_window_bits: int = option(
        15, "The largest window, for what is sent and, if the client can, received.", "bits", low=8, high=15
    )
    server_context_takeover: bool = option(
        False, "Let a message refer to earlier ones to the same client: smaller, for 256 KiB per connection."
    )
    client_context_takeover: bool = option(False, "Let clients do so in what they send, for 40 KiB per connection.")
    inflate_ratio: float = option(
        100.0,
        "A compressed message of more than 64 KiB may be so many times as large as what came; else 1009.",
        low=1,
        high=1100,
    )
    max_topics: int = option(128, "Topics one connection may be subscribed to.", "topics", low=0, high=65_000)
    session_limit: int = option(
        4096, "Largest session of one connection, keys and values packed.", "bytes", low=0, high=1 << 16
    )


@dataclass(frozen=True)
class Flow(Section):
    """Backpressure: what may wait in memory, and for how long."""

    write_limit: int = option(
        1 << 20,
        "Most bytes waiting for one client to read; more close it with 1008.",
        "bytes",
        low=4096,
        high=GIB,
    )
    write_high_water: int = option(
        65536, "More bytes waiting than this start `write_timeout`.", "bytes", low=1024, high=GIB
    )
    write_timeout: float = option(
        10.0,
        "How long a WebSocket may stay above `write_high_water`, then 1008; how often `write_min_rate` is looked at.",
        "s",
        low=0.1,
        high=HOUR,
    )
    write_min_rate: int = option(
        500,
        "How fast a client has to read an answer at least, over each `write_timeout` in which some of it waits for the "
        "client; else the connection ends. 0: any, but not nothing.",
        "bytes/s",
        low=0,
        high=GIB,
    )
    buffer_limit: int = option(
        0,
        "Most bytes that may be kept for all clients of one gateway together: what waits to be read by them, and the "
        "beginnings of messages and bodies. More end those for whom most is kept: 1008 for who does not read, 1013 or "
        "503 for who sends. 0: the gateways share a quarter of the memory of the machine or its control group.",
        "bytes",
        low=0,
        high=1 << 40,
    )
    in_flight_messages: int = option(
        16,
        "Messages of one connection handed to its worker and not yet finished; then reading stops.",
        "messages",
        low=1,
        high=4096,
    )
    in_flight_bytes: int = option(
        262144, "The same in bytes; one message is always let through.", "bytes", low=1, high=GIB
    )
    worker_messages: int = option(
        1024, "Messages handed to one worker and not yet finished.", "messages", low=1, high=4096
    )
    worker_bytes: int = option(
        4 << 20, "The same in bytes; one message is always let through.", "bytes", low=4096, high=GIB
    )
    redeliver: bool = option(
        False,
        "Handle a message again whose worker ended while its handler ran; `frame.attempt` counts. After 3 workers it "
        "is quarantined: dropped, and told to the handler of `quarantined`. Off: it is not handled again, and told to "
        "the handler of `uncertain`. In `process` mode.",
    )
    max_connections_per_address: int = option(
        256,
        "Connections of one gateway from one address, of IPv6 from one network of 64 bits; more get 429. Those from "
        "this machine are not counted, nor any if `trusted_proxies` is set. 0 means any number.",
        "connections",
        low=0,
        high=1 << 22,
    )
    max_unfinished_per_address: int = option(
        32,
        "Those of them of which no request is answered yet, a handshake included; more get 429. 0 means any number.",
        "connections",
        low=0,
        high=1 << 22,
    )
    max_connection_rate: int = option(
        0,
        "New connections a second of one listener and gateway; others wait in the backlog. 0 means any number.",
        "connections/s",
        low=0,
        high=1 << 20,
    )
    message_rate: float = option(
        0.0,
        "Messages a second from one connection; it is read no faster. 0 means any number.",
        "messages/s",
        low=0,
        high=1e6,
    )
    message_burst: int = option(
        200, "Messages it may send at once, after a pause, with `message_rate`.", "messages", low=1, high=1 << 20
    )
    max_connections: int = option(
        0,
        "Connections of one gateway; more get 503. 0 means 90 % of its limit of file descriptors, less 64. Above 80 % "
        "of it, connections that wait for a next request are ended.",
        "connections",
        low=0,
        high=1 << 22,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.write_high_water > self.write_limit:
            raise ConfigError(
                f"write_high_water={self.write_high_water}: must not be above write_limit={self.write_limit}"
            )


@dataclass(frozen=True)
class Tasks(Section):
    """Task workers: processes for blocking work."""

    task_worker_num: int = option(
        0,
        "Processes that run the `task` handler, one task at a time each; 0: there are no tasks.",
        "processes",
        low=0,
        high=256,
    )
    task_timeout: float = option(
        60.0,
        "How long `task`, `task_wait` and `task_map` wait for a result unless told otherwise; then TaskTimeout.",
        "s",
        low=0.001,
        high=24 * HOUR,
    )
    task_max_request: int = option(
        0,
        "Tasks after which a task worker ends and another takes its place; 0 means never.",
        "tasks",
        low=0,
        high=1 << 40,
    )
    task_queue_limit: int = option(
        1024, "Tasks of one worker that are not finished; more raise TaskQueueFull.", "tasks", low=1, high=1 << 20
    )
    task_queue_bytes: int = option(
        64 << 20, "The same in bytes of packed data; one task is always let through.", "bytes", low=4096, high=GIB
    )


class Option(NamedTuple):
    """One row of the settings page."""

    section: str
    name: str
    type: str
    default: str
    unit: str
    doc: str
    allowed: str


@dataclass(frozen=True)
class Settings:
    """Every option of a server, by section: `settings.listen.port`."""

    process: Process = field(default_factory=Process)
    operation: Operation = field(default_factory=Operation)
    listen: Listen = field(default_factory=Listen)
    tls: Tls = field(default_factory=Tls)
    http: Http = field(default_factory=Http)
    websocket: WebSocket = field(default_factory=WebSocket)
    flow: Flow = field(default_factory=Flow)
    tasks: Tasks = field(default_factory=Tasks)

    listeners: tuple["Settings", ...] = ()
    """Of the further listeners, each its own, whole: what a listener does not say is as with the server."""

    @property
    def per_listener(self) -> tuple["Settings", ...]:
        """Those that count for the connections of each listener, by its index; 0 is the server's own."""
        return (self, *self.listeners)

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> "Settings":
        """Settings from flat names. Raises ConfigError for an unknown name or a value that is not allowed."""
        chosen: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
        listeners: Any = ()
        for name, value in options.items():
            if name == LISTENERS:
                listeners = value
                continue
            if name not in HOME:
                near = get_close_matches(str(name), HOME, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "`mooring settings` lists the options"
                raise ConfigError(f"unknown option {name!r}: {hint}")
            chosen[HOME[name]][name] = value
        made: dict[str, Any] = {section: kind(**chosen[section]) for section, kind in SECTIONS.items()}
        return cls(**made, listeners=tuple([cls.from_options(one) for one in listeners]))

    def to_dict(self) -> dict[str, object]:
        """Flat names again, of types msgpack knows; `from_options` takes it back."""
        flat: dict[str, object] = {LISTENERS: [one.to_dict() for one in self.listeners]} if self.listeners else {}
        return flat | {
            spec.name: list(value) if isinstance(value, tuple) else value
            for section in SECTIONS
            for spec in fields(SECTIONS[section])
            for value in [getattr(getattr(self, section), spec.name)]
        }


SECTIONS: dict[str, type[Section]] = {
    "process": Process,
    "operation": Operation,
    "listen": Listen,
    "tls": Tls,
    "http": Http,
    "websocket": WebSocket,
    "flow": Flow,
    "tasks": Tasks,
}
LISTENERS = "listeners"  # the one name among the flat ones that stands for several options
LISTENER_SECTIONS = frozenset({"listen", "tls", "http", "websocket", "flow"})
#: What cannot differ from listener to listener, of these sections.
SERVER_WIDE = frozenset(
    {
        "max_topics",
        "session_limit",
        "in_flight_messages",
        "in_flight_bytes",
        "worker_messages",
        "worker_bytes",
        "max_connections_per_address",
        "max_unfinished_per_address",
        "max_connections",
        "buffer_limit",
    }
)
HOME = {spec.name: section for section, kind in SECTIONS.items() for spec in fields(kind)}


def listener_options(server: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    """All options of a further listener: its own, and the server's where it has none, but for the section `listen`.

    Raises ConfigError for an option that only the server can have. Unknown names pass: from_options() finds them.
    """
    for name in own:
        if name == LISTENERS or (name in HOME and (HOME[name] not in LISTENER_SECTIONS or name in SERVER_WIDE)):
            raise ConfigError(f"{name} is an option of the whole server: give it to Server() or set(), not to listen()")
    if not own.keys() & {"port", "unix_socket", "inherited"}:
        raise ConfigError("listen() needs a port, a unix_socket or an inherited socket")
    return {name: value for name, value in server.items() if HOME.get(name) != "listen"} | dict(own)


def describe() -> Iterator[Option]:
    """Every option in the order of the settings page."""
    for section, kind in SECTIONS.items():
        for spec in fields(kind):
            meta = spec.metadata
            default = meta["shown"] or shown(spec.default)
            yield Option(section, spec.name, type_name(spec), default, meta["unit"], meta["doc"], allowed(spec))


def shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return number(value)
    return repr(value) if isinstance(value, str) else "none"
