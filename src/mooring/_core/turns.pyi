from typing import Self

from typing_extensions import disjoint_base

from mooring._core.order import Publisher
from mooring._core.websocket import WebSockets

@disjoint_base
class Turns:
    def __new__(cls, connections: WebSockets) -> Self: ...
    @property
    def paused(self) -> list[Publisher]: ...
    def resume(self) -> None: ...
