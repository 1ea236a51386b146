from typing import Self

from typing_extensions import disjoint_base

from mooring._core.ledger import Books
from mooring._core.websocket import WebSockets
from mooring._core.worker_end import WorkerEnd

@disjoint_base
class OwnedWork:
    def __new__(cls, connections: WebSockets, books: Books, worker_ends: list[WorkerEnd | None]) -> Self: ...
    @property
    def works(self) -> dict[int, dict[tuple[WorkerEnd, int], bytes]]: ...
