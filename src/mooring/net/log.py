"""Where log lines go, in which form, and what becomes of them when they can't go there.

A line is written at once and whole, by the process it comes from: to standard error, or to a file that all processes
append to, where lines of several don't mix. Writing must not stop the server, whatever is at the other end: a disk that
is full, a pipe that nobody reads any more, or one that is not read for now. A line that can't be written is dropped and
counted, and the first that can be written again has one before it that says how many there were.

A full pipe or socket is waited for, once, for a twentieth of a second; until something has been written again the
next lines are not waited for. A pipe is opened anew for that, without blocking: of the one we were given the flag is
shared with whoever else writes to it.

What the application logs goes there, too, as long as it has not said where else it shall go: we take the place of the
handler of last resort, which Python calls for a record that no handler has. So whatever an application sets up takes
effect, and nothing is written twice. Two things are no set-up: the handler that `logging.info()` and its likes put in
where there is none (they call `basicConfig()`), and the NullHandler that packages give their loggers.

Log files are opened again on a signal, under the same descriptor: a line goes to the old file or the new one, and what
has learnt the number (faulthandler) follows.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import select
import signal
import stat
import sys
import threading
from types import FrameType
from typing import Final

from mooring.config import Settings
from mooring.errors import ConfigError
from mooring.journal import OwnRecord, own_logger
from mooring.net.lines import JsonLines, TextLines

MODE: Final = 0o640
PATIENCE: Final = 50  # milliseconds
STDERR: Final = 2

_streams: dict[str, LogStream] = {}  # of this process, by path; "" is standard error
_forms: list[TextLines] = []
_implied: list[logging.Handler] = []  # what `logging.info()` has put in before this process had a log
_lent = False  # the application's lines come here


def _unlock() -> None:
    """In a forked child: another thread of the parent may be in the middle of a line, for ever."""
    for stream in _streams.values():
        stream._lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock)


class LogStream:
    """A descriptor that log lines are written to; an empty path: standard error. Raises OSError."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.form = TextLines()
        self.dropped = 0  # in all
        self._unsaid = 0  # of them those that no line has told of
        self._why = ""
        self._torn = False  # the last line has no end
        self._lock = threading.RLock()  # of several loggers, and of a signal handler in the middle of a line
        self.fd = self._opened() if path else _standard_error()

    def _opened(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK, MODE)

    def reopen(self) -> None:
        """The file that has this path now. Raises OSError, and then goes on with the old one."""
        if self.path:
            fd = self._opened()
            os.dup2(fd, self.fd, inheritable=False)
            os.close(fd)
            self._torn = False

    def write(self, line: str) -> None:
        """A line without its end; lines before it that were dropped are told of first."""
        with self._lock:
            if self._unsaid and self._put(self.form.note(f"{self._unsaid} log lines were dropped: {self._why}")):
                self._unsaid = 0
            if self._unsaid or not self._put(line):
                self._drop()

    def lose(self) -> None:
        """A line that could not be made."""
        with self._lock:
            self._why = "there was no memory for them, or they have no text"
            self._drop()

    def _drop(self) -> None:
        self.dropped += 1
        self._unsaid += 1

    def _put(self, line: str) -> bool:
        data = (("\n" if self._torn else "") + line + "\n").encode("utf-8", "backslashreplace")
        patience = 0 if self._unsaid else PATIENCE
        try:
            while data:
                if not _writable(self.fd, patience):
                    raise BlockingIOError(0, "whoever reads them is too slow")
                try:
                    written = os.write(self.fd, data)
                except BlockingIOError:
                    written = 0
                    if not patience:
                        raise BlockingIOError(0, "whoever reads them is too slow") from None
                    patience = 0
                self._torn = self._torn or written > 0
                data = data[written:]
        except OSError as problem:
            self._why = problem.strerror or str(problem)
            return False
        self._torn = False
        return True


class _Handler(logging.Handler):
    """Writes records to a LogStream."""

    def __init__(self, stream: LogStream) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._stream.write(self._stream.form.line(record))
        except Exception:  # whoever logs goes on; from Python 3.13 on a traceback takes hundreds of allocations
            self._stream.lose()


class _LastResort(_Handler):
    """What no handler of the application has taken."""

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record, OwnRecord):  # it has been written
            super().emit(record)


class _Level(int):
    """A level that we have set, and nobody has asked for."""


def log_to(settings: Settings, name: str) -> None:
    """Log lines of the package go where the settings say, and those of the application that it sends nowhere else.

    A file that can be opened no more, once the server runs, is replaced by standard error.
    """
    own, access = own_logger(), own_logger("mooring.access")
    wanted = settings.operation
    problems: list[str] = []

    def stream(path: str) -> LogStream:
        try:
            found = _stream(path)
        except OSError as problem:
            problems.append(f"{path} can't be opened: {problem.strerror}; lines go to standard error")
            found = _stream("")
        found.form = JsonLines() if wanted.log_format == "json" else TextLines()
        _forms.append(found.form)
        return found

    main = stream(wanted.log_file)
    own.addHandler(_Handler(main))
    own.setLevel(settings.process.log_level.upper())
    if wanted.access_log_file:
        access.addHandler(_Handler(stream(wanted.access_log_file)))
        access.propagate = False
    access.setLevel(logging.INFO)  # it has a setting of its own
    own_logger("mooring.closed").setLevel(logging.INFO)  # likewise
    log_as(name)
    public = logging.getLogger("mooring")
    public.setLevel(settings.process.log_level.upper())
    public.propagate = False  # else what the application writes to its own log would stand there, too
    logging.lastResort = _LastResort(main)
    if logging.Logger.callHandlers is _their_call:
        logging.Logger.callHandlers = _call_handlers  # type: ignore[method-assign, assignment]
    for problem in problems:
        own.error("%s", problem)


def lend_level(settings: Settings) -> None:
    """Where the application runs, the root logger has our level as long as it has no handler and no level of the
    application's; with a handler and no level, that of Python is what is meant."""
    global _lent
    _lent = True
    root = logging.getLogger()
    if all(handler in _implied for handler in root.handlers):
        for handler in root.handlers[:]:
            root.removeHandler(handler)
    _implied.clear()
    if root.level == logging.WARNING and not root.handlers:
        root.setLevel(_Level(logging.getLevelNamesMapping()[settings.operation.app_log_level.upper()]))


def leave_level() -> None:
    """The same for handlers that were put in without a call; now is a good moment to look."""
    root = logging.getLogger()
    if root.handlers and isinstance(root.level, _Level):
        root.setLevel(logging.WARNING)


def _add_handler(handler: logging.Handler) -> None:
    """What `addHandler` of the root logger does in a process that has imported this package."""
    root, caller = logging.getLogger(), sys._getframe(1)
    if _is_implied(caller):
        if _lent:
            return
        _implied.append(handler)
    logging.Logger.addHandler(root, handler)
    leave_level()


def _is_implied(caller: FrameType) -> bool:
    """Whether it is `basicConfig()`, called by the standard library itself."""
    above, theirs = caller.f_back, vars(logging)
    return (
        caller.f_code.co_name == "basicConfig"
        and caller.f_globals is theirs
        and above is not None
        and above.f_globals is theirs
    )


logging.getLogger().addHandler = _add_handler  # type: ignore[method-assign, assignment]


def _call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
    """In place of `Logger.callHandlers`, which takes a NullHandler for one that writes."""
    _their_call(logger, record)
    last = logging.lastResort
    if isinstance(last, _LastResort) and _is_unheard(logger):
        last.handle(record)


_their_call: Final = logging.Logger.callHandlers


def _is_unheard(logger: logging.Logger | None) -> bool:
    """Whether there are NullHandlers up to a root that has no handler at all. A logger that does not propagate, or a
    root with a NullHandler, is silent because somebody wants it so."""
    found = False
    while logger is not None:
        if any(type(handler) is not logging.NullHandler for handler in logger.handlers):
            return False
        if logger.parent is None:
            return found and not logger.handlers
        found = found or bool(logger.handlers)
        if not logger.propagate:
            return False
        logger = logger.parent
    return False


def log_as(name: str) -> None:
    """This process has another name from now on."""
    for form in _forms:
        form.process = name


def check_log_files(settings: Settings) -> None:
    """Raises ConfigError for a file that can't be written to."""
    for setting in ("log_file", "access_log_file"):
        path = getattr(settings.operation, setting)
        try:
            if path:
                os.close(LogStream(path).fd)
        except OSError as problem:
            raise ConfigError(f"{setting}={path!r}: log lines can't be written there: {problem.strerror}") from None


def _stream(path: str) -> LogStream:
    full = os.path.abspath(path) if path else ""  # the application may change its directory
    if full not in _streams:
        _streams[full] = LogStream(full)
    return _streams[full]


def reopen_logs() -> None:
    """Opens the files of this process again."""
    for stream in _streams.values():
        try:
            stream.reopen()
        except OSError as problem:
            own_logger().error(
                "%s can't be opened again: %s; lines go on to the file it was", stream.path, problem.strerror
            )


def dropped_lines() -> int:
    """Lines of this process that could not be written."""
    return sum(stream.dropped for stream in _streams.values())


def log_stacks(settings: Settings) -> None:
    """The stacks of all threads go to the log when this process dies of a fault, and on SIGUSR2.

    C code writes them, to the log file or standard error: also while other C code holds the interpreter.
    """
    path = settings.operation.log_file
    stream = _streams.get(os.path.abspath(path)) if path else None
    fd = stream.fd if stream else STDERR
    faulthandler.enable(fd)
    faulthandler.register(signal.SIGUSR2, fd, all_threads=True)


def fill_standard_streams() -> None:
    """Whichever of the descriptors 0 to 2 is closed becomes /dev/null.

    Else the next file or socket that is opened would get its number, and what is printed would go to a client.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number: this one


def _writable(fd: int, patience: int) -> bool:
    """Whether something can be written without blocking, within so many milliseconds."""
    waiting = select.poll()
    waiting.register(fd, select.POLLOUT)
    return bool(waiting.poll(patience))


def _standard_error() -> int:
    """A pipe without blocking, whatever others do with it; anything else as it is."""
    if sys.__stderr__ is None:  # it was closed from the beginning, and something else may have its number
        return os.open(os.devnull, os.O_WRONLY)
    try:
        if stat.S_ISFIFO(os.fstat(STDERR).st_mode):
            return os.open(f"/proc/self/fd/{STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND)
    except OSError:
        pass  # its reader is gone, or it is somebody else's
    return STDERR
