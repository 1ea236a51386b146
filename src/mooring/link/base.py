"""The contract of the seam: what both ends may rely on, whichever implementation it is.

Up (gateway -> worker), through the port that `Relay.attach` was given:
    events arrive in the order they were handed over; each has a ticket, which comes back exactly once, behind all
    commands that its handler gave; a port that is lost gives its tickets back as unfinished.

Down (worker -> gateway), through the outlet:
    commands are applied in the order they were given, whole or not at all; a command for a connection that is gone has
    no effect; `call` waits for an answer and is refused with StateError when none can come.
"""

from typing import Protocol


class WorkerOutlet(Protocol):
    """What the runtime does with an outlet; the commands themselves go through mooring._core.outlet.Outbox."""

    @property
    def gateway(self) -> int:
        """Number of the gateway that it leads to."""

    def hello(self) -> None:
        """Tells the gateway that this worker is ready for events."""

    def flush(self) -> None:
        """Hands everything queued over, waiting for room if need be."""

    def close(self) -> None:
        """Gives the seam up; the gateway takes back what is not finished."""

    def call(self, what: int, fd: int, payload: bytes) -> bytes:
        """Asks the gateway and waits for its answer."""
