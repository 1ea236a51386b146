from collections.abc import Callable
from ssl import SSLContext, SSLObject
from typing import Self

from typing_extensions import disjoint_base

from mooring._core.transport import Transport

@disjoint_base
class Tls:
    def __new__(cls, context: SSLContext) -> Self: ...

@disjoint_base
class SecureTransport(Transport):
    on_tls_failed: Callable[[str, str], None] | None
    def use_context(self, listener: int, context: SSLContext) -> None: ...
    def is_secure(self, listener: int) -> bool: ...
    def tls_session(self, fd: int) -> SSLObject | None: ...

def reason_of(error: OSError) -> str: ...
