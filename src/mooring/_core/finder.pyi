from typing import Self, TypeAlias

from typing_extensions import disjoint_base

from mooring._core.hub import Hub
from mooring._core.websocket import WebSockets

_Row: TypeAlias = tuple[float, int, float, float, bytes, bytes, int, int, float | None, float | None]

PATH_LIMIT: int
SORTS: tuple[str, ...]
FORGET: float

@disjoint_base
class Finder:
    def __new__(cls, connections: WebSockets, hub: Hub) -> Self: ...
    def note_path(self, fd: int, path: bytes) -> None: ...
    def find(
        self,
        *,
        fd: int = 0,
        path: bytes = b"",
        prefix: bool = False,
        family: int = 0,
        network: bytes = b"",
        bits: int = 0,
        user: bytes = b"",
        topic: bytes = b"",
        worker: int = -1,
        state: int = 0,
        older: int = 0,
        younger: int = 0,
        idle: int = 0,
        sort: str = "age",
        reverse: bool = False,
        limit: int = 0,
        brief: bool = False,
    ) -> tuple[int, list[_Row] | bytes]: ...
    def rows(self, fds: list[int]) -> list[_Row]: ...
    def forget(self) -> None: ...
