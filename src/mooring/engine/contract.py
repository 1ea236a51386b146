"""What is asked of an engine, and what it tells: one contract for the memory of a process and for brokers.

Theory
    An engine is asked and answers later: by a call of what came with the question, in the loop of the process. An
    engine in memory answers before the question returns. An answer comes exactly once, also when nobody can be reached.

    Who follows a topic hears one line of events. `follow` asks for what is behind a position, and its answer is an
    event of that line: everything up to the answer's end was told before it or is in it, and what is told after it is
    behind that end. So what was missed and what is new have no gap between them and nothing in common, whatever the
    engine had to ask for, and whoever else follows the topic here has the same line. An answer that does not reach the
    end is a part: who has asked does not follow yet, and asks again from there.

    A gap is the engine's own affair. It asks for what is missing, tells it in order, and nobody notices more than a
    delay. What can't be had again is told by its name (`judged`), never by silence.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from mooring.engine.history import Kept, Since
from mooring.engine.letters import Append
from mooring.types import Position, Verdict

__all__ = ["Answer", "Engine", "Listener", "PublishOutcome", "Refused", "Uncertain"]


class Refused(NamedTuple):
    """It has not happened, and will not."""

    reason: str


class Uncertain(NamedTuple):
    """It may have happened, or may still happen: it was sent, and there is no answer."""

    reason: str


#: What became of a publication; the position is its own.
PublishOutcome = Position | Uncertain | Refused

#: Called with what was asked for, or with why it can't be had.
Answer = Callable[[Since | Refused], None]


class Listener(Protocol):
    """Who is told what happens in topics that are followed."""

    def published(self, topic: str, epoch: str, kept: Kept, exclude: bytes) -> None:
        """The next publication of a topic: each comes once. Offsets of an epoch grow; one that is left out was told
        already, in an earlier epoch. `exclude` is that of Append, if it was published on this node."""

    def judged(self, topic: str, verdict: Verdict, position: Position) -> None:
        """The line is broken here, for the reason that the verdict names; it goes on behind the position."""

    def connected(self) -> None:
        """The engine works, from now on."""

    def disconnected(self, why: str) -> None:
        """It does not. It goes on trying, and what is followed stays so."""


class Engine(Protocol):
    """See the module's text."""

    def start(self, listener: Listener) -> None:
        """Begins to work. Called once; over a broker in an asyncio loop that runs: all happens there from then on."""

    async def close(self) -> None:
        """Ends; what was to be published still is, if it can be, and whoever waits for an answer gets one."""

    def publish(self, append: Append, answer: Callable[[PublishOutcome], None]) -> None:
        """Publications of one topic get their offsets in the order of these calls."""

    def follow(self, topic: str, position: Position | None, most_bytes: int, answer: Answer) -> None:
        """From a position on (None: from the end), until `unfollow`; see History.since of the answer. A topic that is
        followed already may be asked for again, for somebody else. Refused: who has asked does not follow."""

    def unfollow(self, topic: str) -> None:
        """For nobody any more. Questions that wait are refused."""

    def since(self, topic: str, position: Position | None, most: int, most_bytes: int, answer: Answer) -> None:
        """What comes behind a position, behind the end if there is none; see History.since."""

    def stats(self) -> dict[str, int]:
        """What it counts."""
