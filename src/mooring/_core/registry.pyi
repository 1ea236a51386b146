from collections.abc import Callable
from enum import IntEnum
from typing import Any, Self

from typing_extensions import disjoint_base

from mooring._core.reactor import Reactor, Source
from mooring._core.room import Rooms
from mooring._core.table import Table

@disjoint_base
class Registry(Source):
    def __new__(
        cls,
        reactor: Reactor,
        table: Table,
        gateway: int,
        first_serial: int,
        *profiles: dict[str, Any],
        address_limit: int = 0,
        fresh_limit: int = 0,
        ceiling: int = 0,
    ) -> Self: ...
    @property
    def table(self) -> Table: ...
    @property
    def gateway(self) -> int: ...
    @property
    def listeners(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def free(self) -> int: ...
    rooms: Rooms | None
    on_ended: Callable[[tuple[Any, ...], bool], bytes | None]
    def say_room(self) -> None: ...
    def listener(self, fd: int) -> int: ...
    def abandon(self) -> None: ...
    def peer(self, fd: int) -> tuple[str, int, int]: ...

class Cause(IntEnum):
    UNKNOWN = 0
    CLIENT_CLOSED = 1
    CLIENT_ENDED = 2
    CLIENT_RESET = 3
    APPLICATION_CLOSED = 4
    HANDLER_FAILED = 5
    MESSAGE_REFUSED = 6
    HANDSHAKE_REFUSED = 7
    ANSWERED = 8
    BAD_REQUEST = 9
    BAD_HOST = 10
    BAD_HANDSHAKE = 11
    BAD_PROXY_HEADER = 12
    TLS_FAILED = 13
    PROTOCOL_ERROR = 14
    INVALID_DATA = 15
    MESSAGE_TOO_BIG = 16
    TOO_MANY_PINGS = 17
    TOO_MANY_CONNECTIONS = 18
    REQUEST_TIMEOUT = 19
    KEEPALIVE_TIMEOUT = 20
    HANDSHAKE_TIMEOUT = 21
    PING_TIMEOUT = 22
    HEARTBEAT_TIMEOUT = 23
    SLOW_CONSUMER = 24
    MEMORY_FULL = 25
    SERVER_FULL = 26
    SHUTDOWN = 27
    WORKER_LOST = 28
    NO_WORKER = 29
    STANDSTILL = 30
    FILE_BROKEN = 31
    OUT_OF_MEMORY = 32
    SERVER_ERROR = 33
    GATEWAY_LOST = 34
