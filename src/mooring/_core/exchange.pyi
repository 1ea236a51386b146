from collections.abc import Callable

from typing_extensions import disjoint_base

from mooring._core.files import FileSender

@disjoint_base
class Sink: ...

@disjoint_base
class Exchanges(FileSender):
    sink: Sink
    on_cut: Callable[[int, str], None] | None
    def answer(self, fd: int, data: bytes, status: int, reason: bytes) -> None: ...
    def is_answered(self, fd: int, number: int) -> bool: ...
    def answer_begun(self, fd: int) -> bool: ...
    def idle_http(self) -> list[int]: ...
