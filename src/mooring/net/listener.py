"""TCP listeners: bound once by the supervisor, handed on to every process that owns connections.

One listening socket is shared by all gateways and all generations (the kernel gives each accepted client
to one of them). SO_REUSEPORT is not used for that: with it each process would have its own accept queue, and
the clients that wait in the queue of a process that leaves are lost; a shared socket loses none. It is there
for another server on the same port, who asks for it.

"::" is every address of both families, unless `ipv6_only`; any other IPv6 address is IPv6 only.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from mooring.errors import MooringError
from mooring.net.holder import holder_of

_SO_MEMINFO = 55  # not in the socket module
# so that whoever starts the server can tell them from a fault of the application (1) and of the command line (2)
EXIT_CODES = {errno.EADDRINUSE: errno.EADDRINUSE, errno.EACCES: errno.EACCES, errno.EPERM: errno.EACCES}


class ListenError(MooringError):
    """An address that can't be listened on; the message names it and says what to do.

    `errno` is the system's error number (EADDRINUSE, EACCES, ...), 0 when the name could not be resolved.
    `exit_code` is what a server ends with that can't start for this reason: 98 (EADDRINUSE), 13 (EACCES, also for
    EPERM), else 1.
    """

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.errno = number
        self.exit_code = EXIT_CODES.get(number, 1)


def address_text(address: Any) -> str:
    """`host:port` of a socket address as `getsockname()` gives it; IPv6 hosts stand in brackets; `unix:PATH`."""
    if isinstance(address, bytes):  # in no file system
        return f"unix:@{address[1:].decode(errors='replace')}"
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_listener(
    host: str, port: int, backlog: int = 2048, *, ipv6_only: bool = False, reuse_port: bool = False
) -> socket.socket:
    """Bind and listen; the socket is non-blocking and not inheritable.

    `host` is an IPv4 or IPv6 address or a name (its first address is taken); "0.0.0.0" means every IPv4
    address, "::" every IPv6 *and* IPv4 address, or with `ipv6_only` every IPv6 address. `port` 0 lets the kernel
    choose. `backlog` is the number of clients that may wait to be accepted (the kernel limits it to
    net.core.somaxconn). With `reuse_port` other servers of this user can bind the same port, if they ask for it too.

    Raises ListenError.
    """
    wanted = address_text((host, port))
    if not 0 <= port <= 65535:  # getaddrinfo takes 65536 for 0
        raise ListenError(f"cannot listen on {wanted}: a port is a number from 0 to 65535")
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, ValueError):  # a ValueError is, among others, a UnicodeError
        raise ListenError(
            f"cannot listen on {wanted}: {host!r} is neither an IP address nor a name that resolves; "
            "use 127.0.0.1, 0.0.0.0, :: or an address of this machine"
        ) from None
    family, kind, protocol, _, address = found[0]
    listener = None
    try:
        listener = socket.socket(family, kind, protocol)
        # A restarted server must be able to bind while old connections are still in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Said explicitly, because the default is a setting of the machine (net.ipv6.bindv6only).
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ipv6_only or address[0] != "::")
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as problem:
        if listener is not None:
            listener.close()
        number = problem.errno or 0
        raise ListenError(f"cannot listen on {wanted}: {_advice(problem, number, address)}", number) from None
    return listener


def overflows(listener: socket.socket) -> int:
    """How many clients the kernel has turned away since the start, because the queue of those to accept was full."""
    if listener.fileno() < 0:
        return 0
    return int(struct.unpack("=9I", listener.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[8])  # SK_MEMINFO_DROPS


def _advice(problem: OSError, number: int, address: Any) -> str:
    if number == errno.EADDRINUSE:
        host, port = address[:2]
        holder = holder_of(host, port)
        if holder:
            return f"the port is in use by {holder}; stop that process or choose another port"
        return (
            "the port is in use; stop the process that holds it "
            f"(as root `ss -ltnp 'sport = :{port}'` names it) or choose another port"
        )
    if number in (errno.EACCES, errno.EPERM):
        return "no permission; choose a port from 1024 up, or give the process the capability CAP_NET_BIND_SERVICE"
    if number == errno.EADDRNOTAVAIL:
        return "this machine has no such address; use one of its own (`ip address` lists them), 0.0.0.0 or ::"
    if number == errno.EAFNOSUPPORT:
        return "this machine does not speak that address family; use an IPv4 address such as 0.0.0.0"
    return problem.strerror or str(problem)
