from typing import Self

from typing_extensions import disjoint_base

from mooring._core.connection import Connections

@disjoint_base
class Hub:
    def __new__(cls, connections: Connections, limit: int) -> Self: ...
    def members(self, name: bytes) -> list[int]: ...
    def __len__(self) -> int: ...

@disjoint_base
class Topic: ...
