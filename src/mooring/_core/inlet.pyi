from typing import Any, Self

from typing_extensions import disjoint_base

from mooring._core.channel import Channel
from mooring._core.outlet import Outlet
from mooring._core.pulse import Pulse
from mooring._core.reactor import Reactor
from mooring._core.table import Table

ANSWER_PART: int
CALL_TIMEOUT: float

class Waiting:
    def readable(self, fd: int, timeout: float) -> bool: ...
    def writable(self, fd: int, timeout: float) -> bool: ...
    def acquire(self, lock: Any) -> None: ...

@disjoint_base
class Inlet:
    def __new__(cls, server: object, on_message: tuple[object, ...], worker: object) -> Self: ...
    def observe(self, pulse: Pulse, limit: int = 0) -> None: ...
    @property
    def suspended(self) -> int: ...
    wants: int
    @property
    def handled(self) -> int: ...
    def end(self, outlet: Outlet, kind: int, by: int, code: int, listener: int, fd: int, reason: bytes) -> None: ...
    def done(self, outlet: Outlet, kind: int, fd: int, ticket: int, task: Any) -> None: ...

@disjoint_base
class ChannelOutlet(Outlet):
    eager: bool
    def __init__(
        self,
        gateway: int,
        table: Table,
        inlet: Inlet,
        reactor: Reactor,
        channel: int,
        reply_socket: object,
        page: int,
    ) -> None: ...
    def hello(self) -> None: ...
    def close(self) -> None: ...
    def flush(self) -> None: ...
    def send_acks(self) -> None: ...

@disjoint_base
class WorkerChannel(Channel): ...
