from collections.abc import Callable
from contextvars import Context
from typing import Any, Self

from typing_extensions import disjoint_base

from mooring._core.channel import Channel
from mooring._core.outlet import Outbox, Outlet
from mooring._core.pulse import Pulse
from mooring._core.reactor import Reactor
from mooring._core.steps import Steps
from mooring._core.table import Table
from mooring._core.wire import Notice

ANSWER_PART: int
CALL_TIMEOUT: float

class Waiting:
    def readable(self, fd: int, timeout: float) -> bool: ...
    def writable(self, fd: int, timeout: float) -> bool: ...
    def acquire(self, lock: Any) -> None: ...

@disjoint_base
class Inlet:
    context: Context
    @property
    def steps(self) -> Steps: ...
    def __new__(cls, server: object, on_message: tuple[object, ...], worker: object, outbox: Outbox) -> Self: ...
    def observe(self, pulse: Pulse, limit: int = 0) -> None: ...
    def abandon(self) -> None: ...
    @property
    def suspended(self) -> int: ...
    on_idle: Callable[[], None] | None
    wants: int
    kept_waiting: set[int] | None
    output_limit: int
    @property
    def handled(self) -> int: ...
    def end(self, outlet: Outlet, last: Notice) -> None: ...

@disjoint_base
class ChannelOutlet(Outlet):
    eager: bool
    @property
    def channel(self) -> WorkerChannel: ...
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
    def hang_up(self) -> None: ...
    def abandon(self) -> None: ...
    def close(self) -> None: ...
    def flush(self) -> None: ...
    def send_acks(self) -> None: ...

@disjoint_base
class WorkerChannel(Channel): ...
