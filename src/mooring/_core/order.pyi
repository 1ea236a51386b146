from typing import Self

from typing_extensions import disjoint_base

from mooring._core.reactor import Reactor, Source

ORDER_BYTES: int
HOLD_MS: int

@disjoint_base
class Publisher: ...

@disjoint_base
class Order(Source):
    def __new__(cls, reactor: Reactor, file: int) -> Self: ...
    @property
    def out_of_order(self) -> int: ...
