"""Base mode in one process: one gateway and one worker, joined by plain calls, without a supervisor."""

import asyncio
import os
import signal
import socket
import time
from functools import partial
from typing import Any

import setproctitle

from mooring._core.process import keep_freed_memory
from mooring._core.pulse import Pulse
from mooring._core.reactor import Reactor
from mooring.admin.desk import Desk
from mooring.admin.finder import Finder
from mooring.app.shared import remove
from mooring.config import Settings
from mooring.errors import ConfigError
from mooring.journal import own_logger
from mooring.link.local import open_local
from mooring.monitor.own import OwnMonitor
from mooring.monitor.reporter import Counts, Timings, counts_of
from mooring.net import forks
from mooring.net.bind import bind_all, bind_control, bind_metrics
from mooring.net.ending import FAILED_LIMIT, end_within
from mooring.net.listener import ListenError, address_text
from mooring.net.log import log_stacks, reopen_logs
from mooring.net.loop import new_event_loop, outcome
from mooring.net.signals import handle, handle_in_loop
from mooring.parts import GOING_AWAY, Server, clock_offset, new_gateway, new_worker
from mooring.supervisor.bulletin import alone
from mooring.supervisor.pid_file import PidFile, take_pid_file
from mooring.supervisor.service import Keepalive, Service
from mooring.supervisor.shutdown import drained_line
from mooring.supervisor.vitals import one

log = own_logger("mooring.runtime")

STUCK_GRACE = 0.9  # seconds after the graceful timeout until it gives up waiting
HURRY = 0.4  # the same for whom a second Ctrl-C does not want to wait
SERVING = "serving, in one process"  # for the service manager


class Alone:
    """Everything in the process that was started: one gateway, one worker, no supervisor."""

    def __init__(self, server: Server, settings: Settings, pid_file: PidFile | None, service: Service) -> None:
        self._settings = settings
        self._timeout = settings.process.graceful_timeout
        self._event_timeout = settings.process.event_timeout
        self._why = ""  # it stops
        self._pid_file = pid_file
        self._service = service
        self.shared = server._shared.create()
        server._shared.open(self.shared)
        keep_freed_memory()
        self._reactor = Reactor()
        self._table = os.memfd_create("mooring-table-0", os.MFD_CLOEXEC)
        self.gateway = new_gateway(self._reactor, settings, 0, self._table, clock_offset(), lambda _port: None)
        self.worker = new_worker(server, settings, 0, 1, self)
        self.worker.tree = alone()
        self._listeners = bind_all([one.listen for one in settings.per_listener])
        try:
            self._control = bind_control(settings.process.control_socket)
            metrics = bind_metrics(settings.operation.metrics_listen)
        except ListenError:
            self._close_listeners()
            raise
        self._opened = False  # for clients
        self._monitor = None
        if metrics is not None:
            later, limit = self._reactor.call_later, settings.process.worker_hang_timeout
            self._monitor = OwnMonitor(later, metrics, limit, self._report, self._tree)
        self._desk = None
        if self._control is not None:
            self._desk = Desk(
                self._control,
                server,
                Finder(self.worker.outbox),
                self.worker,
                can_reload=False,
                processes=self._processes,
            )
        self._started = time.monotonic()
        self._pulse = Pulse()
        self.worker.observe(self._pulse)
        self._drained: asyncio.Future[dict[str, int]] | None = None
        self._stopping = False
        self._end = 0.0  # when a stop has to be over, by the monotonic clock
        self._server = server
        server._enter(self.worker, settings)

    def run(self) -> int:
        """Serves until it is told to stop; the exit code."""
        forks.in_child(self._abandon)
        try:
            with asyncio.Runner(loop_factory=partial(new_event_loop, self._reactor)) as runner:
                runner.run(self.main())
        except BaseException as error:
            forks.leave(error)
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the rest has another clock, see `end_within`
            self._close_listeners()
        return 0

    @property
    def left(self) -> float:
        """Seconds that the interpreter may take to end."""
        return max(0.0, self._end - time.monotonic()) if self._stopping else FAILED_LIMIT

    def _abandon(self) -> None:
        """In a forked child: gives back what it has of others, and the locks. The reactor comes first: what it shares
        with the parent is the parent's."""
        self._reactor.abandon(forks.came_back)
        self._server._leave()
        self.worker.abandon()
        self.gateway.connections.abandon()
        self._close_listeners()
        if self._desk is not None:
            self._desk.abandon()
        if self._monitor is not None:
            self._monitor.abandon(forks.came_back)
        if self._pid_file is not None:
            self._pid_file.close()
        if self.shared.lock >= 0:
            os.close(self.shared.lock)
        self._service.close()

    async def main(self) -> None:
        """Serves, in a loop whose selector is the reactor."""
        if self._monitor is not None:
            self._monitor.start()
        try:
            await self._serve()
        finally:
            if self._desk is not None:
                await self._desk.finish()
            if self._monitor is not None:
                self._monitor.stop()

    def _report(self) -> tuple[Counts, Timings]:
        """For the scoreboard."""
        return counts_of(self.gateway.stats(), self.worker.stats()), {}

    def _tree(self) -> tuple[str, dict[str, Any]]:
        phase = "stopping" if self._why else "running" if self._opened else "starting"
        return phase, alone()

    def _tell_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.tell()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._drained = loop.create_future()
        self.worker.timers.open()
        self.worker.serve()
        self.worker.pipe.open_alone()
        local = open_local(self.gateway.relay, self.worker.inlet, gateway=0, worker=0, generation=1)
        self.worker.outbox.connect(local)
        self.worker.loop = loop
        self._take_signals(loop)
        await self.worker.start()
        self._take_signals(loop)  # the application may have taken some: a server that can't be stopped is worse
        self.worker.watch(self._reactor)
        local.hello()
        if not self._why:  # else it was told to stop meanwhile
            await self._open(self._listeners)
        counts = await outcome(self._drained)
        await self.worker.finish()
        await self.worker.leave(f"shutdown: {self._why}", self._event_timeout)
        await self.worker.fire("worker_stop", 0)
        await self.worker.fire("shutdown")
        self._reactor.flush()
        log.info("%s", drained_line([counts]))

    def _take_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stop, number)
            # The loop hears of it when it turns again; this runs also while a handler is stuck in Python.
            handle(number, self._limit_stop)
        for number in (signal.SIGUSR1, signal.SIGHUP):
            handle_in_loop(loop, number, self.ask_reload)
        handle_in_loop(loop, signal.SIGRTMIN, reopen_logs)
        log_stacks(self._settings)

    async def _open(self, listeners: list[socket.socket]) -> None:
        self.gateway.listen(listeners)
        self._opened = True
        self._tell_monitor()
        if self._desk is not None:
            await self._desk.open()
        where = ", ".join(address_text(listener.getsockname()) for listener in listeners)
        log.info("ready, listening on %s", where)
        self._service.ready(SERVING)
        Keepalive(self._service, (), self._reactor.call_later).start()
        await self.worker.fire("start")

    def _stop(self, number: int) -> None:
        if self._why:
            if number != signal.SIGTERM:
                log.info("stopping at once: %s", signal.Signals(number).name)
                self.gateway.hurry()
            return
        self._why = signal.Signals(number).name
        log.info("stopping: %s", self._why)
        self._service.stopping("stopping")
        self._drain(0.0 if number == signal.SIGQUIT else self._timeout)

    def _limit_stop(self, number: int, _frame: object = None) -> None:
        """From here on the stop takes bounded time, whatever the handlers do."""
        again = self._stopping and number != signal.SIGTERM
        if again or not self._stopping:
            handle(signal.SIGALRM, self._give_up)
            quick = again or number == signal.SIGQUIT
            limit = HURRY if quick else self._timeout + STUCK_GRACE
            self._end = time.monotonic() + limit
            signal.setitimer(signal.ITIMER_REAL, limit)
        self._stopping = True

    def _give_up(self, *_: object) -> None:
        try:
            remove(self.shared)
            if self._control is not None:
                self._control.close()
            if self._pid_file is not None:
                self._pid_file.close()
            log.warning("a handler did not end in time")
            log.info("%s", drained_line([self.gateway.counts()]))
        finally:
            os._exit(0)

    def _drain(self, timeout: float) -> None:
        self._tell_monitor()
        self.gateway.drain(timeout, GOING_AWAY, self._on_drained)
        self._close_listeners()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _on_drained(self, counts: dict[str, int]) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(counts)

    def ask_shutdown(self) -> None:
        self._reactor.post(self._stop_asked)  # it may be called in any thread

    def _stop_asked(self) -> None:
        self._why = "asked for by the application"
        log.info("stopping: %s", self._why)
        self._service.stopping("stopping")
        self._limit_stop(signal.SIGTERM)
        self._drain(self._timeout)

    async def _processes(self) -> list[dict[str, Any]]:
        self._pulse.beat()  # who runs this has a loop that turns
        uptime = time.monotonic() - self._started
        return [one("server", 0, os.getpid(), generation=1, uptime=uptime, pulse=self._pulse)]

    def ask_replacement(self, why: str) -> None:
        """Whoever wants this has a supervisor, see `launch`."""

    def end(self, reason: str) -> None:
        """The same."""

    def ask_reload(self) -> None:
        self._service.reloading(SERVING)
        self._service.ready(SERVING)
        log.error(
            "reload: a single process cannot replace itself without closing its connections; "
            "use mode='process', or more than one worker"
        )


def run_alone(server: Server) -> int:
    setproctitle.setproctitle("mooring: server 0")
    service = Service.from_environment()
    pid_file = alone = None
    code = 1
    try:
        pid_file = take_pid_file(server.settings.operation.pid_file)
        alone = Alone(server, server.settings, pid_file, service)
        code = alone.run()
    except (ListenError, ConfigError) as error:
        log.error("%s", error)
        code = error.exit_code if isinstance(error, ListenError) else 1
    finally:
        end_within(FAILED_LIMIT if alone is None else alone.left, code)
        if pid_file is not None:
            pid_file.close()
        service.close()
        remove(server._shared.declared)
    return code
