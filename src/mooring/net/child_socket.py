"""The child socket: how the supervisor and one of its children talk about processes.

Theory
    AF_UNIX SOCK_SEQPACKET: whole messages, in order, never merged, and an end of file when the other side
    is gone, whatever it died of. Which messages there are stands in messages.py; descriptors travel beside
    one as SCM_RIGHTS and belong to that message.

    Each end knows what it may hear. What is a map with a text "op", and no message of that direction, is refused:
    nothing of it counts, and the talk goes on. Whoever sends anything else can't be talked to.

    A send never blocks and never loses order: what the kernel does not take now waits in an outbox (its
    descriptors duplicated, so that the caller may close its own at once); `pending` tells the owner to
    wait for writability and call `flush`. The outbox is bounded: a peer that never reads is an error.

    Truncation is an error, not a short message: a cut map can't be trusted, and a cut list of descriptors
    would silently leave one end of a channel open.

    The kernel also cuts the list when the receiver has no descriptors left, and a gateway may run out of them because
    of strangers that connect. So whoever must receive some keeps a reserve: it is given up for the moment of receiving.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from mooring.errors import MooringError
from mooring.net.messages import ToChild, ToSupervisor, op_of, to_child, to_supervisor

MAX_MESSAGE = 65536  # bytes; the longest message of the contract has a few hundred
MAX_DESCRIPTORS = 16  # per message; the kernel's own limit is 253 (SCM_MAX_FD)
MAX_PENDING = 4096  # messages waiting in the outbox; a reload of 256 workers queues 512

Heard = TypeVar("Heard")

# The kernel is out of room for the moment, not the peer gone: the message waits in the outbox.
RESERVE = 24  # descriptors: those of a few links, or of one longest message

_BUSY = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})


class ChildSocketError(MooringError):
    """A child message that breaks the rules: too long, cut, not a map with an "op", or never read."""


class MessageRefused(MooringError):
    """A child message that stands in no table, or has other fields than its type; `str()` names it and says why."""


class ChildSocket(Generic[Heard]):
    """One end of a child socket. Not for several threads."""

    __slots__ = ("_decoder", "_outbox", "_reserve", "_reserved", "_socket")

    def __init__(self, fd: int, decoder: msgspec.msgpack.Decoder[Heard]) -> None:
        """Take over the descriptor `fd`: made non-blocking and not inheritable, closed by `close()`. `decoder`: of what
        may be heard at this end, see messages.py."""
        self._decoder = decoder
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._socket.set_inheritable(False)
        self._outbox: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._reserve = 0
        self._reserved: list[int] = []

    @staticmethod
    def pair() -> tuple[ChildSocket[ToSupervisor], ChildSocket[ToChild]]:
        """The supervisor's end and the child's. Raises OSError when the process has no descriptors left."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return ChildSocket(ours.detach(), to_supervisor), ChildSocket(theirs.detach(), to_child)

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return self._socket.fileno()

    @property
    def pending(self) -> int:
        """Messages that wait for room: when not 0, call `flush()` once the socket is writable."""
        return len(self._outbox)

    def send(self, message: ToChild | ToSupervisor, fds: Sequence[int] = ()) -> None:
        """Send one message. The descriptors stay the caller's, who may close them on return.

        Raises ChildSocketError (too long, too many descriptors, a peer that never reads) and OSError
        (BrokenPipeError, ConnectionResetError: the peer is gone).
        """
        data = msgspec.msgpack.encode(message)
        if len(data) > MAX_MESSAGE or len(fds) > MAX_DESCRIPTORS:
            raise ChildSocketError(
                f"child message {op_of(message)!r} of {len(data)} bytes and {len(fds)} descriptors: "
                f"at most {MAX_MESSAGE} and {MAX_DESCRIPTORS} are allowed"
            )
        if self._outbox or not self._write(data, fds):
            if len(self._outbox) >= MAX_PENDING:
                raise ChildSocketError(f"the peer left {MAX_PENDING} child messages unread")
            self._outbox.append((data, _duplicates(fds)))

    def flush(self) -> bool:
        """Send what waits; True when nothing waits any more. Raises OSError when the peer is gone."""
        while self._outbox:
            data, fds = self._outbox[0]
            if not self._write(data, fds):
                return False
            self._outbox.popleft()
            close_all(fds)
        return True

    def _write(self, data: bytes, fds: Sequence[int]) -> bool:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except OSError as problem:
            if problem.errno in _BUSY:
                return False
            raise
        return True

    def reserve(self, count: int = RESERVE) -> None:
        """Hold so many descriptors back for `receive`, as far as there are any."""
        self._reserve = count
        self._refill()

    def _refill(self) -> None:
        try:
            while len(self._reserved) < self._reserve:
                self._reserved.append(os.eventfd(0, os.EFD_CLOEXEC))
        except OSError:
            pass  # none left: the next call tries again

    def receive(self) -> tuple[Heard, list[int]] | None:
        """The next message and its descriptors, which are the caller's to close; None at the end of file.

        Raises BlockingIOError when there is none yet, MessageRefused for one that is not understood, and
        ChildSocketError for one that breaks the rules (descriptors are closed; the next one can still be received).
        """
        close_all(self._reserved)
        self._reserved.clear()
        try:
            return self._receive()
        finally:
            self._refill()

    def _receive(self) -> tuple[Heard, list[int]] | None:
        size = array.array("i").itemsize * MAX_DESCRIPTORS
        # SCM_RIGHTS is outside PEP 446: without this flag received descriptors would be inherited.
        flags = socket.MSG_CMSG_CLOEXEC
        try:
            data, rights, state, _ = self._socket.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(size), flags)
        except ConnectionResetError:
            # The peer ended with messages of ours unread. The kernel reports this once and *before* what
            # the peer had sent; its last words are still in the queue.
            data, rights, state, _ = self._socket.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(size), flags)
        fds = array.array("i")
        for level, kind, content in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        try:
            if state & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ChildSocketError(
                    "a child message was cut: it is too long, has too many descriptors, or there are none left"
                )
            if not data:
                close_all(fds)
                return None
            return decode(self._decoder, data), list(fds)
        except MooringError:
            close_all(fds)
            raise

    def hang_up(self) -> None:
        """The peer's process has ended. What it sent can still be received, and then the end of file; nothing is taken
        from others who have its end."""
        with suppress(OSError):  # closed on either side
            self._socket.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Forget what waits: the peer is gone. What it sent can still be received."""
        while self._outbox:
            close_all(self._outbox.popleft()[1])

    def close(self) -> None:
        """Close the socket and forget what waits. May be called twice."""
        self.drop()
        self._reserve = 0
        close_all(self._reserved)
        self._reserved.clear()
        self._socket.close()


def decode(decoder: msgspec.msgpack.Decoder[Heard], data: bytes) -> Heard:
    """The message. Raises MessageRefused or ChildSocketError."""
    try:
        try:
            return decoder.decode(data)
        except msgspec.ValidationError as problem:
            named = msgspec.msgpack.decode(data)
            if isinstance(named, dict) and isinstance(op := named.get("op"), str):
                raise MessageRefused(f"the child message {op[:64]!r} is refused: {problem}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ChildSocketError("a child message is not msgpack") from None
    raise ChildSocketError('a child message is not a map with an "op"')


def _duplicates(fds: Sequence[int]) -> tuple[int, ...]:
    made: list[int] = []
    try:
        for fd in fds:
            made.append(os.dup(fd))
    except OSError:
        close_all(made)
        raise
    return tuple(made)


def close_all(fds: Sequence[int]) -> None:
    """Descriptors that came beside a message, and nobody wants."""
    for fd in fds:
        os.close(fd)
