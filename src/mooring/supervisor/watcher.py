"""Watch source files in a thread; the loop learns of a change through a descriptor.

`watchfiles` is an optional dependency and blocks while it waits, hence the thread, the only one of the
supervisor. It shares one deque with the loop and touches nothing else.

A path is watched, not what was there when the watch began. The kernel's watches are of inodes: a file that an editor
saves by renaming, a folder that is replaced, or a link that leads elsewhere (a ConfigMap of Kubernetes) would be seen
once and never again. So folders are followed by the kernel's watches, and which folder is at a path is looked at again
and again, as is every single file. A change of a file is told when it has stood still for a moment, one of what has to
be followed anew when it is.

The kernel has so many watches for each user, and an editor may have taken most. When there are none, at the start or
for a folder that comes later, the folders are looked through instead, which finds the same and costs more. A watcher
that fails for any other reason begins again, and says so.

What the server itself writes is no change, or each reload would cause the next: its files, also rotated or by another
name, what its standard output and error go to, compiled code, temporary files; and what one of its processes has open
for writing, such as a log file or a database of the application.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mooring._core.orphan import has_watches
from mooring.errors import ConfigError
from mooring.journal import own_logger

log = own_logger("mooring.supervisor")

PERIOD = 200  # milliseconds between two looks
SEARCH = 1000  # the same where all files have to be looked at
AGAIN = 5.0  # seconds until it begins again after an error
#: What logrotate and others put behind the name of a log.
ROTATED = re.compile(r"(?:[.-](?:\d[\w:-]*|old|bak))?(?:\.(?:gz|bz2|xz|zst|lz4|Z))?")
#: What is beside a database that is open.
JOURNAL = re.compile(r"-(?:journal|wal|shm)")
#: Files of ours that are about to be renamed; those of Python's tempfile, which may have no name at all (O_TMPFILE).
TEMPORARY = re.compile(r"\.mooring-.*|tmp[a-z0-9_]{8}|#\d+")

ADDED, MODIFIED, DELETED = 1, 2, 3  # watchfiles.Change

_Found = tuple[int, ...] | None


class Watcher:
    """Readable at `fileno()` when files below `paths` changed; `take()` names them."""

    def __init__(self, paths: Sequence[str | Path], own: Sequence[str] = ()) -> None:
        """Start watching; `own` are paths that the server writes to. Raises ConfigError: watchfiles is not installed,
        or a path is not there."""
        try:
            import watchfiles
        except ImportError:
            raise ConfigError("watch needs the package watchfiles: pip install 'mooring-server[watch]'") from None
        for path in paths:
            if not Path(path).exists():
                raise ConfigError(f"watch: there is no {str(path)!r}")
        self._watch = watchfiles.watch
        self._filter = watchfiles.DefaultFilter()
        self._own = [os.path.abspath(path) for path in own if path]
        self._found: dict[str, _Found] = {os.path.abspath(path): None for path in paths}
        self._unsettled: set[str] = set()
        for path in self._found:
            self._found[path] = _what_is_at(path)
        self._changed: deque[str] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._searches = False  # the kernel has no watches for us
        self._follows = False  # it has begun, so that something may be missed now
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mooring-watcher", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as problem:
            os.close(self._wake)
            raise ConfigError(f"watch needs a thread: {problem}; raise the limit of processes (ulimit -u)") from None

    def _run(self) -> None:
        anew: list[str] = []
        while not self._stop.is_set():
            folders = [path for path, found in self._found.items() if found is not None and stat.S_ISDIR(found[0])]
            try:
                anew = self._follow(folders, anew) if folders else self._wait(anew)
            except FileNotFoundError:  # it went at this moment
                anew = self._wait(anew)
            except Exception as problem:
                self._fail(problem)
                anew = folders if self._follows else []
                self._follows = False

    def _fail(self, problem: Exception) -> None:
        if not self._searches:
            self._search(str(problem))
        else:
            log.error("watch: changes are not noticed: %s; it is tried again in %g s", problem, AGAIN)
            self._stop.wait(AGAIN)

    def _search(self, why: str) -> None:
        self._searches = True
        log.warning(
            "watch: files are looked at each %g s, for the kernel tells of no more changes: %s; raise "
            "fs.inotify.max_user_watches or max_user_instances (sysctl), or watch less",
            SEARCH / 1000,
            why,
        )

    def _follow(self, folders: list[str], anew: list[str]) -> list[str]:
        """Until something has to be followed anew; gives that, to be told when it is."""
        roots = [os.path.realpath(folder) for folder in folders]
        new: list[str] = []  # that it should follow by now
        for changes in self._watch(
            *roots,
            watch_filter=None,
            stop_event=self._stop,
            debounce=PERIOD,  # an editor that writes twice is one change
            step=50,
            rust_timeout=PERIOD,
            yield_on_timeout=True,
            force_polling=True if self._searches else None,
            poll_delay_ms=SEARCH,
        ):
            self._follows = True
            self._tell(anew)
            if not self._searches and not all(has_watches(path) for path in new):
                self._search("there are no watches left")
                return new
            foreign = self._foreign(changes, roots)
            new = [path for path in foreign if os.path.isdir(path)]
            links = [path for path in foreign if os.path.islink(path)]
            ended = [path for change, path in changes if path in roots and change == DELETED]
            files, anew = self._look()
            anew += [*links, *ended]
            self._tell([*files, *(path for path in foreign if path not in anew)])
            if anew:
                return anew
        return []

    def _wait(self, anew: list[str]) -> list[str]:
        """The same when there is no folder to follow."""
        self._tell(anew)
        self._stop.wait(PERIOD / 1000)
        files, anew = self._look()
        self._tell(files)
        return anew

    def _look(self) -> tuple[list[str], list[str]]:
        """The files among `paths` that are not what they were and have stood still since the last look; the folders
        that are not what they were."""
        files, folders = [], []
        for path, before in self._found.items():
            now = _what_is_at(path)
            if now != before:
                self._found[path] = now
                self._unsettled.add(path)
                if any(found is not None and stat.S_ISDIR(found[0]) for found in (before, now)):
                    self._unsettled.discard(path)
                    folders.append(path)
            elif path in self._unsettled:
                self._unsettled.discard(path)
                if not self._is_own(path):
                    files.append(path)
        return files, folders

    def _foreign(self, changes: Collection[tuple[Any, str]], roots: Iterable[str]) -> list[str]:
        """Paths in watched folders that are neither ours nor of no interest."""
        found = set()
        passed = {path for change, path in changes if change == ADDED and not os.path.lexists(path)}
        for change, path in changes:
            if path in passed:
                continue  # it was there for a moment only, as what an editor or tempfile tries a folder with
            if self._searches and change == MODIFIED and os.path.isdir(path):
                continue  # what is in it has changed, which is told by itself, if it is of interest
            inside = min(
                (path[len(root) :] for root in roots if f"{path}/".startswith(f"{root}/")), key=len, default=path
            )
            if any(TEMPORARY.fullmatch(part) for part in inside.split("/")) or not self._filter(change, inside):
                continue
            if not self._is_own(path):
                found.add(path)
        if found:
            written = [os.path.split(path) for path in _written()]
            found = {path for path in found if not any(_belongs(path, folder, base) for folder, base in written)}
        return sorted(found)

    def _is_own(self, path: str) -> bool:
        folder, name = os.path.realpath(os.path.dirname(path)), os.path.basename(path)
        path = os.path.join(folder, name)
        for own in self._own:
            for real in {
                os.path.join(os.path.realpath(os.path.dirname(own)), os.path.basename(own)),
                os.path.realpath(own),
            }:
                if f"{path}/".startswith(f"{real}/") or _belongs(path, *os.path.split(real)):
                    return True
        if sys.pycache_prefix and path.startswith(os.path.realpath(sys.pycache_prefix)):
            return True
        return _is_output(path)

    def _tell(self, paths: list[str]) -> None:
        if paths:
            self._changed.extend(paths)
            os.eventfd_write(self._wake, 1)

    def fileno(self) -> int:
        return self._wake

    def take(self) -> list[str]:
        """The paths that changed since the last call, each once."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return []
        paths: dict[str, None] = {}
        while self._changed:
            paths[self._changed.popleft()] = None
        return list(paths)

    def close(self) -> None:
        """End the thread (it looks at the stop event every 0.2 s)."""
        self._stop.set()
        self._thread.join(timeout=2.0)
        if not self._thread.is_alive():
            os.close(self._wake)


def _what_is_at(path: str) -> _Found:
    """None: nothing. Of a folder which one it is, of a file also its content, as far as that shows from outside."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    identity = (found.st_mode, found.st_dev, found.st_ino)
    return identity if stat.S_ISDIR(found.st_mode) else (*identity, found.st_mtime_ns, found.st_size)


def _belongs(path: str, folder: str, base: str) -> bool:
    """Whether it is the file `base` in `folder`, or one that belongs to it; without links in its folder."""
    at, name = os.path.split(path)
    if at != folder or not name.startswith(base):
        return False
    rest = name[len(base) :]
    return ROTATED.fullmatch(rest) is not None or JOURNAL.fullmatch(rest) is not None


def _written() -> set[str]:
    """The files that processes below this one have open for writing at this moment."""
    found, pids = set(), _children(os.getpid())
    while pids:
        pid = pids.pop()
        pids += _children(pid)
        with suppress(OSError):  # it has ended, or is another user's
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    # proc(5): of a descriptor that can't be written to, the link can't either
                    if os.lstat(f"/proc/{pid}/fd/{fd}").st_mode & stat.S_IWUSR:
                        found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return {path for path in found if path.startswith("/")}


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii").split())
    return found


def _is_output(path: str) -> bool:
    """Whether it is the file that standard output or error goes to."""
    for fd in (1, 2):
        with suppress(OSError):
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.stat(path)):
                return True
    return False
