"""Shared state where a whole server would take too long to show it."""

import errno
import os
import subprocess
import sys

import lmdb
import pytest

from mooring.app import shared
from mooring.errors import ConfigError, StateError, TableFull

# Reads the table as a worker does, and is killed in the middle of it.
READER = """
import os, signal, sys
from mooring.app import shared
shared.READERS = int(sys.argv[2])
state = shared.Shared()
table = state.table("people", 10, 100, {"age": int})
state.open(shared.Declared(tables=dict(state.declared.tables), folder=sys.argv[1]))
assert table.get("ann") == {"age": 7}
table._unpack = lambda packed: os.kill(os.getpid(), signal.SIGKILL)
table.get("ann")
"""


def test_any_number_of_killed_readers(monkeypatch: pytest.MonkeyPatch):
    """Each keeps its place among those that read; there are fewer than workers that may die in a long life."""
    monkeypatch.setattr(shared, "READERS", 3)
    state = shared.Shared()
    table = state.table("people", 10, 100, {"age": int})
    made = state.create()
    try:
        state.open(made)
        table.set("ann", age=7)
        for _ in range(5):
            ended = subprocess.run(
                [sys.executable, "-c", READER, made.folder, "3"], capture_output=True, text=True, timeout=30
            )
            assert ended.returncode == -9, ended.stderr
        assert table.get("ann") == {"age": 7}
    finally:
        shared.remove(made)


def test_only_what_this_user_has_left_is_swept(tmp_path, monkeypatch):
    """Others may make folders there, and links, with such names."""

    def leave(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "lock").touch()
        return folder

    ours, precious = leave("mooring-shared-ours"), leave("precious")
    (tmp_path / "mooring-shared-link").symlink_to(precious)
    linked = tmp_path / "mooring-shared-linked"
    linked.mkdir()
    (linked / "lock").symlink_to(precious / "lock")
    other = os.geteuid() + 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: other)
        shared._sweep(tmp_path)
    assert ours.exists()
    shared._sweep(tmp_path)
    assert not ours.exists()
    assert linked.exists()
    assert (precious / "lock").exists()


def test_no_room_for_a_table_is_no_error_of_lmdb(tmp_path, monkeypatch):
    class Full:
        def __init__(self, problem):
            self.problem = problem

        def begin(self, write=False):
            raise self.problem

        def reader_check(self): ...

    everything = shared.Shared()
    table = everything.table("t", 10, 100, {"name": str})
    monkeypatch.setattr(shared.os, "access", lambda *_: False)
    monkeypatch.setattr(shared.tempfile, "gettempdir", lambda: str(tmp_path))
    made = everything.create()
    everything.open(made)
    assert table.get("one") is None
    table.set("one", name="x")
    opened = table._opened
    for problem in (lmdb.DiskError("No space left on device"), lmdb.MemoryError("Cannot allocate memory")):
        table._opened = Full(problem)
        with pytest.raises(TableFull, match=f"table 't' has no room for more: {tmp_path} is full"):
            table.set("two", name="y")
    table._opened = Full(lmdb.ReadersFullError("too many"))
    with pytest.raises(StateError, match="read by 4096 threads already"):
        table.get("one")
    table._opened = opened
    assert table.items() == [("one", {"name": "x"})]
    opened.close()
    shared.remove(made)


@pytest.mark.parametrize("which", [1, 2])
def test_no_room_at_the_start_is_said_at_the_start(which, tmp_path, monkeypatch):
    """What is mapped and written without asking is reserved: of the atomics, and of LMDB's table of readers."""
    calls = []

    def no_room(*arguments):
        calls.append(arguments)
        if len(calls) == which:
            raise OSError(errno.ENOSPC, "No space left on device")

    everything = shared.Shared()
    everything.table("t", 10, 100, {"name": str})
    monkeypatch.setattr(shared.os, "access", lambda *_: False)
    monkeypatch.setattr(shared.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(shared.os, "posix_fallocate", no_room)
    with pytest.raises(ConfigError, match=f"no room in {tmp_path} for what processes share"):
        everything.create()
    assert list(tmp_path.iterdir()) == []
