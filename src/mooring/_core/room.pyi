from typing import Self

from typing_extensions import disjoint_base

ROOMS_BYTES: int
STALE_MS: int
EXPECTED_MS: int

@disjoint_base
class Rooms:
    def __new__(cls, file: int) -> Self: ...
    def expect(self, number: int) -> None: ...
    def has(self, number: int) -> bool: ...
