"""`breakpoint()` in a process that the supervisor has started.

Its standard input is empty, and the debugger of Python would end at once, with an exception in the handler. If the
server was started at a terminal and is still what runs there, the debugger gets that terminal: one process after the
other (a lock), in the foreground for as long as it asks, so that the supervisor does not end of a Ctrl-C that is meant
for the debugger; and meanwhile the process counts as one that lives, though its loop stands still.
Else one line says how to get a debugger, and the handler goes on.

PYTHONBREAKPOINT, with another debugger or 0, counts as always.
"""

import fcntl
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from mooring.journal import own_logger

log = own_logger("mooring.worker")

ADVICE = "for a debugger start the server in a terminal, in the foreground, best with mode='base' and worker_num=1"
BEAT = 0.25  # seconds


def own_terminal() -> str:
    """Path of the terminal that standard input is; empty when it is none."""
    try:
        return os.ttyname(0)
    except OSError:
        return ""


class Breakpoints:
    """What `breakpoint()` does from now on in this process."""

    def __init__(self, terminal: str, owner: int) -> None:
        """The terminal that the process `owner`, the supervisor, was started at; or an empty string."""
        self.beat: Callable[[], None] = lambda: None
        self._terminal = terminal
        self._owner = owner
        self._fd: int | None = None
        self._said: set[tuple[str, int]] = set()
        sys.breakpointhook = self._hook
        if sys.stdin is not None and _is_null(0):  # it may be a pipe, with one process, and is the application's then
            sys.stdin = _NoInput(self)

    def say(self, what: str, frame: FrameType | None) -> None:
        """Once for each line of a program."""
        if frame is not None:
            place = frame.f_code.co_filename, frame.f_lineno
            if place not in self._said and len(self._said) < 100:
                self._said.add(place)
                log.warning("%s at %s:%d; %s", what, *place, ADVICE)

    def _hook(self, *arguments: Any, **options: Any) -> Any:
        if os.environ.get("PYTHONBREAKPOINT"):
            return sys.__breakpointhook__(*arguments, **options)
        frame = sys._getframe(1)
        opened = self._open()
        if opened is None:
            self.say("breakpoint() is passed over, this process has no terminal:", frame)
        else:
            self._debugger(opened).set_trace(frame)
        return None

    def _open(self) -> int | None:
        """A descriptor of the terminal, if the server runs there in the foreground."""
        if not self._terminal:
            return None
        try:
            if self._fd is None:
                self._fd = os.open(self._terminal, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
            front = os.tcgetpgrp(self._fd)
            # or another worker is there just now: its turn comes first, see `_at_terminal`
            if front in (os.getpgid(self._owner), os.getpgrp()) or _parent_of(front) == self._owner:
                return self._fd
        except OSError:
            pass  # it has gone, or does not control this process
        return None

    def _debugger(self, terminal: int) -> Any:
        from pdb import Pdb  # it takes its time, and is rarely needed

        at_terminal = self._at_terminal

        class Debugger(Pdb):
            def interaction(self, *arguments: Any, **options: Any) -> None:
                with at_terminal(terminal):
                    super().interaction(*arguments, **options)

            def do_quit(self, arg: str) -> bool | None:
                """The exception of Pdb would count as one of the handler."""
                self.clear_all_breaks()
                return self.do_continue(arg)

            do_q = do_exit = do_quit

            def do_EOF(self, arg: str) -> bool | None:
                return self.do_quit(arg)

        # as long as the process
        reader, writer = (open(terminal, mode, closefd=False, encoding="locale") for mode in "rw")  # noqa: SIM115
        return Debugger(stdin=reader, stdout=writer, nosigint=True)

    @contextmanager
    def _at_terminal(self, terminal: int) -> Iterator[None]:
        over = threading.Event()
        beats = threading.Thread(target=self._beat_until, args=(over,), name="mooring-debugging", daemon=True)
        beats.start()
        fcntl.flock(terminal, fcntl.LOCK_EX)
        main = threading.current_thread() is threading.main_thread()
        handlers: list[tuple[int, Any]] = []
        if main:
            handlers.append((signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)))
            handlers.append((signal.SIGTSTP, signal.signal(signal.SIGTSTP, signal.SIG_IGN)))
        try:
            foreground = os.tcgetpgrp(terminal)
            _bring_forward(terminal, os.getpgrp())
            try:
                yield
            finally:
                _bring_forward(terminal, foreground)
        finally:
            for number, handler in handlers:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            fcntl.flock(terminal, fcntl.LOCK_UN)
            over.set()
            beats.join()

    def _beat_until(self, over: threading.Event) -> None:
        while not over.wait(BEAT):
            self.beat()


def _parent_of(pid: int) -> int:
    """0: it has ended."""
    with (
        suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file,
    ):
        return int(file.read().rpartition(")")[2].split()[1])
    return 0


def _is_null(fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    except OSError:
        return False


def _bring_forward(fd: int, group: int) -> None:
    """A process in the background may do that if it does not take SIGTTOU (tcsetpgrp(3))."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
    try:
        os.tcsetpgrp(fd, group)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _NoInput(io.TextIOWrapper):
    """An empty standard input that says so to whoever reads it, such as input() and pdb.set_trace()."""

    def __init__(self, breakpoints: Breakpoints) -> None:
        super().__init__(io.FileIO(0, closefd=False), encoding="utf-8")
        self._breakpoints = breakpoints

    def readline(self, *arguments: Any) -> str:  # type: ignore[override]
        self._say()
        return super().readline(*arguments)

    def read(self, *arguments: Any) -> str:
        self._say()
        return super().read(*arguments)

    def __next__(self) -> str:  # type: ignore[override]
        self._say()
        return super().__next__()

    def _say(self) -> None:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_globals.get("__name__") in ("pdb", "bdb", "cmd"):
            frame = frame.f_back
        self._breakpoints.say("a program reads from standard input, which is empty in this process,", frame)
