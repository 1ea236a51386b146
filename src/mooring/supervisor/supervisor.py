"""The supervisor: keeps the processes that exist equal to the processes that are wanted.

Theory
    Wanted is a list of slots (ProcessSpec), fixed for life. Actual is the set of children. Whatever
    happens, the answer is the difference: a slot whose child is gone gets another one.

    A child passes through one life (ChildState): it starts, says ready, is announced to its peers, serves,
    leaves. Only one that serves is known to others, so a process that can't start disturbs nobody.

    A generation is one loading of the application's code. The first start is generation 1; each reload
    that is tried adds 1, and so does each replacement of one worker that has worked long enough. A slot is
    served by the newest generation that became ready; a process that crashes is started again in the
    generation that serves, by a spare if there is one (slots.py).

What the phases mean
    STARTING  nothing has served. Any failure ends everything, exit code 1: the person at the terminal
              reads the traceback now, rather than finding a server that restarts for ever.
    RUNNING   failures are repaired, with increasing delay (restarts.py). Reloads may run (reload.py).
    STOPPING  failures are only noted; nothing is started any more (shutdown.py).
    ENDED     no child is left.

What may not happen
    * a process of ours that outlives run(), or a zombie;
    * a signal to a pid that is not, or no longer, our child (pidfds only);
    * a slot without a child and without a plan to start one, while RUNNING;
    * more than two generations, or two reloads at once;
    * a wait without a limit;
    * application code in this process.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mooring.config.process import Process
from mooring.journal import own_logger
from mooring.net import messages
from mooring.net.child_socket import MessageRefused
from mooring.net.listener import address_text
from mooring.net.log import reopen_logs
from mooring.net.messages import ToSupervisor
from mooring.net.refusals import RefusalLog
from mooring.roles import ProcessSpec
from mooring.supervisor.bulletin import Bulletin
from mooring.supervisor.child import Child, ChildState, Exit
from mooring.supervisor.plans import Phase, Serve, Start
from mooring.supervisor.reload import Reload, ReloadOutcome
from mooring.supervisor.scores import PERIOD as SCORES_PERIOD
from mooring.supervisor.scores import Scores
from mooring.supervisor.service import Keepalive, Service
from mooring.supervisor.shutdown import Stop
from mooring.supervisor.signals import Signals
from mooring.supervisor.slots import Slots
from mooring.supervisor.tree import BootPayload, Tree
from mooring.supervisor.vitals import vitals
from mooring.supervisor.watchdog import Watchdog
from mooring.supervisor.watcher import Watcher

log = own_logger("mooring.supervisor")

REPLACE_AGAIN = 10.0  # seconds until a worker is replaced whose successor could not start
STACKS_APART = 0.05  # seconds between two processes that write theirs
QUICK_TIMEOUT = 0.4  # seconds of grace after SIGQUIT, so that it is over within 2 s


class Supervisor:
    """Runs a tree of processes until it is told to stop; see the file's theory."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        listeners: Sequence[socket.socket],
        boot: BootPayload,
        settings: Process,
        argv: Sequence[str],
        watch: Sequence[str | Path] = (),
        control: socket.socket | None = None,
        service: Service | None = None,
        own_files: Sequence[str] = (),
        scores: Scores | None = None,
    ) -> None:
        """`listeners` listen already and are closed when the stop begins, or at the end of `run()`.

        `boot(spec, generation)` returns what a child's boot payload holds beside the supervisor's own
        keys. `argv` is the command of a child; the number of the memfd with its payload is added to it.
        `watch` names files and folders whose change is a reload, but for `own_files`. `control` listens, too; worker 0
        is given it, and it stays the caller's. `service` is told how it goes, and so is `scores`.
        """
        self._settings = settings
        self._listeners = list(listeners)
        self._watch, self._own_files = watch, own_files
        fds = [listener.fileno() for listener in listeners]
        desk = control.fileno() if control is not None else -1
        self._scores = scores or Scores()
        self._tree = Tree(self, argv, fds, boot, settings.boot_timeout, desk, self._scores)
        self._refusals = RefusalLog(self._tree.deadlines.after, log)
        self._slots = Slots(self._tree, specs, settings)
        self._bulletin = Bulletin(self._tree, self._slots)
        self._watchdog = Watchdog(self._tree, settings, self._on_hang, self._ask_replacement)
        self._service = service or Service()
        self._keepalive = Keepalive(self._service, self._slots.wanted, self._tree.deadlines.after)
        self._last_failed = False  # the last reload
        self._worn: deque[tuple[Child, str]] = deque()  # workers to be replaced, and why
        self._tried = 1  # the newest generation that was tried
        self._start = Start(self._tree, self._slots, self._serve_all, self._fail_start)
        self._plan: Start | Serve | Stop = self._start
        self._tree.plan = self._start
        self._pending: str | None = None  # why one more reload shall follow
        self._started = time.monotonic()
        self._exit_code = 0

    def run(self) -> int:
        """Start, serve, stop. Returns the exit code: 0 after a stop, 1 when the start failed.

        Main thread only (signals). Raises ConfigError when `watch` can't be done.
        """
        watcher: Watcher | None = None
        try:
            with Signals() as signals:
                if self._watch:
                    watcher = Watcher(self._watch, self._own_files)
                self._tree.watch(signals.fileno(), lambda: self._on_signals(signals.take()))
                if watcher is not None:
                    self._tree.watch(watcher.fileno(), lambda: self._on_change(watcher.take()))
                self._begin()
                self._look()
                self._turn_again()
                while self.phase is not Phase.ENDED:
                    self._tree.turn()
                    self._look()
                self._tree.sweep()
        finally:
            self._tree.close()
            self._close_listeners()
            if watcher is not None:
                watcher.close()
        summary = self._plan.summary() if isinstance(self._plan, Stop) else None
        if summary:
            log.info("%s", summary)
        return self._exit_code

    @property
    def phase(self) -> Phase:
        """That of the plan that is followed."""
        return self._plan.phase

    def _follow(self, plan: Serve | Stop) -> None:
        """The one place where the plan changes; the phase only goes on."""
        order = list(Phase)
        assert order.index(plan.phase) >= order.index(self.phase), f"{self.phase} to {plan.phase}"
        self._plan = self._tree.plan = plan

    @property
    def _reload(self) -> Reload | None:
        return self._plan if isinstance(self._plan, Reload) else None

    # -- start

    def _begin(self) -> None:
        where = ", ".join(address_text(listener.getsockname()) for listener in self._listeners)
        log.info("starting %d processes, listening on %s", len(self._slots.wanted), where or "nothing")
        self._start.begin()

    def _serve_all(self) -> None:
        self._serve()
        children = self._slots.serving
        self._tree.announce(children, started=True)
        log.info("ready after %.1f s: %d processes serve", time.monotonic() - self._started, len(children))
        self._watchdog.start()
        self._slots.warm_spares()
        self._service.ready(self._status())
        self._keepalive.start()
        self._next_reload()

    def _fail_start(self, why: str) -> None:
        log.error("the start failed: %s", why)
        self._service.stopping(f"the start failed: {why}")
        self._exit_code = 1
        self._close_listeners()
        stop = Stop(self._tree, None, self._settings.graceful_timeout, event=False)
        self._follow(stop)
        stop.kill()

    def _serve(self) -> None:
        self._follow(Serve(self._tree, self._slots, self._settings.graceful_timeout))

    # -- what happens to children (Owner)

    def on_message(self, child: Child, message: ToSupervisor) -> None:
        match message:
            case messages.Reload():
                self._ask_reload(f"asked for by {child}")
            case messages.Shutdown():
                self._stop(f"asked for by {child}")
            case messages.Replace():
                self._ask_replacement(child, message.why)
            case messages.Vitals():
                rows = vitals(self._tree.children, self._slots.of, self._started)
                self._tree.tell(child, messages.Processes(rows))
            case messages.Handled():
                self._bulletin.on_handled(child, message.answer)
                self._plan.on_handled(child, message.answer)
            case messages.Broken():
                self._on_broken(child, message)
            case messages.Terminated():
                if child.state is ChildState.STOPPING:  # it was us
                    self._tree.tell(child, messages.Stop("SIGTERM", last=False))
                else:
                    self._plan.on_terminated(child)

    def on_refused(self, child: Child, problem: MessageRefused) -> None:
        self._bulletin.counts["control_errors"] += 1
        self._refusals.say(logging.WARNING, "%s: %s", str(child), str(problem))

    def _on_broken(self, child: Child, message: messages.Broken) -> None:
        """A gateway or the dispatcher can't follow a worker any more, whose end settles what it was at."""
        for worker in list(self._tree.children):
            if worker.is_named(message):
                self._tree.distrust(worker, f"{child} can't follow it: {message.why[:200]}")

    def on_distrust(self) -> None:
        self._bulletin.counts["control_errors"] += 1

    def on_end(self, child: Child, how: Exit, asked: bool) -> None:
        self._bulletin.on_end(child)
        if not asked:
            if child.spec.worker is not None and self.phase is Phase.RUNNING:
                reason = f"{self._ended(child, how)}{child.last_event()}"
                self._bulletin.event("worker_error", child.spec.worker, child.pid, how.code, how.signal, reason)
            self._plan.on_failure(child, self._ended(child, how) + child.last_event())
        elif how != Exit(0, None) and not child.killed:
            log.warning("%s ended with %s when told to stop", child, how)
        self._plan.on_end(child)

    @staticmethod
    def _ended(child: Child, how: Exit) -> str:
        when = "" if child.was_ready else " before it was ready"
        cause = f": {child.cause}" if child.cause else ""
        return f"ended with {how}{when}" if how.signal is None else f"was ended by {how}{when}{cause}"

    def _on_hang(self, child: Child) -> None:
        self._bulletin.counts["hangs"] += 1

    # -- reload

    def _ask_replacement(self, child: Child, why: str) -> None:
        """One worker shall be replaced as by a reload. They go one at a time, behind a reload that is due."""
        if self.phase is Phase.RUNNING and child.state is ChildState.SERVING and not child.worn:
            child.worn = True
            self._worn.append((child, why))
            self._next_reload()

    def _replace(self) -> None:
        worn = [self._worn.popleft()]
        row = worn[0][0].spec.row
        if row.together:
            worn += [due for due in self._worn if due[0].spec.row is row]
            self._worn = deque(due for due in self._worn if due not in worn)
        worn = [(child, why) for child, why in worn if child.state is ChildState.SERVING and self._slots.holds(child)]
        if worn:
            self._tried += 1
            for child, why in worn:
                log.info("replacing %s: %s", child, why)
            self._new_reload(worn[0][1], [child for child, _ in worn]).begin()

    def _replace_again(self, worn: Sequence[Child]) -> None:
        for child in worn:
            child.worn = False
            self._ask_replacement(child, "its successor could not start before")

    def _ask_reload(self, why: str) -> None:
        if self.phase is Phase.RUNNING and self._reload is None:
            self._pending = why
            self._next_reload()
        elif self.phase in (Phase.STARTING, Phase.RUNNING):
            if self._pending is None:
                after = "the start" if self.phase is Phase.STARTING else "the one that runs"
                log.info("reload: %s; it follows %s", why, after)
            self._pending = why
        else:
            log.info("reload refused: %s, but the server is stopping", why)

    def _next_reload(self) -> None:
        while self._reload is None and self.phase is Phase.RUNNING:
            if self._pending is None:
                if not self._worn:
                    return
                self._replace()
                continue
            why, self._pending = self._pending, None
            self._tried += 1
            log.info("reload: %s; starting generation %d", why, self._tried)
            self._service.reloading(f"reloading, generation {self._tried}")
            reload = self._new_reload(why)
            told = self._bulletin.listener()
            if told is not None:
                reload.prepare(told, self._settings.event_timeout)
            else:
                reload.begin()
            self._look()

    def _new_reload(self, why: str, worn: Sequence[Child] = ()) -> Reload:
        reload = Reload(self._tree, self._slots, self._tried, self._settings.graceful_timeout, why, worn)
        self._follow(reload)
        return reload

    def _turn_again(self) -> None:
        """The scoreboard shall tell, also when nothing happens, that this loop turns."""
        if self._scores.wanted:
            self._tree.deadlines.after(SCORES_PERIOD, self._turn_again)

    def _look(self) -> None:
        """Before each wait: is the reload, or the stop, over?"""
        reload = self._reload
        if reload is not None and reload.outcome is not ReloadOutcome.RUNNING:
            self._serve()
            self._count(reload)
            if not reload.worn:
                self._service.ready(self._status())
            self._next_reload()
        if self.phase in (Phase.STARTING, Phase.RUNNING):
            self._bulletin.look()
            if self.phase is Phase.RUNNING and self._reload is None:
                self._service.status(self._status())
        if self._scores.wanted:
            children, slot_of = self._tree.children, self._slots.of
            self._scores.tell(self.phase.value, self._bulletin.state(), children, slot_of)

    def _status(self) -> str:
        """How it goes, for people."""
        state = self._bulletin.state()
        running = [
            f"{state[f'{role}s_running']} of {state[f'{role}s_wanted']} {role}s" for role in ("gateway", "worker")
        ]
        degraded = f"; degraded: {', '.join(state['degraded'])}" if state["degraded"] else ""
        failed = "; the last reload failed, see the log" if self._last_failed else ""
        return f"serving: {', '.join(running)}{degraded}{failed}"

    def _count(self, reload: Reload) -> None:
        """A reload, or a replacement, is over."""
        counts = self._bulletin.counts
        if reload.outcome is ReloadOutcome.DONE and reload.worn:
            counts["replacements"] += len(reload.worn)
            for child in reload.worn:
                log.info("replacing %s: done, it is gone", child)
        elif reload.outcome is ReloadOutcome.DONE:
            counts["reloads"] += 1
            self._last_failed = False
            self._slots.forgive()
            log.info("reload: done, the generation before %d is gone", reload.generation)
            self._bulletin.event("after_reload", True, reload.why)
        elif reload.outcome is ReloadOutcome.FAILED and reload.worn:
            self._tree.deadlines.after(REPLACE_AGAIN, partial(self._replace_again, reload.worn))
        elif reload.outcome is ReloadOutcome.FAILED:
            counts["reloads_failed"] += 1
            self._last_failed = True
            self._bulletin.event("after_reload", False, reload.failure)

    def _on_change(self, paths: list[str]) -> None:
        if paths:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            self._ask_reload(f"{_short(paths[0])}{more} changed")

    # -- stop

    def _on_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            name = signal.Signals(number).name
            if number == signal.SIGCHLD:
                self._tree.sweep()
            elif number in (signal.SIGHUP, signal.SIGUSR1):
                self._ask_reload(name)
            elif number == signal.SIGRTMIN:
                self._reopen_logs()
            elif number == signal.SIGUSR2:
                self._ask_stacks()
            elif not isinstance(self._plan, Stop):
                self._stop(name, quick=number == signal.SIGQUIT)
            elif number != signal.SIGTERM:
                log.info("stopping at once: %s", name)
                self._plan.hasten()

    def _ask_stacks(self) -> None:
        """Of each child, one after the other: what two write at a time would be mixed."""
        for place, child in enumerate(self._tree.children):
            self._tree.deadlines.after(place * STACKS_APART, partial(self._ask_stacks_of, child))

    def _ask_stacks_of(self, child: Child) -> None:
        if child.state in (ChildState.WARMING, ChildState.STARTING):  # it would still end of the signal
            log.info("%s starts: it can't write its stacks yet", child)
        else:
            log.info("the stacks of %s:", child)
            child.signal(signal.SIGUSR2)

    def _reopen_logs(self) -> None:
        reopen_logs()
        for child in list(self._tree.children):
            self._tree.tell(child, messages.Reopen())

    def _stop(self, why: str, *, quick: bool = False) -> None:
        if isinstance(self._plan, Stop):
            return
        log.info("stopping: %s", why)
        self._service.stopping(f"stopping: {why}")
        self._keepalive.stopping()
        had_started = self.phase is Phase.RUNNING
        self._close_listeners()
        self._slots.close()
        self._pending = None
        if self._reload is not None:
            self._reload.abandon()
        last = next((slot.current for slot in self._slots.wanted if slot.spec.worker == 0), None)
        timeout = self._settings.graceful_timeout
        timeout = min(timeout, QUICK_TIMEOUT) if quick else timeout
        stop = Stop(self._tree, last, timeout, event=had_started, reason=f"shutdown: {why}")
        self._follow(stop)
        stop.begin()

    def _close_listeners(self) -> None:
        # Ours must go too: a client that still connects would wait in the queue of a socket nobody reads.
        while self._listeners:
            self._listeners.pop().close()


def _short(path: str) -> str:
    try:
        return os.path.relpath(path)
    except OSError:  # the directory we run in is gone, which is no reason to go too
        return path
