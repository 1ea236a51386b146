from typing import Self

from typing_extensions import disjoint_base

from mooring._core.reactor import Reactor, Source

ORDER_BYTES: int
HOLD_MS: int

@disjoint_base
class Publisher:
    @property
    def held(self) -> bool: ...

@disjoint_base
class Order(Source):
    def __new__(cls, reactor: Reactor, file: int) -> Self: ...
    def offer(self, publisher: Publisher, pid: int, number: int) -> bool: ...
    @property
    def damaged(self) -> bool: ...
    @property
    def out_of_order(self) -> int: ...
