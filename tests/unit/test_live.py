"""Live lists, dicts and sets, the parts of a session: whatever changes them is kept, or an error and taken back."""

import copy
import dataclasses
import json
import pickle
import threading
from typing import Any

import msgspec
import pytest

from mooring.app.live import LiveDict, LiveList, LiveSet, adopted
from mooring.app.values import pack, unpack
from mooring.errors import StateError
from support.values import shape


class Root:
    """The key of a session, as far as live objects know it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tuple: Any = None
        self.kept: list[Any] = []
        self.stale = False

    def check(self) -> None:
        if self.stale:
            raise RuntimeError("stale")

    def keep(self, value: Any) -> None:
        packed = pack(value, "it")
        if len(packed) > 200:
            raise ValueError("too large")
        self.kept.append(unpack(packed))


CHANGES: dict[str, tuple[Any, list[str]]] = {
    "list": (
        [3, 1, 2, [0]],
        [
            *["v.append({'a': [1]})", "v.extend([{1}, ()])", "v.insert(0, [1])", "v.pop()", "v.pop(0)", "v.remove(1)"],
            *[
                "v.clear()",
                "v.reverse()",
                "v.sort(key=repr)",
                "v.__setitem__(0, [5])",
                "v[3].append(9)",
            ],
            *["v.__setitem__(slice(0, 2), [[7], 8])", "v.__delitem__(0)", "v.__iadd__([1])", "v.__imul__(2)"],
            *["[v.append([]), v[-1].append(1)]", "v.copy().append(1)", "v.index(1)", "v + [1]", "[x for x in v]"],
        ],
    ),
    "dict": (
        {"a": 1, "b": [1, {"c": 2}]},
        [
            *["v.__setitem__('x', [1])", "v.__delitem__('a')", "v.update(a=[2], z={})", "v.pop('b')", "v.popitem()"],
            *[
                "v.clear()",
                "v.setdefault('n', []).append(1)",
                "v.setdefault('b', []).append(1)",
                "v['b'][1].update(d=3)",
            ],
            *["v.__ior__({'q': (1,)})", "v.copy().clear()", "v.get('b').append(5)", "list(v.values())[1].clear()"],
            *["v | {'w': 1}", "[v.update(m={}), v['m'].update(k=1)]", "v.pop('none', None)"],
        ],
    ),
    "set": (
        {1, 2, 3},
        [
            *["v.add(4)", "v.discard(1)", "v.remove(2)", "v.clear()", "v.update({7}, [8])", "v.difference_update({1})"],
            *[
                "v.intersection_update({1})",
                "v.symmetric_difference_update({1, 9})",
                "v.__ior__({6})",
                "v.__iand__({1})",
            ],
            *["v.__isub__({1})", "v.__ixor__({1, 5})", "v.copy().add(5)", "v | {5}", "v.pop()"],
        ],
    ),
}


@pytest.mark.parametrize(
    ("start", "change"), [(start, change) for start, changes in CHANGES.values() for change in changes]
)
def test_a_change_of_a_live_one_is_kept(start: Any, change: str):
    """Whatever the change, the session then has what an ordinary object would be; and its methods give the same."""
    root = Root()
    live, ordinary = adopted(start, root), unpack(pack(start, "it"))
    given, expected = eval(change, {"v": live}), eval(change, {"v": ordinary})
    assert shape(unpack(pack(live, "it"))) == shape(ordinary)
    assert repr(live) == repr(ordinary)
    assert given == expected
    if shape(ordinary) != shape(start):
        assert shape(root.kept[-1]) == shape(ordinary), "it is live and not kept"
    else:
        assert all(shape(kept) == shape(start) for kept in root.kept)


def test_every_method_that_changes_is_known():
    """One that a future Python adds to list, dict or set would change the object and not the session."""
    reading = {
        list: "copy count index __add__ __mul__ __rmul__ __contains__ __eq__ __ge__ __getitem__ __gt__ __iter__ __le__"
        " __len__ __lt__ __ne__ __reversed__",
        dict: "copy get items keys values setdefault __contains__ __eq__ __ge__ __getitem__ __gt__ __iter__"
        " __le__ __len__ __lt__ __ne__ __or__ __reversed__ __ror__",
        set: "copy difference intersection isdisjoint issubset issuperset symmetric_difference union __and__"
        " __contains__ __eq__ __ge__ __gt__ __iter__ __le__ __len__ __lt__ __ne__ __or__ __rand__ __ror__ __rsub__"
        " __rxor__ __sub__ __xor__",
    }
    common = set(dir(object)) | {"__class_getitem__", "__sizeof__"}
    for live, ordinary in ((LiveList, list), (LiveDict, dict), (LiveSet, set)):
        replaced = {name for name in vars(live) if hasattr(ordinary, name)} - common
        assert replaced | set(reading[ordinary].split()) >= set(dir(ordinary)) - common, ordinary
        assert not (replaced - {"setdefault", "fromkeys"}) & set(reading[ordinary].split())


@pytest.mark.parametrize("start", [[1], {"a": 1}, {1}])
def test_what_is_refused_is_taken_back(start: Any):
    root = Root()
    live: Any = adopted(start, root)
    tries = {
        list: ["v.append(object())", "v.extend(['x'] * 300)", "v.append(v)"],
        dict: ["v.update(b=object())", "v.update(b='x' * 300)", "v.update(b=v)", "v.setdefault('b', object())"],
        set: ["v.add(print)", "v.update(range(1000))"],
    }[type(start)]
    for code in tries:
        with pytest.raises((TypeError, ValueError)):
            eval(code, {"v": live})
        assert (live, root.kept) == (start, [])
    root.stale = True
    with pytest.raises(RuntimeError, match="stale"):
        live.clear()
    assert live == start


def test_what_is_put_in_is_copied_and_what_is_taken_out_is_ordinary():
    root = Root()
    live: Any = adopted({"a": [1]}, root)
    mine: list[int] = []
    live["b"] = mine
    mine.append(1)
    assert live["b"] == []
    out = live.pop("a")
    assert type(out) is list
    kept = len(root.kept)
    out.append(2)
    assert len(root.kept) == kept
    other = Root()
    elsewhere: Any = adopted([], other)
    elsewhere.append(live)  # of one session into another
    elsewhere[0]["b"].append(5)
    assert (other.kept[-1], live) == ([{"b": [5]}], {"b": []})


def test_a_tuple_has_live_ones_in_it():
    root = Root()
    root.tuple = value = adopted((1, [2], ({3: []},)), root)
    value[1].append(4)
    value[2][0][3].append(5)
    assert root.kept[-1] == (1, [2, 4], ({3: [5]},))


@pytest.mark.parametrize(
    ("start", "part", "gone"),
    [
        ({"a": [1]}, "v['a']", "v.pop('a')"),
        ({"a": {"b": [1]}}, "v['a']['b']", "v.update(a={'b': [1]})"),
        ([[1], [2]], "v[0]", "v.pop(0)"),
        ([[1], [2]], "v[0]", "v.__setitem__(0, [1])"),
        ([({1},)], "v[0][0]", "v.__setitem__(0, ({1},))"),
        ([[{"a": 1}]], "v[0][0]", "v.clear()"),
    ],
)
def test_a_part_that_was_taken_out_is_changed_no_more(start: Any, part: str, gone: str):
    """Like the value of a key: nothing would be kept of the change, so it is refused."""
    root = Root()
    live: Any = adopted(start, root)
    held = eval(part, {"v": live})
    eval(gone, {"v": live})
    before, kept = copy.copy(held), len(root.kept)
    for change in (held.clear, lambda: held.__ior__(held) if not isinstance(held, list) else held.__iadd__([1])):
        with pytest.raises(StateError, match="taken out of the session, or replaced there"):
            change()
    assert (held, len(root.kept)) == (before, kept)


def test_a_part_that_was_moved_is_where_it_is_now():
    root = Root()
    live: Any = adopted([[1], [2]], root)
    one = live[0]
    live.reverse()
    live.sort(key=lambda part: part[0], reverse=True)
    live[0], live[1] = live[1], live[0]
    one.append(3)
    assert root.kept[-1] == [[1, 3], [2]]
    moved = live[1]
    del live[1]
    live.append(moved)
    moved.append(4)
    assert root.kept[-1] == [[1, 3], [2, 4]]


def test_what_others_make_of_its_class_is_ordinary():
    """As dataclasses.asdict does, and `fromkeys`."""

    @dataclasses.dataclass
    class Told:
        rooms: Any

    root = Root()
    live: Any = adopted({"rooms": ["a", [1]], "tags": {1}}, root)
    told = dataclasses.asdict(Told(live))["rooms"]
    told["rooms"].append("b")
    told["rooms"][1].append(2)
    told["more"] = 1
    made = type(live["tags"])({2})
    made.add(3)
    assert (live, root.kept) == ({"rooms": ["a", [1]], "tags": {1}}, [])
    live["told"] = told
    live["told"]["rooms"].append(made)
    live["told"]["rooms"][-1].add(4)
    assert root.kept[-1]["told"]["rooms"] == ["a", [1, 2], "b", {2, 3, 4}]
    assert type(live.fromkeys("ab", 1)) is dict


def test_copies_and_json():
    value = {"a": [1, {"b": [2]}], "c": (3,)}
    live = adopted(value, Root())
    for made in (copy.copy(live), copy.deepcopy(live), pickle.loads(pickle.dumps(live))):
        assert (type(made), type(made["a"]), type(made["a"][1])) == (dict, list, dict)
        assert made == value
    assert json.dumps(live) == json.dumps(value)
    assert msgspec.json.encode(live) == msgspec.json.encode(value)
    assert isinstance(live, dict)
    assert isinstance(live["a"], list)
