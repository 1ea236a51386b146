from collections.abc import Iterable
from typing import Final, final

REASONS: dict[int, str]
CONTINUE: Final = 100
LAST_CHUNK: bytes

class HttpError(Exception):
    status: int
    reason: str
    def __init__(self, status: int, reason: str) -> None: ...

@final
class ParsedRequest:
    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def minor(self) -> int: ...
    @property
    def headers(self) -> list[tuple[str, str]]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def upgrade(self) -> bool: ...
    def __init__(
        self,
        method: str,
        target: str,
        minor: int,
        headers: list[tuple[str, str]],
        body: bytes = b"",
        keep_alive: bool = True,
        upgrade: bool = False,
    ) -> None: ...

@final
class HttpCodec:
    def __init__(
        self,
        line_limit: int = 8192,
        field_limit: int = 8192,
        head_limit: int = 16384,
        field_count_limit: int = 100,
        body_limit: int = ...,
    ) -> None: ...
    @property
    def buffered(self) -> int: ...
    @property
    def idle(self) -> bool: ...
    def receive(self, data: bytes | bytearray | memoryview) -> None: ...
    def take_rest(self) -> bytes: ...
    def next_event(self) -> ParsedRequest | int | None: ...

def response_head(status: int, headers: Iterable[tuple[str, str]], reason: str | None = None) -> bytes: ...
def chunk(data: bytes) -> bytes: ...
