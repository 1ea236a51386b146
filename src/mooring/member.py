"""A child of the supervisor: the parts that its boot payload asks for, and the child socket on which it is told what
they do and on which it says how they are.

Which of them there are makes it a gateway, a worker, a server (both in one process) or the dispatcher. Whoever has a
worker in it runs asyncio on its reactor; the others run the reactor alone. Without a supervisor it ends, in order:
nobody would start again what ends here.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Protocol
from weakref import WeakValueDictionary

from mooring._core.order import Order
from mooring._core.process import keep_freed_memory
from mooring._core.pulse import Pulse
from mooring._core.reactor import Reactor
from mooring._core.relay import Port
from mooring._core.room import Rooms
from mooring._core.table import Table
from mooring.admin.desk import Desk
from mooring.admin.finder import Finder
from mooring.boot import Boot, LinkEnd
from mooring.config import Settings
from mooring.dispatcher.dispatcher import Dispatcher, Peer
from mooring.gateway.gateway import Gateway
from mooring.journal import own_logger
from mooring.link.channel import open_outlet, open_port
from mooring.link.local import open_local
from mooring.monitor.endpoint import Endpoint
from mooring.monitor.reporter import Counts, Reporter, Timings, counts_of
from mooring.net import forks, messages
from mooring.net.child_socket import ChildSocket, ChildSocketError, MessageRefused
from mooring.net.log import reopen_logs
from mooring.net.loop import new_event_loop, outcome
from mooring.net.signals import SignalSocket, handle_in_loop
from mooring.parts import GOING_AWAY, Server, new_gateway, new_worker, raise_descriptor_limit
from mooring.worker.tasks import DispatcherLink
from mooring.worker.worker import Worker

log = own_logger("mooring.runtime")

ORPHAN_GRACE = 2.0  # seconds a process goes on without its supervisor
ORPHANED = "the supervisor is gone"
STOPS = ("shutdown", ORPHANED)  # how the reason begins when clients were sent away
SUPERVISOR_LIMIT = 15.0  # seconds for which it may show no sign of life before /health says so
RETRY = 0.05  # seconds until a control message that had no room is sent again


class OpenLink(Protocol):
    """This process's end of a link."""

    def hang_up(self) -> None: ...
    def abandon(self) -> None: ...


class Member:
    """A gateway, a worker, or a server (both in one): parts, and the child socket that says what they do."""

    def __init__(self, told: Boot, server: Server | None) -> None:
        self._told = told
        self._server = server
        self._settings = Settings.from_options(told.settings)
        keep_freed_memory()
        raise_descriptor_limit()
        self._reactor = Reactor()
        self._control = ChildSocket(told.control, messages.to_child)
        self._control.reserve()  # a link to a new worker must arrive, however many clients there are
        self._listeners = [socket.socket(fileno=fd) for fd in told.listeners]
        self._gateway: Gateway | None = None
        self._worker: Worker | None = None
        self._desk: Desk | None = None
        memory_limit = self._settings.tasks.dispatcher_memory_limit
        self._dispatcher = (
            Dispatcher(self._reactor, self._on_retired, self._on_broken, memory_limit)
            if told.role == "dispatcher"
            else None
        )
        self._dispatcher_link: DispatcherLink | None = None
        self._open_links: WeakValueDictionary[int, OpenLink] = WeakValueDictionary()  # by the number of the link
        self._stopping: asyncio.Future[tuple[bool, str]] | None = None  # whether it is the last one, and the reason
        self._background: set[asyncio.Task[None]] = set()
        self._pulse = Pulse(told.pulse)
        os.close(told.pulse)
        self._beat_period = self._settings.process.beat_period
        self._orphaned = False
        self._heard = asyncio.Event()  # a message of the supervisor has come
        self._endpoint: Endpoint | None = None
        if told.metrics >= 0:
            metrics = socket.socket(fileno=told.metrics)
            self._listeners.append(metrics)
            self._endpoint = Endpoint(self._reactor, metrics, told.scoreboard, SUPERVISOR_LIMIT)
        self._reporter: Reporter | None = None
        if told.place_of_report > 0:
            later = self._reactor.call_later
            self._reporter = Reporter(later, told.scoreboard, told.place_of_report, self._report)
        self._greeted = False  # this worker has said to everybody that it takes events
        self._vitals: asyncio.Future[list[dict[str, Any]]] | None = None  # asked for, for the desk
        if told.gateway is not None:
            file = told.tables[told.gateway]
            self._gateway = new_gateway(
                self._reactor,
                self._settings,
                told.gateway,
                file,
                told.clock,
                self._on_retired,
                self._on_broken,
                gateways=len(told.tables),
                links=told.link_num,
            )
            self._gateway.connections.table.seal()
            if told.order >= 0:
                self._gateway.relay.publish_order = Order(self._reactor, told.order)
                os.close(told.order)
            if told.rooms >= 0:
                self._gateway.share_room(Rooms(told.rooms))
                os.close(told.rooms)
        if told.worker is not None:
            assert server is not None
            server._shared.open(told.shared)
            self._worker = new_worker(server, self._settings, told.worker, told.generation, self)
            self._worker.observe(self._pulse)
            server._enter(self._worker, self._settings)
            for fd in told.desk:
                taken = socket.socket(fileno=fd)
                self._desk = Desk(
                    taken, server, Finder(self._worker.outbox), self._worker, can_reload=True, processes=self._processes
                )

    @property
    def graceful_timeout(self) -> float:
        """The setting; seconds."""
        return self._settings.process.graceful_timeout

    def run(self) -> int:
        """Serves until it is told to stop; the exit code."""
        self._beat()
        if self._reporter is not None:
            self._reporter.start()
        for end in self._told.links:
            self._connect(end)
        if self._worker is not None:
            with asyncio.Runner(loop_factory=partial(new_event_loop, self._reactor)) as runner:
                runner.run(self._work(self._worker))
            return 0
        signals = SignalSocket((signal.SIGTERM,))
        self._reactor.add_reader(signals.fileno(), partial(self._on_signal, signals))
        self._reactor.add_reader(self._control.fileno(), self._hear)
        self._tell(messages.Ready())
        self._reactor.run()
        self._say_farewell()
        self._reactor.flush()
        return 0

    def abandon(self) -> None:
        """In a forked child: gives back what it has of others, without a word to them. The reactor comes first: what it
        shares with the parent is the parent's."""
        self._reactor.abandon(forks.came_back)
        if self._reporter is not None:
            self._reporter.stop()
        for opened in list(self._open_links.values()):
            opened.abandon()
        self._control.close()
        for listener in self._listeners:
            listener.close()
        if self._desk is not None:
            self._desk.abandon()
        if self._gateway is not None:
            self._gateway.connections.abandon()
        if self._worker is not None and self._server is not None:
            self._worker.abandon()
            self._server._leave()

    def _report(self) -> tuple[Counts, Timings]:
        """For the scoreboard."""
        parts = [part.stats() for part in (self._gateway, self._worker, self._dispatcher) if part is not None]
        return counts_of(*parts), {}

    def _say_farewell(self) -> None:
        """Those who see a channel to this process end shall know that it was in order."""
        if self._reporter is not None:
            self._reporter.report()
        if self._gateway is not None:
            self._gateway.leave()
        elif self._dispatcher is not None:
            self._dispatcher.leave()

    def _beat(self) -> None:
        """The loop turns, and the supervisor's watchdog can see it."""
        self._pulse.beat()
        if self._worker is not None:
            for outlet in self._worker.outbox.all():
                outlet.beat()
        self._reactor.call_later(self._beat_period, self._beat)

    def beat_once(self) -> None:
        """The loop stands still, and somebody knows why; in any thread."""
        self._pulse.beat()

    def _on_signal(self, signals: SignalSocket) -> None:
        if signal.SIGTERM in signals.take():
            self._leave()

    async def _work(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        self._stopping = loop.create_future()
        worker.loop = loop
        worker.timers.open()
        if self._gateway is not None:
            local = open_local(
                self._gateway.relay,
                worker.inlet,
                gateway=self._gateway.number,
                worker=worker.number,
                generation=worker.generation,
            )
            worker.outbox.connect(local)
        await worker.start()
        loop.add_reader(self._control.fileno(), self._hear)
        while not worker.tree and not self._stopping.done():  # what stats() says of it is said from the first event on
            self._heard.clear()
            await self._heard.wait()
        self._greeted = True
        for outlet in worker.outbox.all():
            outlet.hello()
            outlet.flush()  # before "ready": a client that comes after it finds every worker usable
        worker.tasks.open()
        if self._dispatcher_link is not None:
            self._dispatcher_link.hello()
        handle_in_loop(loop, signal.SIGTERM, self._leave)
        self._tell(messages.Ready())
        last, reason = await outcome(self._stopping)
        # of a process that is replaced, with other gateways than its own
        await worker.finish(clients_stay=self._gateway is None and not reason.startswith(STOPS))
        await worker.leave(reason, self._settings.process.event_timeout)
        await worker.fire("worker_stop", worker.number)
        if last:
            await worker.fire("shutdown")
        if self._desk is not None:
            await self._desk.finish()
        for outlet in worker.outbox.all():
            outlet.flush()
        self._say_farewell()
        self._reactor.flush()

    # ------------------------------------------------------------------ links

    def _connect(self, end: LinkEnd) -> None:
        """Opens this process's end of a link."""
        if self._dispatcher is not None:
            channel = self._dispatcher.attach(end.channel, worker=end.worker, generation=end.peer_generation)
            self._open_links[end.number] = channel
            return
        if end.gateway is None:
            assert self._worker is not None
            worker = self._worker
            link = DispatcherLink(self._reactor, end.channel, worker.tasks, worker.bench, worker.pipe, worker)
            self._dispatcher_link = link
            self._open_links[end.number] = link
            if self._greeted:
                link.hello()
            return
        if end.gateway == self._told.gateway:
            assert self._gateway is not None
            self._open_links[end.number] = open_port(
                self._gateway.relay,
                self._reactor,
                worker=end.worker,
                generation=end.peer_generation,
                serves=self._worker is None and end.worker < self._settings.process.worker_num,
                channel=end.channel,
                reply=end.reply,
                page=end.page,
            )
            return
        assert self._worker is not None
        outlet = open_outlet(
            self._worker.inlet,
            self._reactor,
            gateway=end.gateway,
            table=Table(self._told.tables[end.gateway]),
            channel=end.channel,
            reply=end.reply,
            page=end.page,
        )
        self._open_links[end.number] = outlet
        outlet.eager = self._worker.bench is not None
        outlet.beat()
        self._worker.outbox.connect(outlet)
        if self._greeted:  # it was attached later than at the start
            outlet.hello()

    def _on_retired(self, port: Port | Peer) -> None:
        self._tell(messages.Retired(port.worker, port.generation, port.pid))

    def _on_broken(self, port: Port | Peer, why: str) -> None:
        self._tell(messages.Broken(port.worker, port.generation, port.pid, why))

    # ------------------------------------------------------------------ the child socket

    def ask_reload(self) -> None:
        self._tell(messages.Reload())

    def ask_shutdown(self) -> None:
        self._tell(messages.Shutdown())

    def ask_replacement(self, why: str) -> None:
        self._tell(messages.Replace(why))

    def _tell(self, message: messages.ToSupervisor) -> None:
        if self._control.fileno() < 0:
            return
        try:
            self._control.send(message)
            self._push_out()
        except OSError:
            return  # the supervisor is gone, and the end of the socket says so next
        except ChildSocketError as error:
            log.error("the supervisor was not told %r: %s", messages.op_of(message), error)

    def _push_out(self) -> None:
        if self._control.pending and not self._control.flush():
            self._reactor.call_later(RETRY, self._push_out)

    def _hear(self) -> None:
        while self._control.fileno() >= 0:
            try:
                received = self._control.receive()
            except BlockingIOError:
                return
            except MessageRefused as error:
                log.error("%s", error)
                continue
            except (ChildSocketError, OSError) as error:
                log.error("the socket to the supervisor: %s", error)
                received = None
            if received is None:
                self._orphan()
                self._heard.set()
                return
            message, fds = received
            if not isinstance(message, messages.Attach):
                for fd in fds:  # no other one carries any
                    os.close(fd)
            self._heed(message, fds)
            self._heard.set()

    def _heed(self, message: messages.ToChild, fds: Sequence[int]) -> None:
        match message:
            case messages.Attach():
                self._on_attach(message, fds)
            case messages.Gone():
                self._on_gone(link=message.link)
            case messages.Serve():
                self._on_serve(started=message.started)
            case messages.Retire():
                self._on_retire(message.worker, message.generation)
            case messages.Drain():
                self._on_drain(timeout=message.timeout, code=message.code)
            case messages.Stop():
                self._on_stop(reason=message.reason, last=message.last)
            case messages.Reopen():
                reopen_logs()
            case messages.Event():
                self._on_event(message.name, message.arguments, message.answer)
            case messages.State():
                self._on_tree(state=message.state)
            case messages.Degraded():
                self._on_degraded(degraded=message.degraded)
            case messages.Processes():
                self._on_vitals(processes=message.processes)
            case messages.Place():
                log.error("this process is no spare: the control message 'place' is ignored")

    def _on_attach(self, message: messages.Attach, fds: Sequence[int]) -> None:
        try:
            end = self._told.attach(message, fds)
        except ValueError as error:
            log.error("the control message 'attach' is refused: %s", error)
            for fd in fds:
                os.close(fd)
        else:
            self._connect(end)

    def _on_gone(self, *, link: int) -> None:
        """The process at the other end of that link has ended. Mostly its channel says so, too, and has said so before;
        not while others that it has started hold it open."""
        opened = self._open_links.get(link)
        if opened is not None:
            opened.hang_up()

    def _on_serve(self, *, started: bool = False) -> None:
        if self._worker is not None:
            self._worker.serve()
            self._worker.watch(self._reactor)
        if self._desk is not None:
            self._begin(self._desk.open())
        if started and self._worker is not None:
            self._on_event("start")
        if self._gateway is not None:
            self._gateway.listen(self._listeners)

    def _on_retire(self, worker: int, generation: int) -> None:
        if worker == self._told.worker:
            self._retire()
        elif self._gateway is not None:
            self._gateway.read_certificates()
            self._gateway.relay.retire(worker, generation)
        elif self._dispatcher is not None:
            self._dispatcher.retire(worker, generation)

    def _retire(self) -> None:
        """The successor of this worker serves, or nobody will."""
        if self._worker is not None:
            self._worker.retire()
        if self._desk is not None:
            self._desk.close()

    def _on_event(self, name: str, arguments: Sequence[object] = (), answer: int | None = None) -> None:
        """An event of the process tree, for the application; with `answer`, the supervisor waits for its end."""
        if self._worker is not None:
            self._begin(self._handle_event(self._worker, name, arguments, answer))

    async def _handle_event(self, worker: Worker, name: str, arguments: Sequence[object], answer: int | None) -> None:
        await worker.fire(name, *arguments)
        if answer is not None:
            self._tell(messages.Handled(answer))

    def _begin(self, running: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(running)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _on_tree(self, *, state: dict[str, Any]) -> None:
        if self._worker is not None:
            self._worker.tree = state

    def _on_degraded(self, *, degraded: bool) -> None:
        """All workers end again and again, or do not any more."""
        if self._gateway is not None:
            self._gateway.pool.tell(degraded=degraded)

    async def _processes(self) -> list[dict[str, Any]]:
        """How every process of the server is doing."""
        if self._vitals is None:
            self._vitals = asyncio.get_running_loop().create_future()
            self._tell(messages.Vitals())
        return await asyncio.shield(self._vitals)

    def _on_vitals(self, *, processes: list[dict[str, Any]]) -> None:
        told, self._vitals = self._vitals, None
        if told is not None and not told.done():
            told.set_result(processes)

    def _on_drain(self, *, timeout: float, code: int) -> None:
        self._retire()
        if self._gateway is not None:
            self._drain(self._gateway, timeout, code)
        elif self._dispatcher is not None:
            self._dispatcher.drain(timeout, self._drained)

    def _drain(self, gateway: Gateway, timeout: float, code: int) -> None:
        gateway.drain(timeout, code, self._drained)
        for listener in self._listeners:
            listener.close()  # a client that connects now had better be refused than wait for nobody

    def _drained(self, counts: dict[str, int]) -> None:
        self._tell(messages.Drained(dict(counts)))
        if self._orphaned:
            self.end(ORPHANED)

    def _on_stop(self, *, reason: str, last: bool = False) -> None:
        if self._gateway is not None and self._gateway.draining:
            self._gateway.hurry()
            self._tell(messages.Drained(dict(self._gateway.counts())))  # as they are now: for the last line
        elif self._dispatcher is not None and self._dispatcher.draining:
            self._tell(messages.Drained(dict(self._dispatcher.counts())))
        self.end(reason, last=last)

    def end(self, reason: str, *, last: bool = False) -> None:
        """Ends this process in order."""
        if self._worker is None:
            self._reactor.stop()
        elif self._stopping is not None and not self._stopping.done():
            self._stopping.set_result((last, reason))

    def _leave(self) -> None:
        """SIGTERM, or nobody there to serve for."""
        if not self._orphaned:
            self._tell(messages.Leaving())  # the supervisor says how, and has another one start
        elif self._gateway is not None:
            self._drain(self._gateway, ORPHAN_GRACE, GOING_AWAY)
        else:
            self.end(ORPHANED)

    def _orphan(self) -> None:
        """The supervisor is gone: nobody would restart anything here, so clients had better go elsewhere."""
        log.error("the supervisor is gone: leaving")
        self._orphaned = True
        if self._worker is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
        else:
            self._reactor.remove_reader(self._control.fileno())
        self._control.close()
        self._leave()
        # a handler may never end
        self._reactor.call_later(ORPHAN_GRACE + 1, partial(os._exit, 1))
