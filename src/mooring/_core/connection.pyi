from typing import Any, Self

from typing_extensions import disjoint_base

from mooring._core.exchange import Exchanges
from mooring._core.reactor import Reactor
from mooring._core.table import Table

@disjoint_base
class Connections(Exchanges):
    def __new__(
        cls,
        reactor: Reactor,
        table: Table,
        gateway: int,
        first_serial: int,
        *profiles: dict[str, Any],
        address_limit: int = 0,
        fresh_limit: int = 0,
        ceiling: int = 0,
    ) -> Self: ...
    def upgrade(self, fd: int, response: bytes, deflate: tuple[object, ...] | None = None) -> bool: ...
    def push(self, fd: int, opcode: int, data: bytes) -> bool: ...
    def disconnect(self, fd: int, code: int, reason: bytes) -> bool: ...
    def end(self, fd: int) -> bool: ...
    def stats(self) -> dict[str, int]: ...
