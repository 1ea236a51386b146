from collections.abc import Callable
from typing import Any, Self

from typing_extensions import disjoint_base

from mooring._core.reactor import Reactor
from mooring._core.secure import SecureTransport
from mooring._core.table import Table

@disjoint_base
class FileSender(SecureTransport):
    on_file_failed: Callable[[str], None] | None
    file_limit: int
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
    @property
    def files_open(self) -> int: ...
    @property
    def files_sent(self) -> int: ...
    @property
    def files_refused(self) -> int: ...
    @property
    def files_broken(self) -> int: ...
