"""Unix sockets: who may connect is a matter of the file's permissions, so they are right from its first moment on.

The socket is bound in a fresh directory that nobody else may enter, given its owner and mode there, and moved
to its place when it listens already. So there is no moment at which it is wider than asked, and none at which it
is there and refuses. (An umask around bind() would do the first, for all threads of the process.)

What stands at that place before? Nothing: a link is made, which fails if somebody is faster. A socket that
refuses: a dead server has left it, and it is replaced. A socket that answers, or a file that is no socket: left
alone, and the start fails. Two servers that start at the same moment take turns (mooring.net.guard).

When the listener is closed by the process that has bound it, the file goes, unless it is another one by now.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import struct
import tempfile
from typing import Any

from mooring.net.guard import GuardError, guard
from mooring.net.holder import program, server_of
from mooring.net.listener import ListenError

PATH_LIMIT = 107  # bytes; unix(7)


class UnixListener(socket.socket):
    """A listening Unix socket that takes its file away when it is closed."""

    def __init__(self, path: str) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = path
        self._pid = os.getpid()
        self._identity: tuple[int, int, int] | None = None

    def getsockname(self) -> Any:
        """The path."""
        return self._path

    def is_at_its_place(self) -> None:
        """From now on the file is this socket's."""
        self._identity = _identity(os.lstat(self._path))

    def close(self) -> None:
        """Stops listening; the file goes, if it is still this socket's."""
        identity, self._identity = self._identity, None
        try:
            if identity is not None and self._pid == os.getpid() and _identity(os.lstat(self._path)) == identity:
                os.unlink(self._path)
        except OSError:
            pass  # somebody has removed it, or the directory: it is not there any more, which was the aim
        super().close()


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    # The numbers of inodes are given out again; the time is that of bind(), whatever was changed later.
    return found.st_dev, found.st_ino, found.st_mtime_ns


def bind_unix(path: str, mode: int = 0o600, owner: str = "", backlog: int = 2048) -> UnixListener:
    """Bind and listen, without blocking or inheritance. `owner` is "user:group", "user", ":group" or empty.

    Raises ListenError.
    """
    path = os.path.abspath(path)
    wanted = f"unix:{path}"
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise ListenError(
            f"cannot listen on {wanted}: such a path has at most {PATH_LIMIT} bytes; choose a shorter one"
        )
    user, group = _owner(owner, wanted)
    listener = UnixListener(path)
    try:
        with guard(path):
            _bind(listener, path, mode, (user, group), backlog, _left_behind(path, wanted))
        listener.setblocking(False)
    except GuardError as problem:
        listener.close()
        raise ListenError(f"cannot listen on {wanted}: {problem}") from None
    except OSError as problem:
        listener.close()
        number = problem.errno or 0
        raise ListenError(f"cannot listen on {wanted}: {_advice(problem, number, path, owner)}", number) from None
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(
    listener: UnixListener, path: str, mode: int, owner: tuple[int, int], backlog: int, old: os.stat_result | None
) -> None:
    with tempfile.TemporaryDirectory(prefix=".mooring-", dir=os.path.dirname(path)) as private:  # mode 0700
        inside = os.open(private, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{inside}/socket")  # the real path may be too long for bind()
            if owner != (-1, -1):
                os.chown("socket", *owner, dir_fd=inside)
            os.chmod("socket", mode, dir_fd=inside)
            listener.listen(backlog)
            if old is not None and _identity(os.lstat(path)) == _identity(old):
                os.rename("socket", path, src_dir_fd=inside)
            else:
                os.link("socket", path, src_dir_fd=inside)
            listener.is_at_its_place()
        finally:
            os.close(inside)


def _left_behind(path: str, wanted: str) -> os.stat_result | None:
    """What a dead server has left at this path; None when nothing is there. ListenError for anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(
            f"cannot listen on {wanted}: something that is no socket is there, and is left alone; "
            "remove it or choose another path",
            errno.EEXIST,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        number = probe.connect_ex(path)
        pid = _peer(probe) if number == 0 else 0  # 0 also if it is in another container
        holder = f", {program(server_of(pid))}" if pid else ""
    if number == errno.ECONNREFUSED:
        return found
    if number == errno.ENOENT:
        return None
    if number in (0, errno.EAGAIN):  # EAGAIN: its queue is full
        raise ListenError(
            f"cannot listen on {wanted}: another server listens there{holder}; stop it or choose another path",
            errno.EADDRINUSE,
        )
    raise ListenError(
        f"cannot listen on {wanted}: a socket is there and does not tell whether anybody uses it "
        f"({os.strerror(number)}); remove it or choose another path",
        number,
    )


def _peer(connected: socket.socket) -> int:
    """The process that has listened there (SO_PEERCRED, unix(7))."""
    return int(struct.unpack("=iII", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def _owner(text: str, wanted: str) -> tuple[int, int]:
    """Numbers of user and group; -1: as it is."""
    user, _, group = text.partition(":")
    try:
        uid = -1 if not user else _number(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else _number(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except (KeyError, ValueError) as problem:
        reason = problem.args[0] if problem.args else problem
        raise ListenError(f"cannot listen on {wanted}: unix_socket_owner={text!r}: {reason}") from None
    return uid, gid


def _number(text: str) -> int:
    if len(text) > 10 or int(text) >= 0xFFFFFFFF:
        raise ValueError("the number is too large")
    return int(text)


def _advice(problem: OSError, number: int, path: str, owner: str) -> str:
    folder = os.path.dirname(path)
    if number == errno.ENOENT:
        return f"there is no directory {folder}; make it first"
    if number == errno.ENOTDIR:
        return f"{folder} is no directory"
    if number == errno.EEXIST:
        return "something has appeared there meanwhile; start again"
    if number == errno.EPERM and owner:
        return f"no permission to give the socket to {owner!r}; start as root, or name a group that you are in"
    if number in (errno.EACCES, errno.EPERM):
        return f"no permission to make files in {folder}"
    return problem.strerror or str(problem)
