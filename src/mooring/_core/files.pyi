from collections.abc import Callable

from typing_extensions import disjoint_base

from mooring._core.secure import SecureTransport

@disjoint_base
class FileSender(SecureTransport):
    on_file_failed: Callable[[str], None] | None
    file_limit: int
    @property
    def files_open(self) -> int: ...
