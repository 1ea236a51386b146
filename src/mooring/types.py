"""Values a user sees: enums, the state of a connection, header fields."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple


class Named(IntEnum):
    """A number that people read by its name: `str()` and `format()` give `Opcode.TEXT`; `%d`, `int()`, a format such as
    `:d` and JSON the number."""

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __format__(self, spec: str) -> str:
        return format(int(self) if spec[-1:] in _FORMATS_OF_NUMBERS else str(self), spec)


_FORMATS_OF_NUMBERS = frozenset("bcdoxXneEfFgG%")


class Opcode(Named):
    """What a frame carries (RFC 6455 section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(Named):
    """Why a connection was closed (RFC 6455 section 7.4.1 and the IANA registry).

    NO_STATUS and ABNORMAL never travel in a frame: they tell that the peer gave no code, or that the
    connection was lost without a closing handshake.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_PAYLOAD = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013


class ClosedBy(Named):
    """Who ended a connection."""

    PEER = 1  # the client: it sent the first close frame, or its end or a reset was all that was seen
    SERVER = 2  # this server: a limit, a fault of the client, a time limit, a stop
    APPLICATION = 3  # a handler: disconnect() or close(), or what it raised


class CloseReason(str):
    """The reason that a `close` or `disconnect` handler is given: the text, and in `by` who ended the connection.

    The text is the peer's if it sent a close frame first, and else the cause in words. It may be empty. `status` is
    the HTTP status with which the server has refused what the client sent (400, 408, 413, 431, ...) and ended the
    connection; None in all other cases.
    """

    __slots__ = ("by", "status")

    by: ClosedBy
    status: int | None

    def __new__(cls, text: str, by: ClosedBy, status: int | None = None) -> "CloseReason":
        self = super().__new__(cls, text)
        self.by = by
        self.status = status
        return self


class ConnectionState(Named):
    """Where a connection stands. It only ever moves down this list."""

    HTTP = 1  # accepted; speaks HTTP
    OPEN = 2  # an open WebSocket: can be pushed to
    CLOSING = 3  # a close frame was sent or received, or the last answer is on its way out


@dataclass(frozen=True, slots=True)
class Failure:
    """What a handler of a connection has raised; the handler of `error` is told of it."""

    id: str  # as in the log, and in what the client was told
    event: str  # whose handler it was: "message", "open", "request", ...; "spawn": none, but work that it owned
    exception: BaseException
    name: str = ""  # of that work


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a server promises with its settings, and what it cannot; docs/guarantees.md has it in words."""

    connections_outlive_workers: bool  # a worker may crash or be killed: no client is disconnected
    connections_outlive_reloads: bool
    can_reload: bool  # there is a supervisor; else new code takes a restart
    reports_uncertain: bool  # of a message whose worker ended while its handler ran, the application is told
    at_least_once: tuple[
        bool, ...
    ]  # such a message is handled again (`redeliver`); of each listener, the server's first
    works_while_blocked: bool  # pings, time limits and closes also work while a handler blocks its worker


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A snapshot of one connection, true at the moment it was read."""

    fd: int
    state: ConnectionState
    remote_ip: str
    remote_port: int
    server_port: int  # 0: a Unix socket
    worker_id: int | None  # None: no worker serves it yet
    connect_time: float  # unix seconds
    last_receive_time: float  # unix seconds
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    in_flight: int  # messages handed to a worker and not yet finished
    round_trip: float | None = None  # seconds the peer took to answer our last ping; None: not measured yet
    listener: int = 0  # 0: the server's own, 1: that of the first listen(), ...
    unix_socket: str = ""  # the path the client connected to, as in the settings; empty: no Unix socket, or inherited
    spawned: int = 0  # pieces of work (`spawn`) that it owns


PHASES = ("connecting", "request", "handling", "idle", "open", "closing")
"""Where a connection was when its end was decided; in the order of Stage in mooring._core.registry."""
TLS_VERSIONS = ("", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")

CAUSES: dict[str, tuple[str, str]] = {
    "client_closed": ("client", "The client sent the first close frame."),
    "client_ended": ("client", "The client ended the connection, a WebSocket without a close frame."),
    "client_reset": ("client", "The client's machine reset the connection."),
    "application_closed": ("application", "`disconnect`, `close` or `disconnect_user`; also `mooring kick`."),
    "handler_failed": ("application", "A handler, or work that the connection owned, has raised."),
    "message_refused": ("application", "A handler refused a message: `BadRequest`, or `BadMessage` with `on_invalid`."),
    "handshake_refused": ("application", "The handler of `handshake`, `origin` or `subprotocol` said no."),
    "answered": ("server", "The answer was the last one: the client or the answer said so, or `keepalive_requests`."),
    "bad_request": ("refusal", "What came is no acceptable HTTP request, or one that is too large."),
    "bad_host": ("refusal", "The Host is not one of `allowed_hosts`."),
    "bad_handshake": ("refusal", "The handshake is wrong, or of an Origin that is not allowed."),
    "bad_proxy_header": ("refusal", "The header of the PROXY protocol is wrong, late, or not of a trusted proxy."),
    "tls_failed": ("refusal", "The TLS handshake or stream is broken, or the client speaks no TLS."),
    "protocol_error": ("refusal", "A frame that RFC 6455 does not allow (1002)."),
    "invalid_data": ("refusal", "Text that is not UTF-8, or broken compression (1007)."),
    "message_too_big": ("limit", "`max_message_size`, `max_fragments` or `inflate_ratio` (1009)."),
    "too_many_pings": ("limit", "`control_frame_limit` (1008)."),
    "too_many_connections": ("limit", "Too many of an address that only a header of the PROXY protocol has told."),
    "request_timeout": ("limit", "`ssl_handshake_timeout`, `header_timeout`, or `body_min_rate`."),
    "keepalive_timeout": ("limit", "`keepalive_timeout`: no further request came."),
    "handshake_timeout": ("limit", "`handshake_timeout`: the application has not decided."),
    "ping_timeout": ("limit", "`pong_timeout`: no answer to a ping."),
    "heartbeat_timeout": ("limit", "`heartbeat_idle_time`: nothing was heard."),
    "slow_consumer": ("limit", "The client did not read: `write_limit` or `write_min_rate`."),
    "memory_full": ("limit", "`buffer_limit`: most of the memory for all clients was kept for this one."),
    "server_full": ("limit", "The gateway was nearly full, and this one idle."),
    "shutdown": ("shutdown", "The server, or its gateway, stopped in order."),
    "worker_lost": ("failure", "The worker that was answering has ended."),
    "no_worker": ("failure", "No worker served, and none was to be expected soon."),
    "standstill": ("failure", "A process stood still, and the client has missed something (1013)."),
    "file_broken": ("failure", "A file could not be sent to its end."),
    "out_of_memory": ("failure", "There was no memory for it."),
    "server_error": ("failure", "An error of the server; its log says more."),
    "gateway_lost": ("failure", "The gateway's process has ended."),
}
"""What ends connections: by whom, and when. The names do not change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRecord:
    """What is known of a connection that has ended; there is one for each, see the setting close_records."""

    fd: int
    cause: str  # what has ended it: a key of CAUSES, docs/close-records.md has the table
    by: str  # who: client, application, server, refusal, limit, shutdown, failure
    code: int | None  # of a WebSocket, as for `close`; else the HTTP status of the refusal that ended it, or None
    reason: str  # in words; the peer's if it has closed; may be empty
    phase: str  # when that was decided: connecting, request, handling, idle, open, closing
    protocol: str  # http, or websocket for what was one
    tls: str = ""  # TLSv1.2, ...; empty without TLS
    subprotocol: str = ""  # empty: none
    compression: str = ""  # permessage-deflate, or empty
    listener: int  # 0: the server's own, 1: that of the first listen(), ...
    remote_ip: str  # empty: a Unix socket
    remote_port: int
    path: str = ""  # of the handshake or the last whole request, without its query; at most 255 bytes; empty: none
    user: str = ""  # whom it was bound to; empty: nobody
    gateway: int
    worker_id: int | None  # that served it last; None: none
    connect_time: float  # unix seconds
    duration: float  # seconds
    requests: int = 0
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int
    round_trip: float | None  # seconds the last ping took; None: not measured
    least_round_trip: float | None = None
    most_queued: int = 0  # bytes that waited for the client at one time


class Position(NamedTuple):
    """A place in what is published in a topic with a history: behind the publication of that offset."""

    epoch: str  # the name of an unbroken line of offsets
    offset: int  # 1 for the first publication; 0: before it


class Verdict(Named):
    """What became of a subscription from a position on, or of a question for what comes behind one."""

    RECOVERED = 0  # what was missed has been sent, all of it; nothing is missing and nothing comes twice
    TRIMMED = 1  # what was missed is not kept any more, or not all of it
    ROLLED_BACK = 2  # what was read is not kept: it was lost with what kept it
    UNKNOWN_EPOCH = 3  # that line of offsets is not known here


class Publication(NamedTuple):
    """What was published in a topic with a history."""

    offset: int
    data: str | bytes  # as it was given: text (also of publish_json) or binary


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of a subscription that began at a position; true if nothing is missing."""

    verdict: Verdict
    position: Position  # where it goes on: what comes is behind it

    def __bool__(self) -> bool:
        return self.verdict is Verdict.RECOVERED


@dataclass(frozen=True, slots=True)
class Past:
    """A part of the history of a topic: `verdict` says whether it is all that was asked for, `publications` what there
    is, and `position` where it ends: what is published behind it comes with subscribe(since=past.position)."""

    verdict: Verdict  # RECOVERED, unless what comes behind `since` is not all kept; then what is
    publications: tuple[Publication, ...]  # oldest first, or newest first if asked for so
    position: Position  # of the last publication here; where there is none, where it would be


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The certificate that a client has shown, and that one of `ssl_client_ca_file` vouches for."""

    subject: tuple[tuple[str, str], ...]  # whose it is: ("commonName", "ada"), ...
    issuer: tuple[tuple[str, str], ...]  # who signed it
    serial_number: str  # hexadecimal; unique with the issuer
    not_before: float  # unix seconds
    not_after: float  # unix seconds
    alternative_names: tuple[tuple[str, str], ...]  # ("email", "ada@example.org"), ("DNS", ...), ("URI", ...), ...
    der: bytes  # all of it

    @property
    def common_name(self) -> str:
        """The last commonName of the subject; empty when it has none."""
        return next((value for key, value in reversed(self.subject) if key == "commonName"), "")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hexadecimal."""
        return sha256(self.der).hexdigest()


class Headers(Mapping[str, str]):
    """The header fields of a request: a mapping whose names ignore case.

    A name that came several times has one value here, joined in order by ", " (RFC 9110 section 5.3);
    `cookie` is joined by "; ", because a comma may be part of a cookie (RFC 6265 section 5.4).
    `getlist` gives the values apart and `raw` the fields as they came.
    """

    __slots__ = ("_pairs", "_values")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple([(name, value) for name, value in pairs])
        values: dict[str, list[str]] = {}
        for name, value in self._pairs:
            values.setdefault(name.lower(), []).append(value)
        self._values = values

    def __getitem__(self, name: str) -> str:
        key = name.lower()
        return ("; " if key == "cookie" else ", ").join(self._values[key])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        """Each name once, lower-cased, in the order of its first appearance."""
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def getlist(self, name: str) -> list[str]:
        """Every value of that name, in order; an empty list when there is none."""
        return list(self._values.get(name.lower(), ()))

    @property
    def raw(self) -> list[tuple[str, str]]:
        """The (name, value) pairs as they came, repetitions included."""
        return list(self._pairs)

    def __repr__(self) -> str:
        return f"Headers({list(self._pairs)!r})"
