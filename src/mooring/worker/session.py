"""Sessions, as handlers see them: one small mapping per connection, kept by the gateway.

The truth is in the gateway. The worker that serves a connection has a copy, which the gateway filled before it handed
over the first event and keeps up to date; so reading there costs no message. Any other worker asks the gateway at each
look. Values are kept packed: what is read is what every worker would read, and changing it in place changes nothing.
"""

import os
from collections.abc import Iterator, MutableMapping
from typing import Any

import msgspec

from mooring._core.outlet import Outbox
from mooring._core.wire import Call

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.decode
_changes = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_NIL = b"\xc0"

Packed = dict[str, bytes]


class Sessions:
    """The sessions of a worker's connections; `limit` is the largest one, in bytes of keys and packed values."""

    def __init__(self, outbox: Outbox, limit: int) -> None:
        self._outbox = outbox
        self._limit = limit
        self._pid = os.getpid()
        self._copies: dict[int, Packed] = {}

    def begin(self, fd: int) -> None:
        """A connection was opened here: its session is empty."""
        self._copies[fd] = {}

    def learn(self, fd: int, payload: bytes, *, replace: bool) -> None:
        """The gateway tells of a session, or of changes that another worker made."""
        copy = {} if replace else self._copies.get(fd, {})
        for key, value in _changes.decode(payload).items():
            if bytes(value) == _NIL:
                copy.pop(key, None)
            else:
                copy[key] = bytes(value)
        self._copies[fd] = copy

    def forget(self, fd: int) -> None:
        """The connection is gone and its `close` handled."""
        self._copies.pop(fd, None)

    def read(self, fd: int) -> Packed:
        """What the session holds now; not to be changed. Raises StateError when the gateway does not answer."""
        outlet = self._outbox.find(fd)
        owner = outlet.table.owner(fd) if outlet is not None else 0
        mine = owner == self._pid
        copy = self._copies.get(fd)
        if copy is not None and (mine or outlet is None or not outlet.table.exists(fd)):
            return copy
        if outlet is None:
            return {}
        answer = _changes.decode(outlet.call(Call.SESSION, fd, b""))
        found = {key: bytes(value) for key, value in answer.items()}
        if mine:
            # it came to this worker a moment ago; what the gateway tells of it is still on its way here
            self._copies[fd] = found
        return found

    def write(self, fd: int, key: str, value: bytes | None) -> None:
        """Sets one entry, or removes it (None). Raises ValueError when the session would be too large."""
        held = self.read(fd)
        if value is not None:
            size = sum(len(k.encode()) + len(v) for k, v in held.items() if k != key) + len(key.encode()) + len(value)
            if size > self._limit:
                raise ValueError(
                    f"the session of connection {fd} would have {size} bytes and session_limit is {self._limit}: "
                    "keep large values in a database and their key here"
                )
        entry = [key] if value is None else [key, msgspec.Raw(value)]
        self._outbox.session(fd, _encode(entry))
        # also when the connection is gone by now: its `close` handler, which is yet to come, relies on it
        copy = self._copies.get(fd)
        if copy is not None:
            if value is None:
                copy.pop(key, None)
            else:
                copy[key] = value


class Session(MutableMapping[str, Any]):
    """The session of one connection. Keys are str, values what msgpack can carry: None aside, plain Python values.

    It can be read and written in any worker, and is still readable in the `close` handler: with what `open` wrote, even
    if the connection was gone by then. Behind `close`, writing has no effect.
    """

    __slots__ = ("_fd", "_sessions")

    def __init__(self, sessions: Sessions, fd: int) -> None:
        self._sessions = sessions
        self._fd = fd

    def __getitem__(self, key: str) -> Any:
        return _decode(self._sessions.read(self._fd)[key])

    def __setitem__(self, key: str, value: Any) -> None:
        """TypeError for a key that is no str or a value that msgpack can't carry, ValueError beyond session_limit."""
        if not isinstance(key, str):
            raise TypeError(f"a key of a session is a str, not {key!r}")
        try:
            packed = _encode(value)
        except OverflowError as error:
            raise TypeError(f"msgpack cannot carry it: {error}") from None
        if packed == _NIL:
            raise TypeError("a session does not keep None: delete the key instead")
        self._sessions.write(self._fd, key, packed)

    def __delitem__(self, key: str) -> None:
        if key not in self._sessions.read(self._fd):
            raise KeyError(key)
        self._sessions.write(self._fd, key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._sessions.read(self._fd)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._sessions.read(self._fd)))

    def __len__(self) -> int:
        return len(self._sessions.read(self._fd))

    def __repr__(self) -> str:
        return f"<Session of connection {self._fd}: {dict(self)!r}>"
