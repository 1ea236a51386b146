"""What can be asked on a control socket, and what one exchange is, without a socket: both clients are made of this.

A call is a request and what becomes of its result. An `Exchange` is one call on its way: the line to be sent, and the
bytes of the answer as they come. Who carries the bytes, waiting or in an event loop, has the errors of here, too.
"""

import os
import socket
import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from mooring.admin import requests
from mooring.admin.requests import Request
from mooring.app.search import Sort, State
from mooring.errors import AdminError, ServerUnreachable

T = TypeVar("T")

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid


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


class Call(Generic[T]):
    """A request; `made(result)` is what the caller is given."""

    def __init__(self, request: Request, made: Callable[[Any], T]) -> None:
        self.request = request
        self.made = made


def push(fd: int, data: str | bytes) -> Call[bool]:
    return Call(_push(data, fd=fd), bool)


def push_user(user: str | int, data: str | bytes) -> Call[None]:
    return Call(_push(data, user=str(user)), _nothing)


def publish(topic: str, data: str | bytes) -> Call[None]:
    return Call(_push(data, topic=topic), _nothing)


def disconnect(fd: int, code: int, reason: str) -> Call[bool]:
    return Call(requests.Kick(fd=fd, code=code, reason=reason), bool)


def disconnect_user(user: str | int, code: int, reason: str) -> Call[int]:
    return Call(requests.Kick(user=str(user), code=code, reason=reason), int)


def stats() -> Call[dict[str, Any]]:
    return Call(requests.Stats(), _a_dict)


def listing(user: str | int | None, **search: Unpack[SearchTerms]) -> Call[dict[str, Any]]:
    return Call(requests.ListConnections(user=None if user is None else str(user), **search), _a_dict)


def processes() -> Call[list[dict[str, Any]]]:
    return Call(requests.Processes(), _a_list)


def inspect(fd: int) -> Call[dict[str, Any] | None]:
    return Call(requests.Inspect(fd), lambda found: found if isinstance(found, dict) else None)


def tail(
    cause: str | Iterable[str], user: str | int | None, path: str | None, listener: int | None, code: int | None
) -> Call[None]:
    causes = [cause] if isinstance(cause, str) else list(cause)
    who = None if user is None else str(user)
    return Call(requests.Tail(cause=causes, user=who, path=path, listener=listener, code=code), _nothing)


def reload() -> Call[None]:
    return Call(requests.Reload(), _nothing)


def shutdown() -> Call[None]:
    return Call(requests.Stop(), _nothing)


def _push(
    data: str | bytes, *, fd: int | None = None, user: str | None = None, topic: str | None = None
) -> requests.Push:
    if isinstance(data, str):
        return requests.Push(fd, user, topic, text=data)
    return requests.Push(fd, user, topic, binary=bytes(memoryview(data)))


def _nothing(_result: Any) -> None:
    return None


def _a(kind: type[T], result: Any) -> T:
    if not isinstance(result, kind):
        raise AdminError("the server gave another answer than was asked for; is it of another version?")
    return result


_a_dict: Callable[[Any], dict[str, Any]] = partial(_a, dict)
_a_list: Callable[[Any], list[dict[str, Any]]] = partial(_a, list)


class Exchange(Generic[T]):
    """One call on a connection of its own. Raises AdminError for what can't be asked."""

    def __init__(self, call: Call[T], path: str, timeout: float) -> None:
        self._call = call
        self._path = path
        self._timeout = timeout
        self._answer = bytearray()
        self.unsent: OSError | None = None
        """Why the line could not be sent: a server that refuses may answer before it has read everything."""
        try:
            self.line = requests.encode(call.request)
        except (TypeError, ValueError, OverflowError) as problem:
            raise AdminError(f"that can't be asked: {problem}") from None
        if len(self.line) > requests.LINE_LIMIT:
            raise AdminError(f"that is too long: at most {requests.LINE_LIMIT} bytes, base64 included")

    def check(self, talk: socket.socket) -> None:
        """Once connected: raises AdminError when another local user listens there, as one can who may write in that
        folder while no server runs. What is asked may be nobody else's business, nor is the answer to be believed."""
        own, other = os.geteuid(), peer_uid(talk)
        if other not in (0, own) and own != 0:  # root may ask everybody
            raise AdminError(
                f"{self._path} was made by another user, uid {other}, not by you, uid {own}, or root: nothing was asked"
            )

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._answer.endswith(b"\n")

    def feed(self, part: bytes) -> None:
        """Takes what has come; nothing: the server has closed. Raises OSError when that is too early."""
        if not part:
            raise self.unsent or ConnectionResetError("it has closed the connection without an answer")
        self._answer += part

    def result(self) -> T:
        """Once it is done. Raises AdminError when the server has refused."""
        answer = requests.decode_answer(bytes(self._answer))
        if not answer.ok:
            raise AdminError(answer.error)
        return self._call.made(answer.result)

    def unreachable(self, problem: OSError) -> ServerUnreachable:
        """There is nobody to connect to."""
        return ServerUnreachable(
            f"no server answers at {self._path}: {problem.strerror or problem}; is it running, with "
            f"control_socket={self._path!r}, and as a user whose files you may write?"
        )

    def unanswered(self, problem: OSError) -> ServerUnreachable:
        """It broke on the way."""
        return ServerUnreachable(
            f"the server at {self._path} has not answered: {problem}; it may be ending, and whether it did "
            "what was asked is not known"
        )

    def late(self) -> ServerUnreachable:
        """No answer in time."""
        return ServerUnreachable(
            f"the server at {self._path} has not answered within {self._timeout:g} s: worker 0 does not serve, or a "
            "handler blocks it; whether it did what was asked is not known"
        )


class Tailing:
    """The answer that has many lines: close records as they come. Raises AdminError for one that refuses."""

    def __init__(self) -> None:
        self._rest = b""
        self.begun = False
        """The server has said that it takes part; before, it might still refuse."""

    def feed(self, part: bytes) -> list[dict[str, Any]]:
        """What has come; a dict `{"missed": n}` ahead of records of which n are missing."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        found: list[dict[str, Any]] = []
        for line in lines:
            answer = requests.decode_answer(line)
            if not answer.ok:
                raise AdminError(answer.error)
            self.begun = True
            told = {} if answer.result is None else _a_dict(answer.result)
            if told.get("missed"):
                found.append({"missed": told["missed"]})
            found += told.get("records", ())
        return found


def peer_uid(talk: socket.socket) -> int:
    """Whose process is at the other end of a Unix socket: who has connected, or who listens."""
    uid: int = _CREDENTIALS.unpack(talk.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[1]
    return uid
