"""A process of the server: parts, which live as its controller says.

Which parts there are, its role says (mooring.roles); what one is, mooring.parts. Who is told by a supervisor what to do
is controlled by `Supervised`; where everything is in the process that was started, by `Single`: the same parts, with
signals in the place of messages. A process with a part that needs asyncio runs it on its reactor, the others run the
reactor alone.
"""

from __future__ import annotations

import os
from functools import partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from mooring._core.orphan import keep_freed_memory
from mooring._core.pulse import Pulse
from mooring._core.reactor import Reactor
from mooring.boot import Boot, LinkEnd
from mooring.config import Settings
from mooring.link.engine import EngineLink
from mooring.monitor.reporter import Counts, Reporter, Timings, counts_of
from mooring.net import forks
from mooring.net.descriptors import raise_descriptor_limit
from mooring.net.messages import ToChild
from mooring.parts import Controller, OpenLink, Part, Server
from mooring.roles import ROLES

if TYPE_CHECKING:
    import asyncio

    from mooring._core.relay import Relay
    from mooring.worker.worker import Worker


class ProcessHost:
    """The parts of this process. `server`: of one that runs the application."""

    def __init__(self, boot: Boot, settings: Settings, server: Server | None, controller: Controller) -> None:
        keep_freed_memory()
        raise_descriptor_limit()
        self.boot = boot
        self.settings = settings
        self.server = server
        self.controller = controller
        self.reactor = Reactor()
        self.loop: asyncio.AbstractEventLoop | None = None  # None: the reactor runs alone
        self.relay: Relay | None = None
        self.worker: Worker | None = None
        self.engine = EngineLink(self.reactor)
        self.ended: asyncio.Future[tuple[bool, str]]
        self.pulse = Pulse(boot.pulse) if boot.pulse >= 0 else Pulse()
        if boot.pulse >= 0:
            os.close(boot.pulse)
        self._links: WeakValueDictionary[int, OpenLink] = WeakValueDictionary()  # by the number of the link
        self.parts: list[Part] = []
        for name in ROLES[boot.role].parts:
            self.parts.append(resolve_name(name)(self))
        self._draining: set[Part] | None = None  # those that are not drained yet; None: nobody drains
        self._counts: dict[str, int] = {}
        self._reporter: Reporter | None = None
        if boot.place_of_report > 0:
            self._reporter = Reporter(self.reactor.call_later, boot.scoreboard, boot.place_of_report, self.report)
            self.measure()
        self._over = False

    # ------------------------------------------------------------------ its own life

    def run(self) -> None:
        """Lives until its controller ends it."""
        self._beat()
        if self._reporter is not None:
            self._reporter.start()
        for end in self.boot.links:
            self.link(end)
        if any(part.needs_asyncio for part in self.parts):
            import asyncio

            from mooring.net.loop import new_event_loop

            with asyncio.Runner(loop_factory=partial(new_event_loop, self.reactor)) as runner:
                runner.run(self.main())
        else:
            self.controller.starting()
            self.controller.started()
            self.controller.ready()
            if not self._over:
                self.reactor.run()
            self._depart()

    async def main(self) -> None:
        """The same, in a loop whose selector is the reactor."""
        import asyncio

        from mooring.net.loop import outcome

        self.loop = asyncio.get_running_loop()
        self.ended = self.loop.create_future()
        self.controller.starting()
        for part in self.parts:
            await part.start()
        self.controller.started()
        for part in self.parts:
            await part.greet()
        self.controller.ready()
        last, reason = await outcome(self.ended)
        for part in self.parts:
            await part.finish(reason, last=last)
        self._depart()

    def measure(self) -> None:
        """What is reported has to be measured from now on."""
        for part in self.parts:
            part.measure()

    def report(self) -> tuple[Counts, Timings]:
        """What is counted and measured here, for the scoreboard."""
        timings = {name: found for part in self.parts for name, found in part.timings().items()}
        return counts_of(*[part.stats() for part in self.parts]), timings

    def _depart(self) -> None:
        if self._reporter is not None:
            self._reporter.report()
        for part in reversed(self.parts):
            part.depart()
        self.reactor.flush()
        self.controller.departed()

    def _beat(self) -> None:
        """The loop turns, and whoever watches it can see that."""
        self.pulse.beat()
        for part in self.parts:
            part.beat()
        self.reactor.call_later(self.settings.process.beat_period, self._beat)

    def abandon(self) -> None:
        """In a forked child. The reactor comes first: what it shares with the parent is the parent's."""
        self.reactor.abandon(forks.came_back)
        if self._reporter is not None:
            self._reporter.stop()
        for opened in list(self._links.values()):
            opened.abandon()
        self.controller.abandon()
        for part in self.parts:
            part.abandon()

    # ------------------------------------------------------------------ what its controller says

    def link(self, end: LinkEnd) -> None:
        """This is the end of a link to a peer."""
        for part in self.parts:
            opened = part.link(end)
            if opened is not None:
                self._links[end.number] = opened
                return

    def hang_up(self, number: int) -> None:
        """The process at the other end of that link has ended. Mostly its channel says so, too, and has said so before;
        not while others that it has started hold it open."""
        opened = self._links.get(number)
        if opened is not None:
            opened.hang_up()

    def serve(self) -> None:
        """All peers are there."""
        for part in self.parts:
            part.serve()

    def hear(self, message: ToChild) -> None:
        """For whichever part it concerns."""
        for part in self.parts:
            part.hear(message)

    def retire(self, worker: int, generation: int) -> None:
        """That worker has a successor, which serves."""
        for part in self.parts:
            part.retire(worker, generation)

    @property
    def draining(self) -> bool:
        """Whether a drain has begun; it may be over."""
        return self._draining is not None

    def drain(self, timeout: float, code: int) -> None:
        """Nothing new is taken, clients are closed with `code`. The controller hears when that is done, even if it was
        done before."""
        if self._draining is None:
            self._draining = set(self.parts)
            for part in self.parts:
                part.drain(timeout, code, partial(self._drained, part))
        elif not self._draining:
            self.controller.drained(self.counts())

    def _drained(self, part: Part, counts: dict[str, int]) -> None:
        assert self._draining is not None
        self._counts |= counts
        self._draining.discard(part)
        if not self._draining:
            self.controller.drained(self._counts)

    def hurry(self) -> None:
        """A drain shall be over."""
        for part in self.parts:
            part.hurry()

    def counts(self) -> dict[str, int]:
        """What becomes of messages and tasks, as it is now."""
        return {name: count for part in self.parts for name, count in part.counts().items()}

    def end(self, reason: str, *, last: bool = False) -> None:
        """Ends this process in order; `last`: nobody else of the application runs any more."""
        self._over = True
        if self.loop is None:
            self.reactor.stop()
        elif not self.ended.done():
            self.ended.set_result((last, reason))
