"""The section `websocket` of the settings: the protocol, its compression, topics and sessions."""

from dataclasses import dataclass

from .option import GIB, HOUR, Section, check_origins, check_protocols, option


@dataclass(frozen=True)
class WebSocket(Section):
    """The WebSocket protocol, its topics and sessions."""

    max_message_size: int = option(
        1 << 20, "Largest message, fragments added up; a larger one closes with 1009.", "bytes", bounds=(1, GIB)
    )
    max_fragments: int = option(
        0,
        "Most fragments of one message; more close with 1009. 0: one for each 64 bytes of `max_message_size`, and at "
        "least 1024.",
        "frames",
        bounds=(0, 1 << 24),
    )
    close_timeout: float = option(
        5.0,
        "How long the peer may take to answer a close frame, from when it has what was sent before, if it reads that "
        "at `write_min_rate`.",
        "s",
        bounds=(0, HOUR),
    )
    handshake_timeout: float = option(
        10.0,
        "How long the handlers of `handshake`, `origin` and `subprotocol` may take together; then the client gets 504.",
        "s",
        bounds=(0.1, HOUR),
    )
    ping_interval: float = option(
        25.0, "A client of which nothing was heard for so long is sent a ping; 0 means never.", "s", bounds=(0, HOUR)
    )
    pong_timeout: float = option(
        10.0,
        "How long it may take to answer, from when it has what was sent before, if it reads that at `write_min_rate`; "
        "then the connection is closed with 1006.",
        "s",
        bounds=(0.1, HOUR),
    )
    heartbeat_idle_time: float = option(
        0.0,
        "A client of which nothing was heard for so long, neither a message nor a ping nor a pong, is closed with "
        "1001; 0 means never. Below `ping_interval` it closes clients that say nothing by themselves.",
        "s",
        bounds=(0, 24 * HOUR),
    )
    subprotocols: tuple[str, ...] = option(
        (),
        "Subprotocols the application speaks; of those that a client offers, its first is taken.",
        "names",
        check=check_protocols,
    )
    allowed_origins: tuple[str, ...] = option(
        (),
        "Origins allowed besides the server's own, such as `https://example.org`; of programs that are no pages also "
        "`file://`, `capacitor://localhost`, `null`. `ws` and `wss` count as `http` and `https`. `*` allows all.",
        "origins",
        check=check_origins,
    )
    check_origin: bool = option(
        True, "Refuse with 403 a WebSocket opened by a page of another origin. Without an Origin: accepted."
    )
    control_frame_limit: int = option(
        50,
        "Pings, and pongs that answer none of ours, a client may send in 10 s; more close with 1008.",
        "frames",
        bounds=(1, 65535),
    )
    unmasked_control_frames: bool = option(
        False,
        "Take pongs and close frames that are not masked, as paho-mqtt, Emacs and Caddy 2.6 send them; RFC 6455 "
        "section 5.1 has them closed with 1002. Messages and pings must be masked in any case.",
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
    compression_threshold: int = option(64, "Smaller messages are not compressed.", "bytes", bounds=(0, GIB))
    compression_level: int = option(6, "zlib's level: 1 is fastest, 9 smallest.", bounds=(1, 9))
    compression_memory: int = option(8, "zlib's memory level.", bounds=(1, 9))
    compression_window_bits: int = option(
        15, "The largest window, for what is sent and, if the client can, received.", "bits", bounds=(8, 15)
    )
    server_context_takeover: bool = option(
        False, "Let a message refer to earlier ones to the same client: smaller, for 256 KiB per connection."
    )
    client_context_takeover: bool = option(False, "Let clients do so in what they send, for 40 KiB per connection.")
    inflate_ratio: float = option(
        0.0,
        "A compressed message of more than 64 KiB may be so many times as large as what came; else 1009. For servers "
        "that allow very large messages. 0: as large as any message, `max_message_size`.",
        bounds=(0, 1100),
    )
    on_error: str = option(
        "close",
        "What becomes of a WebSocket whose `open` or `message` handler raises. `close`: it is closed with 1011 and the "
        "id of the error, and what it had sent behind that message is dropped. `keep`: it stays, and its next message "
        "is handled. Either way the error is in the log, and told to the handler of `error`.",
        choices=("close", "keep"),
    )
    on_invalid: str = option(
        "answer",
        "What becomes of a message that is no JSON of the type that its handler takes, or for which the handler raises "
        "`BadMessage`. `answer`: the client is told what is wrong, in JSON, and stays. `close`: it is closed with "
        "1008 and the reason. `ignore`: it is told nothing, and stays. Either way it is counted, and told to the "
        "handler of `invalid`.",
        choices=("answer", "close", "ignore"),
    )
    max_topics: int = option(128, "Topics one connection may be subscribed to.", "topics", bounds=(0, 65_000))
    max_spawned: int = option(
        16,
        "Coroutines (`spawn`) that one connection may own at the same time in one worker.",
        "coroutines",
        bounds=(1, 65_000),
    )
    session_limit: int = option(
        4096, "Largest session of one connection, keys and values packed.", "bytes", bounds=(0, 1 << 16)
    )
