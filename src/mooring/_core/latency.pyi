from typing import Final

from typing_extensions import disjoint_base

BOUNDS_SECONDS: Final[tuple[float, ...]]

@disjoint_base
class Latencies:
    def report(self) -> dict[str, list[int]]: ...
    def note(self, kind: int, microseconds: int) -> None: ...
    def counted(self, kind: int) -> list[int]: ...
