from collections.abc import Iterable

REASONS: dict[int, str]
LAST_CHUNK: bytes

def response_head(status: int, headers: Iterable[tuple[str, str]], reason: str | None = None) -> bytes: ...
def chunk(data: bytes) -> bytes: ...
