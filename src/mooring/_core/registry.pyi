from typing import Any, Self

from typing_extensions import disjoint_base

from mooring._core.reactor import Reactor, Source
from mooring._core.room import Rooms
from mooring._core.table import Table

@disjoint_base
class Registry(Source):
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
    def table(self) -> Table: ...
    @property
    def gateway(self) -> int: ...
    @property
    def listeners(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def free(self) -> int: ...
    rooms: Rooms | None
    def say_room(self) -> None: ...
    def listener(self, fd: int) -> int: ...
    def abandon(self) -> None: ...
    def peer(self, fd: int) -> tuple[str, int, int]: ...
