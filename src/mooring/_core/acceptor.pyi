from collections.abc import Callable
from typing import Self

from typing_extensions import disjoint_base

from mooring._core.reactor import Reactor, Source
from mooring._core.transport import Transport

@disjoint_base
class Acceptor(Source):
    def __new__(
        cls,
        reactor: Reactor,
        connections: Transport,
        fd: int,
        port: int,
        listener: int = 0,
        rate: int = 0,
        say: Callable[..., None] = ...,
    ) -> Self: ...
    def look(self) -> None: ...
    def stop(self) -> None: ...
