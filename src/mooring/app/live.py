"""Lists, dicts and sets that are part of a session: a change of one is a change of the session.

    session["rooms"] ─── LiveList ── LiveDict ...      each knows its owner, up to a Root
                              change ──> Root.keep      which writes the whole value

A value of a session is kept packed. What is read from it is such an object: the list that it looks like, with a method
in place of each that changes it. That method lets the change happen, has the whole value written, and takes the change
back if that is refused (too large, a type that can't be kept). So it is kept, or an error where it was made; nothing
waits for the end of a handler, which threads, timers and tasks have not.

What is put in is copied, like all of a session. What is taken out (`pop`) is an ordinary list or dict again. Who still
holds a part that has been taken out or replaced since can change it no more: nothing would be kept of that.

What others make with the class of a live object, as `dataclasses.asdict` does, belongs to no session (`_owner` is not
set), and is as good as an ordinary one.
"""

import functools
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias

from mooring.errors import StateError

SCALARS: Final = frozenset({bool, int, float, str, bytes, type(None)})
"""Types whose values have nothing in them that could change."""


class Root(Protocol):
    """Where the outermost object of a value stands."""

    lock: "threading.RLock"  # for one change
    tuple: "Any"
    """The whole value if it is a tuple, which can't be live itself but can have such in it; else None."""

    def check(self) -> None:
        """Raises StateError when that place has another value by now."""

    def keep(self, value: Any) -> None:
        """Writes the whole value. Raises TypeError and ValueError for one that can't be kept."""


class LiveList(list[Any]):
    """A list of a session."""

    __slots__ = ("__weakref__", "_owner")
    _owner: "Owner"

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return list, (plain(self),)

    def _adopt(self) -> None:
        if not SCALARS.issuperset(map(type, self)):
            list.__setitem__(self, slice(None), [adopted(one, self) for one in self])

    def _restore(self, former: list[Any]) -> None:
        list.__setitem__(self, slice(None), former)


class LiveDict(dict[Any, Any]):
    """A dict of a session."""

    __slots__ = ("__weakref__", "_owner")
    _owner: "Owner"

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return dict, (plain(self),)

    fromkeys = dict.fromkeys

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """What is there, or the default as it is there then."""
        if key not in self:
            self[key] = default
        return self[key]

    def _adopt(self) -> None:
        if not SCALARS.issuperset(map(type, self.values())):
            dict.update(self, {key: adopted(one, self) for key, one in self.items()})

    def _restore(self, former: dict[Any, Any]) -> None:
        dict.clear(self)
        dict.update(self, former)


class LiveSet(set[Any]):
    """A set of a session; what is in it can't be changed."""

    __slots__ = ("_owner",)  # a set has its place for weak references already
    _owner: "Owner"

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        return set, (list(self),)

    def __repr__(self) -> str:
        return repr(set(self))

    def _adopt(self) -> None:
        pass

    def _restore(self, former: set[Any]) -> None:
        set.clear(self)
        set.update(self, former)


Live: TypeAlias = LiveList | LiveDict | LiveSet
Owner: TypeAlias = Live | Root
LIVE: Final = (LiveList, LiveDict, LiveSet)
PLAIN: Final[dict[type, type]] = {LiveList: list, LiveDict: dict, LiveSet: set}
"""Which type each of them stands for."""
_KINDS: Final[dict[type, type]] = {ordinary: live for live, ordinary in PLAIN.items()}


def adopted(value: Any, owner: Owner) -> Any:
    """The value as a part of a session: copies of its lists, dicts and sets, whose changes go to `owner`."""
    kind = type(value)
    if kind is tuple:
        return value if SCALARS.issuperset(map(type, value)) else tuple([adopted(one, owner) for one in value])
    if kind in PLAIN:
        if _owner_of(value) is owner:
            return value
        kind = PLAIN[kind]
    live = _KINDS.get(kind)
    if live is None:
        return value
    made = live(value)
    made._owner = owner
    made._adopt()
    return made


def plain(value: Any) -> Any:
    """A copy that belongs to no session."""
    kind = PLAIN.get(type(value), type(value))
    if kind is list:
        return [plain(one) for one in value]
    if kind is dict:
        return {key: plain(one) for key, one in value.items()}
    if kind is set:
        return set(value)
    if kind is tuple:
        return tuple([plain(one) for one in value])
    return value


def _owner_of(value: Live) -> "Owner | None":
    return getattr(value, "_owner", None)


def _holds(values: Iterable[Any], part: Live) -> bool:
    return any(one is part or (type(one) is tuple and _holds(one, part)) for one in values)


def _check_place(part: Live, owner: Owner) -> None:
    """Raises StateError when that owner has it no more."""
    held = True
    if isinstance(owner, LiveDict):
        held = _holds(owner.values(), part)
    elif isinstance(owner, LiveList):
        held = _holds(owner, part)
    elif not isinstance(owner, LiveSet) and owner.tuple is not None:
        held = _holds(owner.tuple, part)
    if not held:
        raise StateError(
            f"this {PLAIN[type(part)].__name__} was taken out of the session, or replaced there, after it was read: "
            "read it again, and change that"
        )


def _changing(ordinary: type, name: str) -> Callable[..., Any]:
    method = getattr(ordinary, name)

    @functools.wraps(method)
    def change(self: Live, *arguments: Any, **named: Any) -> Any:
        if _owner_of(self) is None:
            return method(self, *arguments, **named)
        path = [self]
        while isinstance(owner := path[-1]._owner, LIVE):
            path.append(owner)
        top = path[-1]
        with owner.lock:
            owner.check()
            for part in path:
                _check_place(part, part._owner)
            former = ordinary(self)
            try:
                result = method(self, *arguments, **named)
                owner.keep(top if owner.tuple is None else owner.tuple)
                self._adopt()
            except BaseException:
                self._restore(former)
                raise
        return result if result is self else plain(result)

    return change


_CHANGES: Final[dict[type, str]] = {
    LiveList: "__setitem__ __delitem__ __iadd__ __imul__ append extend insert pop remove clear sort reverse",
    LiveDict: "__setitem__ __delitem__ __ior__ update pop popitem clear",
    LiveSet: "__ior__ __iand__ __isub__ __ixor__ add remove discard pop clear update difference_update"
    " intersection_update symmetric_difference_update",
}
for _live, _names in _CHANGES.items():
    for _name in _names.split():
        setattr(_live, _name, _changing(PLAIN[_live], _name))
