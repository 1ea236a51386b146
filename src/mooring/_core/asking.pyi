from collections.abc import Callable
from typing import Self

from typing_extensions import disjoint_base

from mooring._core.websocket import WebSockets

@disjoint_base
class Asking:
    def __new__(cls, connections: WebSockets) -> Self: ...
    def when_room(self, fd: int, function: Callable[[bool], None]) -> None: ...
