"""What of the engine can be set."""

from dataclasses import dataclass

__all__ = ["Options"]


@dataclass(frozen=True)
class Options:
    """All times are in seconds."""

    prefix: str = "mooring"
    """Of all keys and channels. Servers with another prefix have nothing in common."""

    partitions: int = 1024
    """Channels that all topics share. The same on all nodes. With more, a node hears less that it does not want."""

    patience: float = 5.0
    """How long a publication or a question waits for a server; then it is refused, or uncertain if it was sent."""

    call_limit: float = 2.0
    """How long a server may take for one answer. Then it is given up, and looked for anew."""

    beat_every: float = 1.0
    """From one heartbeat to the next: how soon a gap at the end of a quiet topic is found."""

    beat_limit: float = 3.0
    """How long a heartbeat may take until it is heard. Then the connections are given up."""

    keep: float = 10.0
    """How long a node keeps what it has published, to send it again to a server that has lost it."""

    keep_bytes: int = 64 << 20
    """At most so much of it."""

    queue_bytes: int = 64 << 20
    """How much may wait for a server. What comes above it is refused."""

    batch: int = 200
    """Publications of one batch, at most."""

    batch_bytes: int = 256 << 10
    """A batch is full with so much."""

    idle: float = 86400.0
    """After how long a topic is forgotten of which nothing is kept, and nobody asks for it."""

    backoff: tuple[float, float] = (0.05, 2.0)
    """The first pause before a connection is tried again, and the longest."""
