"""The pid file: which process is the server, and that there is only one.

The lock decides (flock), never the number: a number in a file may be that of another program by now. Whoever has the
lock of the file at that path is the server. Who wants to signal it (`find_server`) opens a pidfd for the number, and
the file must still be locked then: so the server lived when it was opened, and the number was nobody else's.

A number that a dead server has left is not overwritten in place, where a reader could see half of it: a new file, with
the lock on it already, is renamed over the old one while the old one is locked too. So at every moment the file there
is whole, and those who start at the same time either fail to lock it or, having locked one that is not there any more,
look again.

Only an empty file, or one with nothing but a number in it, is taken for a pid file. What else stands at that path, a
symbolic link included, is somebody's, and the start fails.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import tempfile
import time
from typing import NamedTuple

from mooring.errors import ConfigError

__all__ = ["Found", "PidFile", "find_server", "take_pid_file"]

MODE = 0o644
PATIENCE = 0.2  # seconds for which a lock may be that of somebody who only looks (`find_server`)
LOOK = 0.01
LONGEST = 32  # bytes; a number, and what people leave around it


class PidFile:
    """A locked file with our number in it."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._owner = os.getpid()

    def close(self) -> None:
        """Takes the file away, if it is still ours, and gives the lock back. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if os.getpid() != self._owner:  # a forked child: the lock, which is of both, stays the parent's
            os.close(fd)
            return
        try:
            if _is_at(fd, self._path):
                os.unlink(self._path)
        except OSError:
            pass  # its directory has changed; the number in it is stale, and the next start will see that
        fcntl.flock(fd, fcntl.LOCK_UN)  # of all who inherited it, too
        os.close(fd)


def take_pid_file(path: str) -> PidFile | None:
    """Locks the file and writes our number into it; None for an empty path.

    Raises ConfigError: another server has it, something else is there, or it can't be written.
    """
    if not path:
        return None
    path = os.path.abspath(path)
    end = time.monotonic() + PATIENCE
    try:
        while True:
            taken = _take(path, last=time.monotonic() >= end)
            if taken is not None:
                return taken
    except OSError as problem:
        raise ConfigError(f"pid_file={path!r}: {_advice(problem, path)}") from None


class Found(NamedTuple):
    """A server that runs; `pidfd` names its process for ever, and is the caller's to close."""

    pid: int
    pidfd: int


def find_server(path: str) -> Found | None:
    """Whose pid file that is; None: no server runs. Raises ConfigError when it can't be read or is no pid file."""
    path = os.path.abspath(path)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise ConfigError(f"{path}: it can't be read: {problem.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ConfigError(f"{path}: that is no pid file")
        if not _is_locked(file):
            _number(file, path)
            return None if _is_at(file, path) else find_server(path)
        number = _number(file, path)
        if not number:
            raise ConfigError(f"{path}: a program has it locked, and there is no number in it")
        try:
            pidfd = os.pidfd_open(int(number))
        except (OSError, OverflowError):
            pidfd = -1
        if pidfd >= 0 and _is_locked(file):
            return Found(int(number), pidfd)
        if pidfd >= 0:
            os.close(pidfd)
        elif _is_locked(file):
            raise ConfigError(f"{path}: it is locked, but there is no process {number}: is the server in a container?")
        return None
    finally:
        os.close(file)


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _take(path: str, *, last: bool) -> PidFile | None:
    """None: look again, because the file was replaced meanwhile, or, unless it is the last time, because of a lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    old = os.open(path, flags, MODE)
    try:
        if not stat.S_ISREG(os.fstat(old).st_mode):
            raise ConfigError(f"pid_file={path!r}: something that is no file is there; choose another path")
        try:
            fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _is_at(old, path):
                return None
            if not last:
                time.sleep(LOOK)
                return None
            number = _number(old, path)
            of = f" (pid {number})" if number else ""
            raise ConfigError(f"pid_file={path!r}: another server runs with it{of}; stop it first") from None
        if not _is_at(old, path):
            return None
        _number(old, path)
        return PidFile(path, _replace(path))
    finally:
        os.close(old)


def _replace(path: str) -> int:
    """A new file at this path, locked, with our number in it."""
    new, name = tempfile.mkstemp(prefix=".mooring-", dir=os.path.dirname(path))
    try:
        fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(new, f"{os.getpid()}\n".encode())
        os.fchmod(new, MODE)
        os.rename(name, path)
    except BaseException:
        os.close(new)
        os.unlink(name)
        raise
    return new


def _number(fd: int, path: str) -> str:
    """The number in a file, empty when there is none. Raises ConfigError when there is something else."""
    content = os.pread(fd, LONGEST + 1, 0)
    if len(content) > LONGEST or not re.fullmatch(rb"\s*[0-9]*\s*", content):
        raise ConfigError(
            f"pid_file={path!r}: that file holds something else than a process id, and is left alone; "
            "choose another path, or remove it"
        )
    return content.decode().strip()


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _advice(problem: OSError, path: str) -> str:
    folder = os.path.dirname(path)
    if problem.errno == errno.ENOENT:
        return f"there is no directory {folder}; make it first"
    if problem.errno == errno.ENOTDIR:
        return f"{folder} is no directory"
    if problem.errno == errno.EISDIR:
        return "a directory is there; give the path of a file"
    if problem.errno == errno.ELOOP:
        return "a symbolic link is there, which is not followed; give the path of the file itself"
    if problem.errno in (errno.EACCES, errno.EPERM):
        return f"no permission to write it, or to make files in {folder}"
    return f"it can't be written: {problem.strerror}"
