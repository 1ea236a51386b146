"""Base mode in one process: one gateway and one worker, joined by plain calls, without a supervisor.

The host and its parts are those of any other process (mooring.process_host). What differs is who controls it: signals,
and the application. A stop takes bounded time, whatever the handlers do: from the signal on a clock runs that needs no
loop.
"""

import os
import signal
import socket
import time
from typing import Any

import setproctitle

from mooring.app.shared import remove
from mooring.boot import Boot, LinkEnd, clock_offset
from mooring.config import Settings
from mooring.errors import ConfigError
from mooring.journal import own_logger
from mooring.monitor.own import OwnMonitor
from mooring.monitor.scoreboard import TREE, Seen
from mooring.net import forks, messages
from mooring.net.bind import bind_all, bind_control, bind_metrics
from mooring.net.ending import FAILED_LIMIT, end_within
from mooring.net.listener import ListenError, address_text
from mooring.net.log import log_stacks, reopen_logs
from mooring.net.signals import handle, handle_in_loop
from mooring.parts import Peer, Server
from mooring.process_host import ProcessHost
from mooring.supervisor.bulletin import alone
from mooring.supervisor.pid_file import PidFile, take_pid_file
from mooring.supervisor.service import Keepalive, Service
from mooring.supervisor.shutdown import drained_line
from mooring.supervisor.vitals import row
from mooring.types import CloseCode

log = own_logger("mooring.runtime")

STUCK_GRACE = 0.9  # seconds after the graceful timeout until it gives up waiting
HURRY = 0.4  # the same for whom a second Ctrl-C does not want to wait
SERVING = "serving, in one process"  # for the service manager
STARTED = 0  # the number of the event `start`


class SingleProcess:
    """The controller of everything in the process that was started."""

    can_reload = False

    def __init__(self, server: Server, settings: Settings, pid_file: PidFile | None, service: Service) -> None:
        self._timeout = settings.process.graceful_timeout
        self._why = ""  # it stops
        self._pid_file = pid_file
        self._service = service
        self._started = time.monotonic()
        self._counts: dict[str, int] = {}  # of the drain
        self._stopping = False
        self._end = 0.0  # when a stop has to be over, by the monotonic clock
        self._control: socket.socket | None = None
        self._metrics: socket.socket | None = None
        self._monitor: OwnMonitor | None = None
        self._opened = False  # for clients
        self.listeners = bind_all([one.listen for one in settings.per_listener])
        try:
            self._control = bind_control(settings.process.control_socket)
            self._metrics = bind_metrics(settings.operation.metrics_listen)
            self._boot = Boot(
                "server", None, {}, gateway=0, worker=0, clock=clock_offset(), engine=bool(server._topics)
            )
            self._boot.shared = server._shared.create()
            self._boot.tables = {0: os.memfd_create("mooring-table-0", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)}
            self._boot.listeners = [os.dup(listener.fileno()) for listener in self.listeners]
            self._boot.desk = [] if self._control is None else [os.dup(self._control.fileno())]
            self.host = ProcessHost(self._boot, settings, server, self)
            if self._boot.engine:
                self._add_engine()
            if self._metrics is not None:
                later, limit = self.host.reactor.call_later, settings.process.worker_hang_timeout
                self.host.measure()
                self._monitor = OwnMonitor(later, self._metrics, limit, self.host.report, self._tree)
        except BaseException:
            self._close_sockets()
            raise

    def _add_engine(self) -> None:
        """Histories are kept in this process, too: at the other end of the same kind of channel as anywhere else."""
        from mooring.parts.engine import EnginePart

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (ours, theirs):
            end.setblocking(False)
        engine = EnginePart(self.host)
        engine.link(LinkEnd(0, None, 1, theirs.detach(), service="engine"))
        self._boot.links.append(LinkEnd(0, None, 1, ours.detach(), service="engine"))
        self.host.parts.append(engine)

    def run(self) -> int:
        """Serves until it is told to stop; the exit code."""
        forks.in_child(self.host.abandon)
        try:
            self._run()
        except BaseException as error:
            forks.end_child(error)
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the rest has another clock, see `end_within`
            self._close_sockets()
        return 0

    def _run(self) -> None:
        if self._monitor is not None:
            self._monitor.start()
        try:
            self.host.run()
        finally:
            if self._monitor is not None:
                self._monitor.stop()

    def _tree(self) -> tuple[str, dict[str, Any]]:
        return "stopping" if self._why else "running" if self._opened else "starting", alone()

    def _tell_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.tell()

    @property
    def left(self) -> float:
        """Seconds that the interpreter may take to end."""
        return max(0.0, self._end - time.monotonic()) if self._stopping else FAILED_LIMIT

    # ------------------------------------------------------------------ what the host tells

    def starting(self) -> None:
        self.host.hear(messages.State(alone()))
        assert self.host.worker is not None
        self.host.worker.pipe.open_alone()
        self._take_signals()

    def started(self) -> None:
        self._take_signals()  # the application may have taken some: a server that can't be stopped is worse

    def ready(self) -> None:
        if self._why:
            return  # it was told to stop meanwhile
        self.host.serve()
        self._opened = True
        self._tell_monitor()
        where = ", ".join(address_text(listener.getsockname()) for listener in self.listeners)
        log.info("ready, listening on %s", where)
        self._service.ready(SERVING)
        Keepalive(self._service, (), self.host.reactor.call_later).start()
        self.host.hear(messages.Event("start", [], STARTED))

    def handled(self, answer: int) -> None:
        """The `start` handler has ended."""

    def drained(self, counts: dict[str, int]) -> None:
        self._counts = counts
        self.host.end(f"shutdown: {self._why}", last=True)

    def departed(self) -> None:
        log.info("%s", drained_line([self._counts]))

    async def processes(self) -> list[dict[str, Any]]:
        uptime = time.monotonic() - self._started
        self.host.pulse.beat()  # who runs this has a loop that turns
        return [row(Seen(TREE, "server", 0, os.getpid(), 1, "serving", 0, False, uptime), self.host.pulse)]

    def abandon(self) -> None:
        self._close_sockets()
        if self._monitor is not None:
            self._monitor.abandon(forks.came_back)
        if self._pid_file is not None:
            self._pid_file.close()
        if self._boot.shared.lock >= 0:
            os.close(self._boot.shared.lock)
        self._service.close()

    def _close_sockets(self) -> None:
        for opened in (*self.listeners, self._control, self._metrics):
            if opened is not None:
                opened.close()

    # ------------------------------------------------------------------ what the application asks for

    def ask_shutdown(self) -> None:
        self.host.reactor.post(self._stop_asked)  # it may be called in any thread

    def _stop_asked(self) -> None:
        if not self._why:
            self._limit_stop(signal.SIGTERM)
            self._stop("asked for by the application", self._timeout)

    def ask_reload(self) -> None:
        self._service.reloading(SERVING)
        self._service.ready(SERVING)
        log.error(
            "reload: a single process cannot replace itself without closing its connections; "
            "use mode='process', or more than one worker"
        )

    def ask_replacement(self, why: str) -> None:
        """Whoever wants this has a supervisor, see `launch`; so has all that follows."""

    def end(self, reason: str) -> None: ...
    def retired(self, worker: Peer) -> None: ...
    def broken(self, worker: Peer, why: str) -> None: ...

    # ------------------------------------------------------------------ the stop

    def _take_signals(self) -> None:
        loop = self.host.loop
        assert loop is not None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.add_signal_handler(number, self._on_signal, number)
            # The loop hears of it when it turns again; this runs also while a handler is stuck in Python.
            handle(number, self._limit_stop)
        for number in (signal.SIGUSR1, signal.SIGHUP):
            handle_in_loop(loop, number, self.ask_reload)
        handle_in_loop(loop, signal.SIGRTMIN, reopen_logs)
        log_stacks(self.host.settings)

    def _on_signal(self, number: int) -> None:
        if not self._why:
            self._stop(signal.Signals(number).name, 0.0 if number == signal.SIGQUIT else self._timeout)
        elif number != signal.SIGTERM:
            log.info("stopping at once: %s", signal.Signals(number).name)
            self.host.hurry()

    def _stop(self, why: str, timeout: float) -> None:
        self._why = why
        log.info("stopping: %s", why)
        self._service.stopping("stopping")
        self._tell_monitor()
        self.host.drain(timeout, CloseCode.GOING_AWAY)
        for listener in self.listeners:
            listener.close()

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
            remove(self._boot.shared)
            for opened in (self._control, self._metrics, self._pid_file):
                if opened is not None:
                    opened.close()
            log.warning("a handler did not end in time")
            log.info("%s", drained_line([self.host.counts()]))
        finally:
            os._exit(0)


def run_single(server: Server) -> int:
    """Serves in this process; the exit code."""
    setproctitle.setproctitle("mooring: server 0")
    service = Service.from_environment()
    pid_file = single = None
    code = 1
    try:
        pid_file = take_pid_file(server.settings.operation.pid_file)
        single = SingleProcess(server, server.settings, pid_file, service)
        code = single.run()
    except (ListenError, ConfigError) as error:
        log.error("%s", error)
        code = error.exit_code if isinstance(error, ListenError) else 1
    finally:
        end_within(FAILED_LIMIT if single is None else single.left, code)
        if pid_file is not None:
            pid_file.close()
        service.close()
        remove(server._shared.declared)
    return code
