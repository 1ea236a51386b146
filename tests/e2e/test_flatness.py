"""A short form of `make flatness`: nothing grows over reloads and connections; and what grows on purpose is found."""

from functools import partial
from pathlib import Path

import pytest

from support.tools import TOOLS, verdict

# Forgets something with every connection.
LEAKY = """
import os, sys, threading
sys.path.insert(0, {tools!r})
from nothing_lost_app import server

kept = []

@server.on("open")
def opened(server, request):
    kept.append({what})

server.start()
"""


run = partial(verdict, "flatness")


def test_reloads_leave_nothing_behind():
    result = run("--reloads", "12", "--connections", "0", "--bound", "300")
    assert not result["faults"]
    assert (result["reloads"]["done"], result["reloads"]["rounds"]) == (12, 12)
    assert set(result["reloads"]["processes"]) == {"supervisor", "gateway 0", "worker 0", "worker 1"}


def test_connections_leave_nothing_behind():
    result = run("--reloads", "0", "--connections", "4000", "--rounds", "16", "--bound", "128")
    assert not result["faults"]
    assert (result["connections"]["done"], result["connections"]["rounds"]) == (4000, 16)
    assert all("rss_gain" in one for one in result["connections"]["processes"].values())


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("os.dup(2)", "connections, round 2: worker 0 has"),
        ("bytearray(4096)", "worker 0 has gained"),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "connections, round 2: worker 0 has"),
    ],
    ids=["descriptors", "memory", "threads"],
)
def test_what_grows_is_found(what: str, fault: str, tmp_path: Path):
    app = tmp_path / "leaky.py"
    app.write_text(LEAKY.format(tools=str(TOOLS), what=what))
    arguments = ("--reloads", "0", "--connections", "2000" if "bytearray" in what else "60", "--rounds", "8")
    result = run("--app", str(app), "--settle", "0.5", *arguments)
    assert result["verdict"] == "FAIL"
    assert any(fault in one for one in result["faults"]), result["faults"]
