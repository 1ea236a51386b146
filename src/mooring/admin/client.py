"""The other end of a control socket, for programs that are no part of the server: `mooring.connect(path)`."""

import os
import socket
import time
from typing import Any, TypedDict, Unpack

from mooring.admin import requests
from mooring.admin.requests import Request
from mooring.app.search import Sort, State
from mooring.errors import AdminError, ServerUnreachable

__all__ = ["ControlClient", "connect"]

TIMEOUT = 10.0  # seconds; longer than the server takes for what it asks its gateways


class SearchTerms(TypedDict, total=False):
    """What can be said of the connections that are wanted; see mooring.app.search.Search."""

    path: str
    address: str
    topic: str
    worker: int
    gateway: int
    state: State
    older: float
    younger: float
    idle: float
    sort: Sort
    reverse: bool
    limit: int


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
        return bool(self._ask(_push(data, fd=fd)))

    def push_user(self, user: str | int, data: str | bytes) -> None:
        """Sends one message to every connection of a user."""
        self._ask(_push(data, user=str(user)))

    def publish(self, topic: str, data: str | bytes) -> None:
        """Sends one message to every connection in a topic."""
        self._ask(_push(data, topic=topic))

    def disconnect(self, fd: int, code: int = 1000, reason: str = "") -> bool:
        """Closes a connection, a WebSocket with that code and reason; False when it is gone already."""
        return bool(self._ask(requests.Kick(fd=fd, code=code, reason=reason)))

    def disconnect_user(self, user: str | int, code: int = 1000, reason: str = "") -> int:
        """Closes every connection of a user; how many there were."""
        return int(self._ask(requests.Kick(user=str(user), code=code, reason=reason)))

    def stats(self) -> dict[str, Any]:
        """What `Server.stats()` says."""
        return self._dict(requests.Stats())

    def connections(self, user: str | int | None = None, **search: Unpack[SearchTerms]) -> list[dict[str, Any]]:
        """What is known of each connection, or of those that are wanted: `path`, `address`, `user`, `topic`, `worker`,
        `gateway`, `state`, `older`, `younger`, `idle`; in the order of `sort`, `reverse`; at most `limit`. Each is a
        dict as of ClientInfo, with `fd`, `state` by its name, `remote_ip`, `path`, `user`, `bytes_queued`, ...

        docs/control.md lists what each term means. The gateways search, so this is cheap among very many."""
        listed: list[dict[str, Any]] = self.listing(user, **search)["connections"]
        return listed

    def listing(self, user: str | int | None = None, **search: Unpack[SearchTerms]) -> dict[str, Any]:
        """The same under "connections", and under "total" how many there are."""
        return self._dict(requests.Connections(user=None if user is None else str(user), **search))

    def processes(self) -> list[dict[str, Any]]:
        """How each process is doing: `role`, `number`, `pid`, `state`, `generation`, `restarts`, `degraded`, `uptime`,
        `cpu` (seconds used), `memory` (bytes), `pulse_age` (seconds since its loop was seen to turn) and `events`
        (handlers called). At most 200."""
        listed: list[dict[str, Any]] = self._ask(requests.Processes())
        return listed

    def inspect(self, fd: int) -> dict[str, Any] | None:
        """What is known of one connection; None when it is gone."""
        found = self._ask(requests.Inspect(fd))
        return found if isinstance(found, dict) else None

    def reload(self) -> None:
        """Begins a reload, like `Server.reload()`; `stats()["tree"]` says when it is over."""
        self._ask(requests.Reload())

    def shutdown(self) -> None:
        """Begins a stop, like `Server.shutdown()`; it returns before the server has ended."""
        self._ask(requests.Stop())

    def _dict(self, request: Request) -> dict[str, Any]:
        result = self._ask(request)
        if not isinstance(result, dict):
            raise AdminError("the server gave another answer than was asked for; is it of another version?")
        return result

    def _ask(self, request: Request) -> Any:
        try:
            line = requests.encode(request)
        except (TypeError, ValueError, OverflowError) as problem:
            raise AdminError(f"that can't be asked: {problem}") from None
        if len(line) > requests.LINE_LIMIT:
            raise AdminError(f"that is too long: at most {requests.LINE_LIMIT} bytes, base64 included")
        answer = requests.decode_answer(self._converse(line))
        if not answer.ok:
            raise AdminError(answer.error)
        return answer.result

    def _converse(self, line: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talk:
            try:
                talk.settimeout(self._timeout)
                talk.connect(self._path)
            except TimeoutError:
                raise self._late() from None
            except OSError as problem:
                raise ServerUnreachable(
                    f"no server answers at {self._path}: {problem.strerror or problem}; is it running, with "
                    f"control_socket={self._path!r}, and as a user whose files you may write?"
                ) from None
            try:
                # a server that refuses answers before it has read everything, and sending fails then
                unsent = _send(talk, line)
                answer = bytearray()
                while not answer.endswith(b"\n"):
                    talk.settimeout(max(0.001, deadline - time.monotonic()))
                    part = talk.recv(1 << 16)
                    if not part:
                        raise unsent or ConnectionResetError("it has closed the connection without an answer")
                    answer += part
            except TimeoutError:
                raise self._late() from None
            except OSError as problem:
                raise ServerUnreachable(
                    f"the server at {self._path} has not answered: {problem}; it may be ending, and whether it did "
                    "what was asked is not known"
                ) from None
        return bytes(answer)

    def _late(self) -> ServerUnreachable:
        return ServerUnreachable(
            f"the server at {self._path} has not answered within {self._timeout:g} s: worker 0 does not serve, or a "
            "handler blocks it; whether it did what was asked is not known"
        )


def _send(talk: socket.socket, line: bytes) -> OSError | None:
    try:
        talk.sendall(line)
    except (BrokenPipeError, ConnectionResetError) as problem:
        return problem
    return None


def _push(
    data: str | bytes, *, fd: int | None = None, user: str | None = None, topic: str | None = None
) -> requests.Push:
    if isinstance(data, str):
        return requests.Push(fd, user, topic, text=data)
    return requests.Push(fd, user, topic, binary=bytes(memoryview(data)))


def connect(path: str | os.PathLike[str], timeout: float = TIMEOUT) -> ControlClient:
    """For other programs on the server's machine: its control socket, where the setting `control_socket` has put it.

    `timeout` in seconds is for each call. Raises ServerUnreachable when no server answers there.
    """
    if timeout <= 0:
        raise ValueError(f"timeout={timeout}: must be more than 0 seconds")
    client = ControlClient(path, timeout)
    client.stats()
    return client
