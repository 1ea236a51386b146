"""The section `topics` of the settings: topics with a history."""

from dataclasses import dataclass

from .option import GIB, Section, option


@dataclass(frozen=True)
class Topics(Section):
    """Topics that remember what was published in them (`Server.topic`)."""

    history_memory_limit: int = option(
        256 << 20,
        "What the histories of all topics may take together; above it publications in them are refused.",
        "bytes",
        bounds=(1 << 20, 64 * GIB),
    )
