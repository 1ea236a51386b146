"""The pid file: which process is the server, and that there is only one.

The lock decides (flock), never the number: a number in a file may be that of another program by now, so it is shown to
people and nothing is ever sent to it. Whoever has the lock of the file at that path is the server.

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

from mooring.errors import ConfigError

__all__ = ["PidFile", "take_pid_file"]

MODE = 0o644
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
        if fd < 0 or os.getpid() != self._owner:
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
    try:
        while True:
            taken = _take(path)
            if taken is not None:
                return taken
    except OSError as problem:
        raise ConfigError(f"pid_file={path!r}: {_advice(problem, path)}") from None


def _take(path: str) -> PidFile | None:
    """None: the file was replaced meanwhile, look again."""
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
