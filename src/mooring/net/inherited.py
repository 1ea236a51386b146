"""Listening sockets that somebody else has bound: by number, or from systemd's socket activation (sd_listen_fds(3)).

systemd passes descriptors from 3 on and says in LISTEN_FDS how many, in LISTEN_FDNAMES how they are called,
and in LISTEN_PID whom they are for. The process keeps its id from `python chat.py` to the supervisor, so they
reach it. Then the variables are taken out of the environment: they mean nothing in a child.

What was inherited is looked at before it is used: anything but a listening stream socket would fail later, and
obscurely.
"""

from __future__ import annotations

import os
import socket
import stat

from mooring.net.listener import ListenError

FIRST = 3  # SD_LISTEN_FDS_START
FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def systemd_sockets() -> list[tuple[int, str]]:
    """Descriptor and name of each socket that systemd has passed to this process. The variables leave the environment.

    Raises ListenError when these make no sense.
    """
    pid, count, names = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()):
        return []
    if not count.isdecimal() or int(count) > 1024:
        raise ListenError(f"cannot listen: LISTEN_FDS={count!r} is not the number of sockets that systemd has passed")
    called = names.split(":") if names else []
    return [(FIRST + n, called[n] if n < len(called) else "unknown") for n in range(int(count))]


def find(inherited: str, passed: list[tuple[int, str]]) -> int:
    """The descriptor that `fd://N`, `systemd` or `systemd:NAME` means. Raises ListenError for none, or several."""
    if inherited.startswith("fd://"):
        return int(inherited[5:])
    _, colon, name = inherited.partition(":")
    found = [fd for fd, called in passed if not colon or called == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(called for _, called in passed)
    if not passed:
        why = "systemd has passed no socket to this process; start it by a .socket unit (LISTEN_FDS, LISTEN_PID)"
    elif not found:
        why = f"systemd has passed none of that name, but {names}"
    elif colon:
        why = f"systemd has passed {len(found)} of that name; give each a FileDescriptorName= of its own"
    else:
        why = f"systemd has passed {len(found)} sockets; say which: systemd:NAME, with one of {names}"
    raise ListenError(f"cannot listen on {inherited}: {why}")


def adopt(fd: int, inherited: str) -> socket.socket:
    """The socket with this descriptor, non-blocking and not inheritable. ListenError when it is none that listens."""
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        raise ListenError(
            f"cannot listen on {inherited}: descriptor {fd} is not open; whoever starts the server must pass it on"
        ) from None
    if not is_socket:
        raise ListenError(f"cannot listen on {inherited}: descriptor {fd} is no socket")
    listener = socket.socket(fileno=fd)
    if listener.type != socket.SOCK_STREAM or listener.family not in FAMILIES:
        why = "is no TCP or Unix stream socket"
    elif not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        why = "does not listen; bind() and listen() are up to who passes it (systemd: Accept=no)"
    else:
        listener.setblocking(False)
        listener.set_inheritable(False)
        return listener
    listener.detach()  # not ours
    raise ListenError(f"cannot listen on {inherited}: descriptor {fd} {why}")
