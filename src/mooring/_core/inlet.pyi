from collections.abc import Callable
from contextvars import Context
from typing import Self

from typing_extensions import disjoint_base

from mooring._core.contract import Taker, WorkerContract
from mooring._core.gateway_end import GatewayEnd, Outbox
from mooring._core.pulse import Pulse
from mooring._core.steps import Steps
from mooring._core.wire import Notice

@disjoint_base
class Inlet(Taker):
    context: Context
    @property
    def steps(self) -> Steps: ...
    def __new__(
        cls, server: object, on_message: tuple[object, ...], worker: WorkerContract | None, outbox: Outbox
    ) -> Self: ...
    def observe(self, pulse: Pulse, limit: int = 0) -> None: ...
    def measure(self) -> None: ...
    def timings(self) -> dict[str, dict[str, list[int]]]: ...
    def abandon(self) -> None: ...
    @property
    def suspended(self) -> int: ...
    on_idle: Callable[[], None] | None
    kept_waiting: set[int] | None
    @property
    def handled(self) -> int: ...
    def end(self, gateway_end: GatewayEnd, last: Notice) -> None: ...
