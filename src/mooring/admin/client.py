"""The other end of a control socket, for programs that are no part of the server: `mooring.connect(path)`."""

import os
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, Unpack

from mooring.admin import calls
from mooring.admin.calls import Call, Exchange, SearchTerms, Tailing
from mooring.errors import ServerUnreachable

AGAIN = 0.1  # seconds until a server that went away is asked again
TIMEOUT = 10.0  # seconds; longer than the server takes for what it asks its gateways
T = TypeVar("T")


class ControlClient:
    """What can be asked of a running server; made by `mooring.connect`.

    Each call is a connection of its own, so it may be kept for long, over reloads and restarts of the server, and used
    in several threads. All calls raise AdminError when the server refuses, with its reason, and ServerUnreachable when
    there is none or no answer comes in time; then nobody knows whether it was carried out.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = TIMEOUT) -> None:
        self._path = os.path.abspath(path)
        self._timeout = timeout

    @property
    def path(self) -> str:
        """Of the control socket."""
        return self._path

    def push(self, fd: int, data: str | bytes) -> bool:
        """Sends one message, a str as text and bytes as binary; False when the connection is no open WebSocket."""
        return self._ask(calls.push(fd, data))

    def push_user(self, user: str | int, data: str | bytes) -> None:
        """Sends one message to every connection of a user."""
        self._ask(calls.push_user(user, data))

    def publish(self, topic: str, data: str | bytes) -> None:
        """Sends one message to every connection in a topic."""
        self._ask(calls.publish(topic, data))

    def disconnect(self, fd: int, code: int = 1000, reason: str = "") -> bool:
        """Closes a connection, a WebSocket with that code and reason; False when it is gone already."""
        return self._ask(calls.disconnect(fd, code, reason))

    def disconnect_user(self, user: str | int, code: int = 1000, reason: str = "") -> int:
        """Closes every connection of a user; how many there were."""
        return self._ask(calls.disconnect_user(user, code, reason))

    def stats(self) -> dict[str, Any]:
        """What `Server.stats()` says."""
        return self._ask(calls.stats())

    def connections(self, user: str | int | None = None, **search: Unpack[SearchTerms]) -> list[dict[str, Any]]:
        """What is known of each connection, or of those that are wanted: `path`, `address`, `user`, `topic`, `worker`,
        `gateway`, `state`, `older`, `younger`, `idle`; in the order of `sort`, `reverse`; at most `limit`. Each is a
        dict as of ClientInfo, with `fd`, `state` by its name, `remote_ip`, `path`, `user`, `bytes_queued`, ...

        docs/control.md lists what each term means. The gateways search, so this is cheap among very many."""
        listed: list[dict[str, Any]] = self.listing(user, **search)["connections"]
        return listed

    def listing(self, user: str | int | None = None, **search: Unpack[SearchTerms]) -> dict[str, Any]:
        """The same under "connections", and under "total" how many there are."""
        return self._ask(calls.listing(user, **search))

    def processes(self) -> list[dict[str, Any]]:
        """How each process is doing: `role`, `number`, `pid`, `state`, `generation`, `restarts`, `degraded`, `uptime`,
        `cpu` (seconds used), `memory` (bytes), `pulse_age` (seconds since its loop was seen to turn) and `events`
        (handlers called). At most 200."""
        return self._ask(calls.processes())

    def inspect(self, fd: int) -> dict[str, Any] | None:
        """What is known of one connection; None when it is gone."""
        return self._ask(calls.inspect(fd))

    def tail(
        self,
        cause: str | Iterable[str] = (),
        *,
        user: str | int | None = None,
        path: str | None = None,
        listener: int | None = None,
        code: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Close records as connections end, those that fit: each a dict as of CloseRecord. They are kept by listeners
        with `close_records`. `{"missed": n}` stands where the server left some out, because they came faster than they
        were taken.

        It does not end by itself. When the server goes away it is asked again for as long as `timeout`, at a reload for
        instance; raises ServerUnreachable then, and AdminError when the server refuses."""
        call = calls.tail(cause, user, path, listener, code)
        deadline = 0.0  # none has answered yet
        while True:
            tailing = Tailing()
            try:
                yield from self._tail(call, tailing)
            except ServerUnreachable:
                if not (tailing.begun or time.monotonic() < deadline):
                    raise
            if tailing.begun:
                deadline = time.monotonic() + self._timeout
            time.sleep(AGAIN)

    def _tail(self, call: Call[None], tailing: Tailing) -> Iterator[dict[str, Any]]:
        exchange = Exchange(call, self._path, self._timeout)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talk:
            self._open(talk, exchange)
            try:
                _send(talk, exchange)
                while part := talk.recv(1 << 16):
                    yield from tailing.feed(part)
                    if tailing.begun:
                        talk.settimeout(None)
            except TimeoutError:
                raise exchange.late() from None
            except OSError as problem:
                raise exchange.unanswered(problem) from None
        if not tailing.begun:
            raise exchange.unanswered(ConnectionResetError("it has closed the connection without an answer"))

    def reload(self) -> None:
        """Begins a reload, like `Server.reload()`; `stats()["tree"]` says when it is over."""
        self._ask(calls.reload())

    def shutdown(self) -> None:
        """Begins a stop, like `Server.shutdown()`; it returns before the server has ended."""
        self._ask(calls.shutdown())

    def _ask(self, call: Call[T]) -> T:
        exchange = Exchange(call, self._path, self._timeout)
        deadline = time.monotonic() + self._timeout
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talk:
            self._open(talk, exchange)
            try:
                _send(talk, exchange)
                while not exchange.done:
                    talk.settimeout(max(0.001, deadline - time.monotonic()))
                    exchange.feed(talk.recv(1 << 16))
            except TimeoutError:
                raise exchange.late() from None
            except OSError as problem:
                raise exchange.unanswered(problem) from None
        return exchange.result()

    def _open(self, talk: socket.socket, exchange: Exchange[Any]) -> None:
        try:
            talk.settimeout(self._timeout)
            talk.connect(self._path)
        except TimeoutError:
            raise exchange.late() from None
        except OSError as problem:
            raise exchange.unreachable(problem) from None
        exchange.check(talk)


def _send(talk: socket.socket, exchange: Exchange[Any]) -> None:
    try:
        talk.sendall(exchange.line)
    except (BrokenPipeError, ConnectionResetError) as problem:
        exchange.unsent = problem


def connect(path: str | os.PathLike[str], timeout: float = TIMEOUT) -> ControlClient:
    """For other programs on the server's machine: its control socket, where the setting `control_socket` has put it.

    `timeout` in seconds is for each call. Raises ServerUnreachable when no server answers there. In a coroutine use
    connect_async().
    """
    if timeout <= 0:
        raise ValueError(f"timeout={timeout}: must be more than 0 seconds")
    client = ControlClient(path, timeout)
    client.stats()
    return client
