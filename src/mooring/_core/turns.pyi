from typing import Self

from typing_extensions import disjoint_base

from mooring._core.connection import Connections
from mooring._core.order import Publisher

@disjoint_base
class Turns:
    unlimited: bool
    def __new__(cls, connections: Connections) -> Self: ...
    @property
    def paused(self) -> list[Publisher]: ...
    def resume(self) -> None: ...
