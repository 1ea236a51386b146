"""Shared state where a whole server would take too long to show it."""

import os
import subprocess
import sys

import pytest

from mooring.app import shared

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
