from typing_extensions import disjoint_base

from mooring._core.registry import Registry

@disjoint_base
class Transport(Registry):
    kept_from: int

    @property
    def queued(self) -> int: ...
    @property
    def gathered(self) -> int: ...
    def cut(self, fd: int, reason: bytes, cause: int) -> None: ...
