"""What this process was started with, as far as it can still be known, and how that is put back.

The application runs once in the process that becomes the supervisor, and whatever it does to its process there
(`load_dotenv()`, `os.chdir()`, `os.nice()`, `os.umask()`, limits, signals) would go on to every worker, which does the
same once more: a changed .env would never count, a relative `chdir` fail, a nice value add up. So before that process
becomes the supervisor it is again what it was at its start, and each worker begins from there.

    environment     as the kernel keeps it (/proc/self/environ), whatever was imported first; unless a program has
                    overwritten it, as one that changes its title does: then as it was when mooring was imported
    folder          where the interpreter has joined it to a relative path (of the script, of itself), that is read off
                    the result; with `python -m` it is where the module was found; else as at that import
    all the rest    as at that import: nice value, scheduling policy, oom_score_adj, umask, limits, processors, ignored
                    and blocked signals

It is imported with the package, as early as that can be.
"""

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from mooring.app.command import Command

LIMITS: Final = {value: name for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
OOM: Final = Path("/proc/self/oom_score_adj")
FORKED: Final = 0x40  # PF_FORKNOEXEC of linux/sched.h: made by fork, and no program was started since


class Launched:
    """What a process was started with."""

    def __init__(self) -> None:
        self.command = Command.of_this_process()
        self.executable = sys.executable
        self.environment = initial_environment()
        self.folder = initial_folder(self.command)
        self.path = sys.path[:1]
        self.nice = os.getpriority(os.PRIO_PROCESS, 0)
        self.scheduler = _scheduler()
        self.oom = _oom()
        self.umask = _umask()
        self.limits = {number: resource.getrlimit(number) for number in LIMITS}
        self.processors = os.sched_getaffinity(0)
        self.ignored = _ignored()
        self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def restore(self) -> list[str]:
        """Puts it back, and says what can't be."""
        kept: list[str] = []
        os.environb.clear()
        os.environb.update(self.environment)
        for timer in TIMERS:
            signal.setitimer(timer, 0)  # it goes on over an exec, and would end the supervisor
        for number in _ignored() - self.ignored:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)
        if self.umask >= 0:
            os.umask(self.umask)
        for number, limits in self.limits.items():
            if not _limited(number, limits):
                kept.append(f"{LIMITS[number]} was {limits} and stays {resource.getrlimit(number)}")
        try:
            if os.sched_getaffinity(0) != self.processors:
                os.sched_setaffinity(0, self.processors)
        except OSError as problem:
            kept.append(f"the processors it may use stay as they are ({problem.strerror})")
        try:
            if os.getpriority(os.PRIO_PROCESS, 0) != self.nice:
                os.setpriority(os.PRIO_PROCESS, 0, self.nice)
        except OSError as problem:
            now = os.getpriority(os.PRIO_PROCESS, 0)
            kept.append(f"the nice value was {self.nice} and stays {now} ({problem.strerror})")
        try:
            if _scheduler() != self.scheduler:
                os.sched_setscheduler(0, self.scheduler[0], os.sched_param(self.scheduler[1]))
        except OSError as problem:
            kept.append(f"the scheduling policy stays as it is ({problem.strerror})")
        try:
            if _oom() != self.oom:
                OOM.write_text(self.oom, encoding="ascii")
        except OSError as problem:
            kept.append(f"oom_score_adj was {self.oom} and stays {_oom()} ({problem.strerror})")
        try:
            os.chdir(self.folder)
        except OSError as problem:
            kept.append(f"the directory was {self.folder} ({problem.strerror})")
        return kept


def was_forked() -> bool:
    """Whether this process is the copy of another one, and nothing that somebody has started."""
    with suppress(OSError, ValueError, IndexError):
        # proc(5): the name, in parentheses, may hold anything; `flags` is the seventh field behind it
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return bool(int(fields[6]) & FORKED)
    return False


def initial_environment() -> dict[bytes, bytes]:
    now = dict(os.environb)
    try:
        content = Path("/proc/self/environ").read_bytes()
    except OSError:
        return now
    found: dict[bytes, bytes] = {}
    for entry in content.removesuffix(b"\0").split(b"\0") if content else ():
        name, equals, value = entry.partition(b"=")
        if not (name and equals):
            return now  # it is something else by now
        found.setdefault(name, value)  # of two the first, as getenv(3)
    return found


def initial_folder(command: Command) -> str:
    main = sys.modules.get("__main__")
    candidates = []
    if command.kind == "script":
        candidates.append(_before(getattr(main, "__file__", None), command.name))
    if command.orig_argv and "/" in command.orig_argv[0]:
        candidates.append(_before(sys.executable, command.orig_argv[0]))
    if command.kind == "module" and not sys.flags.safe_path:
        origin = getattr(getattr(main, "__spec__", None), "origin", None)
        # only if the module was found there: else somebody has put that in since
        if isinstance(origin, str) and sys.path and origin.startswith(sys.path[0].rstrip("/") + "/"):
            candidates.append(sys.path[0])
    for folder in candidates:
        if os.path.isabs(folder) and os.path.isdir(folder):
            return folder
    return current_folder() or "/"


def current_folder() -> str:
    """Empty: it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _before(whole: object, given: str) -> str:
    """What stands before a relative path that was made absolute; empty if it can't be told."""
    if not isinstance(whole, str) or os.path.isabs(given) or not whole.endswith("/" + given):
        return ""
    return whole.removesuffix("/" + given) or "/"


def _scheduler() -> tuple[int, int]:
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


def _oom() -> str:
    """Empty: it can't be read."""
    with suppress(OSError):
        return OOM.read_text(encoding="ascii").strip()
    return ""


def _umask() -> int:
    """-1: it is not known. os.umask() would have to change it, for a moment and for all threads."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return -1


def _ignored() -> set[int]:
    return {number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN}


def _limited(number: int, wanted: tuple[int, int]) -> bool:
    """Sets a limit again; whether it could be done."""
    if resource.getrlimit(number) == wanted:
        return True
    try:
        resource.setrlimit(number, wanted)
    except (OSError, ValueError):  # the hard limit was lowered
        hard = resource.getrlimit(number)[1]
        soft = hard if wanted[0] == resource.RLIM_INFINITY else min(wanted[0], hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(number, (soft, hard))
        return False
    return True


launched = Launched()
