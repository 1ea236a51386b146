from collections.abc import Callable
from typing import Any, Self

from typing_extensions import disjoint_base

from mooring._core.files import FileSender
from mooring._core.reactor import Reactor
from mooring._core.table import Table

@disjoint_base
class Sink: ...

@disjoint_base
class Exchanges(FileSender):
    sink: Sink
    on_cut: Callable[[int, str], None] | None
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
    def answer(self, fd: int, data: bytes, reason: bytes) -> None: ...
    def is_answered(self, fd: int, number: int) -> bool: ...
    def answer_begun(self, fd: int) -> bool: ...
    def idle_http(self) -> list[int]: ...
