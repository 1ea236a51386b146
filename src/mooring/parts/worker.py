"""The worker's part: runs the application's handlers, and tells them of the process tree."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from mooring._core.table import Table
from mooring.boot import LinkEnd
from mooring.journal import own_logger
from mooring.link.channel import open_gateway_end
from mooring.net import messages
from mooring.parts import ORPHANED, Drained, Host, OpenLink, Part
from mooring.worker.dispatcher_link import DispatcherLink
from mooring.worker.worker import Worker

log = own_logger("mooring.runtime")

STOPS = ("shutdown", ORPHANED)  # how the reason begins when clients were sent away


class WorkerPart(Part):
    """One worker, task worker or process of the application's own: its number says which."""

    needs_asyncio = True

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        boot, server = host.boot, host.server
        assert boot.worker is not None
        assert server is not None
        server._shared.open(boot.shared)
        here, bound = len(server._listeners), len(host.settings.listeners)
        if here != bound:
            log.warning(
                "the application has %d further listeners, the server %d: restart it to change that", here, bound
            )
        handlers = [listener._handlers for listener in server._listeners]
        if server._topics and not boot.engine:
            log.warning("the application has topics with a history, the server no engine: restart it to have them kept")
        self.worker = Worker(
            server,
            server._handlers,
            host.settings,
            boot.worker,
            boot.generation,
            host.controller,
            handlers,
            server._topics if boot.engine else None,
        )
        self.worker.topics.use(host.engine)
        self.worker.observe(host.pulse)
        host.worker = self.worker
        server._begin(self.worker, host.settings)
        self._dispatcher: DispatcherLink | None = None
        self._known = asyncio.Event()  # the state of the tree, which stats() says from the first event on
        self._greeted = False  # this worker has said to everybody that it takes events
        self._background: set[asyncio.Task[None]] = set()

    def link(self, end: LinkEnd) -> OpenLink | None:
        worker = self.worker
        if end.service == "engine":
            return self.host.engine.open(end.channel)
        if end.gateway is None:
            link = DispatcherLink(self.host.reactor, end.channel, worker.task_desk, worker.bench, worker.pipe, worker)
            self._dispatcher = link
            if self._greeted:
                link.hello()
            return link
        gateway_end = open_gateway_end(
            worker.inlet,
            self.host.reactor,
            gateway=end.gateway,
            table=Table(self.host.boot.tables.get(end.gateway, -1)),
            channel=end.channel,
            reply=end.reply,
            page=end.page,
        )
        gateway_end.eager = worker.bench is not None
        gateway_end.beat()
        worker.outbox.connect(gateway_end)
        if self._greeted:  # it was attached later than at the start
            gateway_end.hello()
        return gateway_end

    def beat(self) -> None:
        for gateway_end in self.worker.outbox.all():
            gateway_end.beat()

    async def start(self) -> None:
        worker = self.worker
        worker.loop = asyncio.get_running_loop()
        worker.timers.open()
        if self.host.relay is not None:
            from mooring.link.local import open_local

            gateway = self.host.boot.gateway
            assert gateway is not None
            worker.outbox.connect(
                open_local(
                    self.host.relay, worker.inlet, gateway=gateway, worker=worker.number, generation=worker.generation
                )
            )
        await worker.start()

    async def greet(self) -> None:
        known = asyncio.ensure_future(self._known.wait())
        await asyncio.wait((known, self.host.ended), return_when=asyncio.FIRST_COMPLETED)
        known.cancel()
        self._greeted = True
        for gateway_end in self.worker.outbox.all():
            gateway_end.hello()
            gateway_end.flush()  # before "ready": a client that comes after it finds every worker usable
        self.worker.task_desk.open()
        if self._dispatcher is not None:
            self._dispatcher.hello()

    def serve(self) -> None:
        self.worker.serve()
        self.worker.watch(self.host.reactor)

    def hear(self, message: messages.ToChild) -> None:
        if isinstance(message, messages.State):
            self.worker.tree = message.state
            self._known.set()
        elif isinstance(message, messages.Event):
            self._begin(self._handle(message))

    async def _handle(self, event: messages.Event) -> None:
        """An event of the process tree, for the application; whoever tells of it waits for the handler's end."""
        await self.worker.fire(event.name, *event.arguments)
        self.host.controller.handled(event.answer)

    def _begin(self, running: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(running)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def retire(self, worker: int, generation: int) -> None:
        if worker == self.worker.number:
            self.worker.retire()

    def drain(self, timeout: float, code: int, drained: Drained) -> None:
        self.worker.retire()
        drained({})

    async def finish(self, reason: str, *, last: bool) -> None:
        # of a process that is replaced, with other gateways than its own
        await self.worker.finish(clients_stay=self.host.relay is None and not reason.startswith(STOPS))
        await self.worker.depart(reason, self.host.settings.process.event_timeout)
        await self.worker.fire("worker_stop", self.worker.number)
        if last:
            await self.worker.fire("shutdown")
        await self.worker.topics.finish()

    def stats(self) -> dict[str, Any]:
        return self.worker.stats()

    def measure(self) -> None:
        self.worker.inlet.measure()
        if self.worker.bench is not None:
            self.worker.bench.measure()

    def timings(self) -> dict[str, dict[str, list[int]]]:
        timings = self.worker.inlet.timings()
        if timings and self.worker.bench is not None:
            timings["handler"] |= self.worker.bench.timings()
        return timings

    def depart(self) -> None:
        for gateway_end in self.worker.outbox.all():
            gateway_end.flush()

    def abandon(self) -> None:
        self.worker.abandon()
        assert self.host.server is not None
        self.host.server._end()
