"""The pid file: which process is the server, and that there is only one.

The lock decides, never the number: a number in a file may be that of another program by now. It is a write lock of the
open file (fcntl_locking(2), "open file description locks"), which only somebody can have who may write the file. What
others can hold who may only read it, flock or a read lock, means nothing; so they keep no server from starting. Who
wants to signal the server (`find_server`) opens a pidfd for the number, and that process itself must have the lock of
the file then: so neither what a dead server has left nor what somebody else has written there leads to a wrong process.

A number that a dead server has left is not overwritten in place, where a reader could see half of it: a new file, with
the lock on it already, is renamed over the old one. Those who start at the same time take turns (mooring.net.guard). So
at every moment the file there is whole, and the new one is locked before anybody else can open it.

Only an empty file, or one with nothing but a number in it, is taken for a pid file. What else stands at that path, a
symbolic link included, is somebody's, and the start fails.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
import tempfile
from typing import NamedTuple

from mooring.errors import ConfigError
from mooring.net.guard import GuardError, guard, is_at, owner_of

MODE = 0o644
_LOCK = "@hhqqi0q"  # struct flock: type, whence, start, length, pid
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
            if is_at(fd, self._path):
                os.unlink(self._path)
        except OSError:
            pass  # its directory has changed; the number in it is stale, and the next start will see that
        _lock(fd, fcntl.F_UNLCK)  # of all who inherited it, too
        os.close(fd)


def take_pid_file(path: str) -> PidFile | None:
    """Locks the file and writes our number into it; None for an empty path.

    Raises ConfigError: another server has it, something else is there, or it can't be written.
    """
    if not path:
        return None
    path = os.path.abspath(path)
    try:
        with guard(path):
            return _take(path)
    except GuardError as problem:
        raise ConfigError(f"pid_file={path!r}: {problem}") from None
    except OSError as problem:
        raise ConfigError(f"pid_file={path!r}: {_advice(problem, path)}") from None


class Found(NamedTuple):
    """A server that runs; `pidfd` names its process for ever, and is the caller's to close."""

    pid: int
    pidfd: int
    known: bool
    """Whether it was seen that this process has the lock; else there was no permission to look, and to signal it."""


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
        number = _number(file, path)
        if not _is_locked(file):
            return None if is_at(file, path) else find_server(path)
        if not number:
            raise ConfigError(f"{path}: a program has it locked, and there is no number in it")
        try:
            pidfd = os.pidfd_open(int(number))
        except (OSError, OverflowError):
            pidfd = -1
        known = pidfd >= 0 and _has_lock(int(number), file)
        if known or (known is None and _is_locked(file)):
            return Found(int(number), pidfd, bool(known))
        if pidfd >= 0:
            os.close(pidfd)
        if _is_locked(file):
            whose = owner_of(os.fstat(file))
            raise ConfigError(
                f"{path}: it is a file of user {whose} and locked, but not by a process {number} here: is the server "
                "in a container?"
            )
        return None
    finally:
        os.close(file)


def _is_locked(file: int) -> bool:
    """Whether somebody has the lock who may write the file: a read lock could not be had."""
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, struct.pack(_LOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
    return bool(struct.unpack(_LOCK, answer)[0] != fcntl.F_UNLCK)


def _lock(file: int, kind: int) -> None:
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(_LOCK, kind, os.SEEK_SET, 0, 0, 0))


def _has_lock(pid: int, file: int) -> bool | None:
    """Whether this process itself has the lock; None: no permission to look. The kernel says so (proc(5), fdinfo)."""
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if not os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), os.fstat(file)):
                    continue
                with open(f"/proc/{pid}/fdinfo/{name}", encoding="ascii") as info:
                    if any(re.match(r"lock:.*\sOFDLCK\s.*\sWRITE\s", line) for line in info):
                        return True
            except FileNotFoundError:
                pass  # it has just closed that one
    except PermissionError:
        return None
    except OSError:
        pass  # it has just ended
    return False


def _take(path: str) -> PidFile:
    try:
        old = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return PidFile(path, _replace(path))
    try:
        found = os.fstat(old)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"pid_file={path!r}: something that is no file is there; choose another path")
        if _is_locked(old):
            number = _number(old, path)
            of = f" (pid {number})" if number else ""
            whose = "" if found.st_uid == os.geteuid() else f" of user {owner_of(found)}"
            raise ConfigError(f"pid_file={path!r}: another server{whose} runs with it{of}; stop it first")
        _number(old, path)
        return PidFile(path, _replace(path))
    finally:
        os.close(old)


def _replace(path: str) -> int:
    """A new file at this path, locked, with our number in it."""
    new, name = tempfile.mkstemp(prefix=".mooring-", dir=os.path.dirname(path))
    try:
        _lock(new, fcntl.F_WRLCK)  # before others may even read it
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
