from typing import Self

from typing_extensions import disjoint_base

from mooring._core.connection import Connections
from mooring._core.reactor import Reactor, Source

@disjoint_base
class Acceptor(Source):
    def __new__(cls, reactor: Reactor, connections: Connections, fd: int, port: int) -> Self: ...
    def stop(self) -> None: ...
