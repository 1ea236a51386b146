"""What a process is made of: parts, all of which live by one contract.

A part is one thing that a process does: it owns connections, runs the application, hands out tasks. The role's row in
mooring.roles says which parts a process has; the host (mooring.process_host) makes them and has them live:

    made       in order; what one needs of those before it, it finds in its host
    link       as often as there are peers, from then on until the end
    start      before anybody hears of this process; what it raises ends the process
    greet      tells the peers that it is there
    serve      all peers are there
    retire     a worker has a successor that serves; that may be this process
    drain      nothing new is taken, what there is ends; it says when that is done, and `hurry` wants it done
    finish     nothing of it runs any more
    depart     its last words to peers, who see a channel end and shall know that it was in order
    abandon    in a forked child instead of all that: it gives back what is the parent's, without a word

All but the first may be left out. Parts of which one says `needs_asyncio` live in an asyncio loop on the reactor; the
others have the reactor alone, and neither `start`, `greet` nor `finish`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # each part imports what it is made of
    import asyncio
    from collections.abc import Sequence

    from mooring._core.pulse import Pulse
    from mooring._core.reactor import Reactor
    from mooring._core.relay import Relay
    from mooring.admin.desk import Controlled
    from mooring.app.handlers import Handlers
    from mooring.app.listener import Listener
    from mooring.app.shared import Shared
    from mooring.app.topics import TopicRules
    from mooring.boot import Boot, LinkEnd
    from mooring.config import Settings
    from mooring.link.engine import EngineLink
    from mooring.net.messages import ToChild
    from mooring.worker.worker import Worker
else:

    class Controlled(Protocol):
        """What is said of it, mooring.admin.desk says, which not every process loads."""


ORPHANED = "the supervisor is gone"  # a reason to end
Drained = Callable[[dict[str, int]], None]


class Server(Controlled, Protocol):
    """What a process needs of a mooring.Server, which stands above it."""

    @property
    def settings(self) -> Settings: ...
    @property
    def _handlers(self) -> Handlers: ...
    @property
    def _listeners(self) -> Sequence[Listener]: ...
    @property
    def _shared(self) -> Shared: ...
    @property
    def _topics(self) -> TopicRules: ...
    def _begin(self, worker: Worker, settings: Settings) -> None:
        """The server runs in this process from now on, with this worker and these settings."""

    def _end(self) -> None:
        """It does not: this is a forked child."""


class OpenLink(Protocol):
    """This process's end of a link."""

    def hang_up(self) -> None: ...
    def abandon(self) -> None: ...


class Peer(Protocol):
    """A worker, as somebody with a link to it sees it."""

    @property
    def worker(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def pid(self) -> int: ...


class Controller(Protocol):
    """Who says what this process does, and is told how it goes: the supervisor, or signals where there is none."""

    can_reload: bool

    def ask_reload(self) -> None: ...
    def ask_shutdown(self) -> None: ...
    def ask_replacement(self, why: str) -> None: ...
    def end(self, reason: str) -> None: ...
    def starting(self) -> None:
        """The loop runs; nothing has started yet."""

    def started(self) -> None:
        """Every part has."""

    def ready(self) -> None:
        """Peers know of this process."""

    def drained(self, counts: dict[str, int]) -> None: ...
    def retired(self, worker: Peer) -> None:
        """Nothing of a worker that retires is in flight here."""

    def broken(self, worker: Peer, why: str) -> None: ...
    def handled(self, answer: int) -> None: ...
    async def processes(self) -> list[dict[str, Any]]:
        """How each process of the server is doing."""

    def departed(self) -> None:
        """Nothing is left to be done."""

    def abandon(self) -> None:
        """In a forked child: gives back what is the parent's."""


class Host(Protocol):
    """What a part finds in its process."""

    boot: Boot
    settings: Settings
    server: Server | None
    reactor: Reactor
    controller: Controller
    pulse: Pulse
    relay: Relay | None  # of the gateway in this process
    worker: Worker | None  # likewise
    engine: EngineLink  # the way to the engine, if there is one
    ended: asyncio.Future[tuple[bool, str]]  # it shall end: whether as the last one, and the reason


class Part:
    """See the module's text. What is not overridden does nothing."""

    needs_asyncio: bool = False

    def __init__(self, host: Host) -> None:
        self.host = host

    def link(self, end: LinkEnd) -> OpenLink | None:
        """Opens this process's end of a link; None: it is for another part."""
        return None

    def beat(self) -> None:
        """The loop turns; called all the time."""

    async def start(self) -> None: ...
    async def greet(self) -> None: ...
    def serve(self) -> None: ...
    def hear(self, message: ToChild) -> None:
        """What the supervisor says beyond the life of a process."""

    def retire(self, worker: int, generation: int) -> None: ...
    def drain(self, timeout: float, code: int, drained: Drained) -> None:
        """Calls `drained(counts)` in so many seconds at the latest; the counts are for the last line of the log."""
        drained({})

    def hurry(self) -> None:
        """A drain that has begun shall be over."""

    def counts(self) -> dict[str, int]:
        """Those of a drain, as they are now."""
        return {}

    def stats(self) -> dict[str, Any]:
        """What it counts; see mooring.counters."""
        return {}

    def measure(self) -> None:
        """From now on somebody wants to know how long things take: `timings()` says."""

    def timings(self) -> dict[str, dict[str, list[int]]]:
        """Histograms, by their names in mooring.counters and the value of their label."""
        return {}

    async def finish(self, reason: str, *, last: bool) -> None: ...
    def depart(self) -> None: ...
    def abandon(self) -> None: ...
