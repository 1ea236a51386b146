from types import ModuleType
from typing import Self

from typing_extensions import disjoint_base

FASTEST: ModuleType

class TooLong(Exception): ...
class Broken(Exception): ...

@disjoint_base
class Deflate:
    def __new__(
        cls,
        bits: int = 15,
        peer_bits: int = 15,
        keeps: bool = False,
        peer_keeps: bool = False,
        *,
        limit: int,
        ratio: float = 100.0,
        threshold: int = 64,
        level: int = 6,
        memory: int = 8,
        engine: ModuleType = ...,
    ) -> Self: ...
    @property
    def keeps(self) -> bool: ...
    @property
    def peer_keeps(self) -> bool: ...
    @property
    def threshold(self) -> int: ...
    @property
    def longest(self) -> int: ...

def compress(deflate: Deflate, data: bytes) -> bytes: ...
def inflate(deflate: Deflate, data: bytes) -> bytes: ...
