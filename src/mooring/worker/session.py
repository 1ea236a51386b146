"""Sessions, as handlers see them: one small mapping per connection, kept by the gateway.

The truth is in the gateway. The worker that serves a connection has a copy, which the gateway filled before it handed
over the first event and keeps up to date; so reading there costs no message. Any other worker asks the gateway at each
look.

Values are kept packed: what is read is what every worker would read. Lists, dicts and sets are read as live ones
(mooring.app.live), and a change of one writes the value of its key. Whoever reads a key while somebody still holds what
was read before gets the same object, so that two handlers in one worker see one another's changes, as with any dict.
A change of what another worker has replaced meanwhile is refused.
"""

import asyncio
import os
import threading
from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from mooring._core.gateway_end import Outbox
from mooring._core.wire import Call
from mooring.app.live import PLAIN, SCALARS, Live, adopted, plain
from mooring.app.values import check_entry, pack, unpack
from mooring.errors import StateError
from mooring.journal import own_logger

log = own_logger("mooring.worker")

MISTAKES = 100  # keys of which it is said that what was put in was changed there

_encode = msgspec.msgpack.encode
_changes = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
_NIL = b"\xc0"

Packed = dict[str, bytes]
_EMPTY: Packed = {}  # of all connections whose session is empty; nothing is ever put into it


class Sessions:
    """The sessions of a worker's connections; `limit` is the largest one, in bytes of keys and packed values."""

    def __init__(self, outbox: Outbox, limit: int) -> None:
        self._outbox = outbox
        self._limit = limit
        self._pid = os.getpid()
        self._copies: dict[int, Packed] = {}
        self._live: WeakValueDictionary[tuple[int, str], Live] = WeakValueDictionary()
        self._given: list[tuple[str, object, bytes]] = []  # in this turn of the loop
        self._mistakes: set[str] = set()

    def begin(self, fd: int) -> None:
        """A connection was opened here: its session is empty."""
        self._copies[fd] = _EMPTY

    def learn(self, fd: int, payload: bytes, *, replace: bool) -> None:
        """The gateway tells of a session, or of changes that another worker made."""
        copy = _EMPTY if replace else self._copies.get(fd)
        if copy is None:
            return  # nothing is known of it here: whoever reads it next asks
        changes = _changes.decode(payload)
        if changes and copy is _EMPTY:
            copy = {}
        for key, value in changes.items():
            if bytes(value) == _NIL:
                copy.pop(key, None)
            else:
                copy[key] = bytes(value)
        self._copies[fd] = copy

    def forget(self, fd: int) -> None:
        """The connection is gone and its `close` handled; or another worker serves it now, and has its `close`."""
        self._copies.pop(fd, None)

    def read(self, fd: int) -> Packed:
        """What the session holds now; not to be changed. Raises StateError when the gateway does not answer."""
        gateway_end = self._outbox.find(fd)
        owner = gateway_end.table.owner(fd) if gateway_end is not None else 0
        mine = owner == self._pid
        copy = self._copies.get(fd)
        if copy is not None and (mine or gateway_end is None or not gateway_end.table.exists(fd)):
            return copy
        if gateway_end is None:
            return {}
        answer = _changes.decode(gateway_end.call(Call.SESSION, fd, b""))
        found = {key: bytes(value) for key, value in answer.items()}
        if mine:
            # it came to this worker a moment ago; what the gateway tells of it is still on its way here
            self._copies[fd] = found or _EMPTY
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
            elif copy is _EMPTY:
                self._copies[fd] = {key: value}
            else:
                copy[key] = value

    def exists(self, fd: int) -> bool:
        """Whether there is such a connection."""
        gateway_end = self._outbox.find(fd)
        return gateway_end is not None and gateway_end.table.exists(fd)

    def live(self, fd: int, key: str, packed: bytes) -> Any:
        """The value of a key as handlers see it."""
        found = self._live.get((fd, key))
        if found is not None:
            root: Any = found._owner
            if root.packed == packed:
                return found
        value = unpack(packed)
        if type(value) not in (list, dict, set, tuple):
            return value
        place = _Place(self, fd, key, packed)
        made = adopted(value, place)
        if type(made) is tuple:
            place.tuple = made
        else:
            self._live[fd, key] = made
        return made

    def watch(self, key: str, value: object, packed: bytes) -> None:
        """That object was put into a session, which has a copy. Who changes it in the same turn of the loop, behind
        that, has meant the session, and is told in the log."""
        if type(value) not in PLAIN.values() or key in self._mistakes:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a thread
            return
        self._given.append((key, value, packed))
        if len(self._given) == 1:
            loop.call_soon(self._look)

    def _look(self) -> None:
        given, self._given = self._given, []
        for key, value, packed in given:
            try:
                same = pack(value, key) == packed
            except TypeError:
                same = False
            if not same and key not in self._mistakes and len(self._mistakes) < MISTAKES:
                self._mistakes.add(key)
                log.error(
                    "what was put into a session as %.100r was changed afterwards, and the session has it as it was: "
                    "change session[%.100r] itself, or put it in again",
                    key,
                    key,
                )


class _Place:
    """Where the live objects of one value belong: the key of a session, as it was when they were read."""

    __slots__ = ("_fd", "_key", "_sessions", "lock", "packed", "tuple")

    def __init__(self, sessions: Sessions, fd: int, key: str, packed: bytes) -> None:
        self._sessions = sessions
        self._fd = fd
        self._key = key
        self.packed = packed
        self.lock = threading.RLock()
        self.tuple: Any = None

    def check(self) -> None:
        now = self._sessions.read(self._fd).get(self._key)
        if now != self.packed and (now is not None or self._sessions.exists(self._fd)):
            raise StateError(
                f"session[{self._key!r}] of connection {self._fd} was replaced or removed after this was read from it: "
                "read it again, and change that"
            )

    def keep(self, value: Any) -> None:
        packed = pack(value, f"session[{self._key!r:.100}]", "can't be kept")
        if packed != self.packed:
            self._sessions.write(self._fd, self._key, packed)
            self.packed = packed


class _Items(ItemsView[str, Any]):
    """Keys and values of one look."""

    _mapping: "Session"

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self._mapping._look()


class _Values(ValuesView[Any]):
    """The same without the keys."""

    _mapping: "Session"

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping._look())


class Session(MutableMapping[str, Any]):
    """The session of one connection. Keys are str. Values are whatever can come back as it was: bool, int of 64 bits,
    float, str, bytes, list, tuple, dict, set, frozenset, datetime, date, time, timedelta, Decimal, UUID; None inside of
    these.

    What is put in is copied. Change what you read: `session["rooms"].append("red")` is kept, at any depth.

    It can be read and written in any worker, and is still readable in the `close` handler: with what `open` wrote, even
    if the connection was gone by then. Behind `close`, writing has no effect.
    """

    __slots__ = ("_fd", "_listed", "_sessions")

    def __init__(self, sessions: Sessions, fd: int) -> None:
        self._sessions = sessions
        self._fd = fd
        self._listed: Packed = {}  # when its keys were asked for

    def __getitem__(self, key: str) -> Any:
        """Changing a list, dict or set that this gives raises what __setitem__ raises, and StateError when the value
        was replaced since."""
        packed = self._sessions.read(self._fd).get(key)
        if packed is None:
            # `dict(session)` asks for the keys, and then for each value: the connection may have ended in between
            if key not in self._listed or self._sessions.exists(self._fd):
                raise KeyError(key)
            packed = self._listed[key]
        return self._sessions.live(self._fd, key, packed)

    def __setitem__(self, key: str, value: Any) -> None:
        """TypeError for a key that is no str or a value that can't come back as it was, ValueError beyond
        session_limit."""
        packed = check_entry(key, value)
        self._sessions.write(self._fd, key, packed)
        if type(value) not in SCALARS:
            self._sessions.watch(key, value, packed)

    def __delitem__(self, key: str) -> None:
        if key not in self._sessions.read(self._fd):
            raise KeyError(key)
        self._sessions.write(self._fd, key, None)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value; if there is none, the default, as it is in the session then."""
        if key not in self:
            self[key] = default
        return self.get(key, default)  # where the connection has gone, nothing was written

    def pop(self, key: str, *default: Any) -> Any:
        """Removes a value, and gives it: a list, dict or set that belongs to no session any more."""
        try:
            value = plain(self[key])
        except KeyError:
            if default:
                return default[0]
            raise
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        key = next(iter(self), None)
        if key is None:
            raise KeyError("the session is empty")
        return key, self.pop(key)

    def clear(self) -> None:
        for key in self:
            self._sessions.write(self._fd, key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._sessions.read(self._fd)

    def __iter__(self) -> Iterator[str]:
        self._listed = dict(self._sessions.read(self._fd))
        return iter(self._listed)

    def items(self) -> ItemsView[str, Any]:
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        return _Values(self)

    def _look(self) -> Iterator[tuple[str, Any]]:
        for key, packed in list(self._sessions.read(self._fd).items()):
            yield key, self._sessions.live(self._fd, key, packed)

    def __len__(self) -> int:
        return len(self._sessions.read(self._fd))

    def __repr__(self) -> str:
        return f"<Session of connection {self._fd}: {dict(self.items())!r}>"
