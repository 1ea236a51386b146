from typing import final

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
    @property
    def streamed(self) -> bool: ...
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
class Head:
    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
