"""Handlers that block: which one it is, for how long, and whom it keeps waiting.

All handlers of a worker run in one loop. One that computes for seconds, or waits for a database in a call that is no
coroutine, keeps all others waiting, and from outside one sees slow answers everywhere. So a thread looks at the loop
four times in the time that a handler may take. While the loop sleeps or has turned since the last look, that is all.
Else the thread looks at the stack of the loop: which function is there, above what calls handlers, and whether it is
the call that was there before. When it has been for `blocked_after` seconds, one line says which function that is and
where it stands; and another one, when the loop turns again, how long it took and what had come meanwhile. Nothing is
done per message.

Who stands in a debugger is not reported. When the thread could not look, either, C code kept the interpreter to itself,
or the whole process stood still (it was stopped, the machine had no CPU to spare): the process has used no CPU then,
and nobody is blamed.
"""

import asyncio
import os
import signal
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Final

from mooring._core.inlet import Inlet
from mooring._core.reactor import Reactor
from mooring.journal import own_logger
from mooring.net.loop import ReactorSelector

log = own_logger("mooring.worker")

LOOKS: Final = 4  # in the time that a handler may take
LONGEST: Final = 1.0  # seconds between two looks
DEBUGGERS: Final = frozenset({"bdb", "pdb", "pudb", "ipdb", "pydevd", "_pydevd_bundle", "debugpy"})
# below these are handlers, in a stack: what polls our reactor, and what asyncio calls callbacks and tasks by
CALLERS: Final[frozenset[CodeType]] = frozenset({ReactorSelector.select.__code__, asyncio.Handle._run.__code__})
OWN: Final = frozenset({"mooring", "asyncio"})
LIBRARIES: Final = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


@dataclass
class _Call:
    """What the loop was at when it was looked at."""

    turn: int
    frame: FrameType | None  # of the handler; None: it is none
    since: float
    name: str = ""  # of the handler, when it was reported
    ended: float = 0.0  # when it was first seen to have ended; 0: not yet
    handled: int = 0  # events before
    waited: set[int] = field(default_factory=set)  # connections whose events were handled behind it


class BlockWatch:
    """Watches the loop that runs in the thread which makes it; looks from `start()` until `stop()`."""

    def __init__(self, reactor: Reactor, inlet: Inlet, limit: float) -> None:
        """What takes longer than `limit` seconds is reported."""
        self._reactor = reactor
        self._inlet = inlet
        self._limit = limit
        self._period = min(limit / LOOKS, LONGEST)
        self._over = threading.Event()
        self._loop_thread = threading.get_ident()
        self._call: _Call | None = None
        self._reported: list[_Call] = []  # and the loop has not turned since
        self._looked = time.monotonic()
        self._cpu = time.process_time()

    def start(self) -> None:
        try:
            threading.Thread(target=self._run, name="mooring-blocking", daemon=True).start()
        except RuntimeError as problem:
            log.warning("handlers that block will not be named, no thread could be started: %s", problem)

    def stop(self) -> None:
        self._over.set()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the other threads'
        while not self._over.wait(self._period):
            self._look()

    def _look(self) -> None:
        now, cpu = time.monotonic(), time.process_time()
        last, self._looked = self._looked, now
        used, self._cpu = cpu - self._cpu, cpu
        late = now - last > 2 * self._period
        stood_still = late and used < (now - last) / 2
        turn = self._reactor.turns
        began = self._reactor.now / 1000  # the turn
        if self._reactor.sleeping or stood_still or (self._call is None and now - began < self._period / 2):
            self._call = None
            return
        stack = _stack_of(self._loop_thread)
        if stack is None:
            self._call = None
            return
        frame = _handler_in(stack)
        before = self._call
        if before is not None and before.turn == turn and before.frame is frame:
            if frame is not None and not before.name and now - before.since >= self._limit:
                self._report(before, stack, now)
            return
        reported = self._reported  # the loop may put another in its place
        if reported and not reported[-1].ended:
            reported[-1].ended = now
        # with the turn, if that is younger than the last look
        self._call = _Call(turn, frame, began if began >= last else last if late else now)
        if late and frame is not None and now - self._call.since >= self._limit:
            self._report(self._call, stack, now)  # it has kept the interpreter, and may be over at the next look

    def _report(self, call: _Call, stack: list[FrameType], now: float) -> None:
        assert call.frame is not None
        call.name = f"{_name_of(call.frame)} ({call.frame.f_code.co_filename}:{call.frame.f_code.co_firstlineno})"
        log.warning(
            "%s blocks the loop: nobody else of this worker has been served for %.1f s; it stands at %s; "
            "what blocks belongs into a task worker or asyncio.to_thread()",
            call.name,
            now - call.since,
            _place_in(stack, call.frame),
        )
        call.handled = self._inlet.handled
        self._inlet.kept_waiting = call.waited
        self._reported.append(call)
        if len(self._reported) == 1:
            self._reactor.post(self._turned)  # behind what has come meanwhile

    def _turned(self) -> None:
        """In the loop's thread."""
        if self._reported and self._reactor.turns == self._reported[-1].turn:
            self._reactor.post(self._turned)  # it was called by the reactor, whose turn is not over
            return
        calls, self._reported = self._reported, []
        self._inlet.kept_waiting = None
        for number, call in enumerate(calls):
            events = self._inlet.handled - call.handled
            waited = set().union(*[later.waited for later in calls[number:]])
            ended = min(call.ended or self._reactor.now / 1000, self._reactor.now / 1000)
            some, ones = ("" if count == 1 else "s" for count in (events, len(waited)))
            whom = f"{events} event{some} of {len(waited)} connection{ones} waited" if events else "nobody waited"
            log.warning("%s blocked the loop for %.1f s; %s for it", call.name, ended - call.since, whom)


def _stack_of(thread: int) -> list[FrameType] | None:
    """The outermost frame first; None: it has ended, or stands in a debugger."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return None
    frames = []
    while frame is not None:
        if _module_of(frame).partition(".")[0] in DEBUGGERS:
            return None
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _handler_in(stack: list[FrameType]) -> FrameType | None:
    """The call that the server or the loop has made of the application; of a library, if there is nothing else."""
    first = next((at for at, frame in enumerate(stack) if frame.f_code in CALLERS), len(stack))
    called = [frame for frame in stack[first + 1 :] if _module_of(frame).partition(".")[0] not in OWN]
    return next((frame for frame in called if _is_application(frame)), called[0] if called else None)


def _place_in(stack: list[FrameType], handler: FrameType) -> str:
    """The innermost line of the application, and what it has called of others."""
    inner = stack[stack.index(handler) :]
    at = max((at for at, frame in enumerate(inner) if _is_application(frame)), default=0)
    place = f"{inner[at].f_code.co_filename}:{inner[at].f_lineno}"
    return f"{place}, in {_name_of(inner[-1])}" if at < len(inner) - 1 else place


def _is_application(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith((*LIBRARIES, "<frozen"))


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__") or "")


def _name_of(frame: FrameType) -> str:
    return f"{_module_of(frame)}:{frame.f_code.co_qualname}"
