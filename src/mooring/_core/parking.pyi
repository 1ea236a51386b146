from typing import Self

from typing_extensions import disjoint_base

from mooring._core.ledger import Books
from mooring._core.port import Port
from mooring._core.websocket import WebSockets

@disjoint_base
class Parking:
    def __new__(cls, connections: WebSockets, books: Books, ports: list[Port | None]) -> Self: ...
    def wake_asking(self) -> None: ...
