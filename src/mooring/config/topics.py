"""The section `topics` of the settings: topics with a history."""

from dataclasses import dataclass
from typing import Any

from .option import GIB, Section, option


def _engine(value: Any) -> str | None:
    """Which URLs there are is said at the start (runtime.py), without the password that may stand in it."""
    if value == "memory" or (value.split() and all("://" in url for url in value.split())):
        return None
    return "say 'memory', or the URL of a server, such as 'redis://127.0.0.1:6379'"


def _prefix(value: Any) -> str | None:
    return None if value else "one character at least is wanted"


@dataclass(frozen=True)
class Topics(Section):
    """Topics that remember what was published in them (`Server.topic`)."""

    engine: str = option(
        "memory",
        "What keeps them: `memory`, the engine's own process, or the URL of a Redis or Valkey server that all nodes "
        "share: `redis://host:port`, `rediss://`, `unix://`, `redis+sentinel://host/service`; of several, with spaces "
        "between them, each has a part of the topics.",
        check=_engine,
    )
    engine_prefix: str = option(
        "mooring", "Of all keys and channels in Redis. Servers with another one have nothing in common.", check=_prefix
    )
    history_memory_limit: int = option(
        256 << 20,
        "What the histories of all topics may take together in `memory`; above it publications in them are refused.",
        "bytes",
        bounds=(1 << 20, 64 * GIB),
    )
