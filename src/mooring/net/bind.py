"""All listeners of a server: every one, or none."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mooring.config.listen import Listen
from mooring.config.option import split_address
from mooring.journal import own_logger
from mooring.net.inherited import adopt, find, systemd_sockets
from mooring.net.listener import ListenError, address_text, bind_listener
from mooring.net.unix import UnixListener, bind_unix

log = own_logger("mooring.net")

CONTROL_MODE = 0o600
METRICS_MODE = 0o666  # whoever may enter the folder may read
METRICS_BACKLOG = 64
CONTROL_BACKLOG = 64  # requests that wait while worker 0 is being replaced


def bind_all(wanted: Sequence[Listen]) -> list[socket.socket]:
    """A listening socket for each of these, in that order. Raises ListenError, and then leaves none behind."""
    passed = systemd_sockets()
    made: list[socket.socket] = []
    used: dict[int, str] = {}
    try:
        for listen in wanted:
            if listen.inherited:
                fd = find(listen.inherited, passed)
                if fd in used:
                    raise ListenError(
                        f"cannot listen on {listen.inherited}: descriptor {fd} is that of {used[fd]} already"
                    )
                used[fd] = listen.inherited
                made.append(adopt(fd, listen.inherited))
            else:
                made.append(_bind(listen))
    except BaseException:
        for listener in made:
            listener.close()
        raise
    for fd, name in passed:
        if fd not in used:
            log.warning("systemd has passed the socket %r, and no listener uses it: inherited='systemd:%s'", name, name)
    return made


def bind_control(path: str) -> UnixListener | None:
    """The socket on which a server is asked by other programs of its user; None when there shall be none.

    Raises ListenError.
    """
    with _of_setting(f"control_socket={path!r}"):
        return bind_unix(path, CONTROL_MODE, backlog=CONTROL_BACKLOG) if path else None


def bind_metrics(address: str) -> socket.socket | None:
    """The socket of `/metrics`; None when there shall be none. Raises ListenError."""
    if not address:
        return None
    host, port = split_address(address)
    with _of_setting(f"metrics_listen={address!r}"):
        made: socket.socket
        if port is None:
            made = bind_unix(host, METRICS_MODE, backlog=METRICS_BACKLOG)
        else:
            made = bind_listener(host, port, METRICS_BACKLOG)
    log.info("metrics and health are served on %s", address_text(made.getsockname()))
    return made


@contextmanager
def _of_setting(name: str) -> Iterator[None]:
    """Says of a ListenError which setting it is about: this one is none of the addresses where clients connect."""
    try:
        yield
    except ListenError as error:
        raise ListenError(f"{name}: {error}", error.errno) from None


def _bind(listen: Listen) -> socket.socket:
    if listen.unix_socket:
        return bind_unix(listen.unix_socket, listen.unix_socket_mode, listen.unix_socket_owner, listen.backlog)
    return bind_listener(
        listen.host, listen.port, listen.backlog, ipv6_only=listen.ipv6_only, reuse_port=listen.reuse_port
    )
