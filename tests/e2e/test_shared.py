"""Shared state over deaths, reloads and stops."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import pytest

from e2e.peers import app, client, fetch, in_loop, logged
from support.serving import Serving, eventually

# Every worker adds to both as fast as it can until there is a file "stop"; GET says what they hold and what was added.
ADDING = """
import asyncio, threading

hits = server.atomic("hits")
table = server.table("counts", rows=100, n=int, text=str)
mine = 0

@server.on("message")
def said(server, frame): pass

def add(server):
    global mine
    while not os.path.exists("stop"):
        for _ in range(50):
            hits.add()
            table.increment("all", "n")
            table.set(f"pid {os.getpid()}", n=mine + 1, text="x" * 500)
            mine += 1
    report("stopped")

@server.on("worker_start")
def started(server, number):
    threading.Thread(target=add, args=(server,), daemon=True).start()

@server.on("request")
def tell(request, response):
    rows = {key: row["n"] for key, row in table.items()}
    response.end(json.dumps({"hits": hits.get(), "all": rows.pop("all", 0), "each": rows}))
"""


def folders(server: Serving) -> set[Path]:
    """Those in which its processes have something mapped or open; other servers may run."""
    found = set()
    for pid in server.titles():
        with contextlib.suppress(OSError):
            names = Path(f"/proc/{pid}/maps").read_text()
            names += "\n".join(os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
            found.update(re.findall(r"/dev/shm/mooring-shared-[^/\n]+", names))
    return {Path(folder) for folder in found}


def test_concurrent_increments_and_kills():
    """Nothing is lost and nothing half done: between its two additions a killed worker can be at most one behind."""
    with Serving(ADDING, worker_num=2, restart_free=100) as server:
        for kill in range(6):
            # each that will be killed has left a row before
            eventually(lambda kill=kill: len(json.loads(fetch(server))["each"]) == 2 + kill)
            before = json.loads(fetch(server))
            eventually(lambda before=before: json.loads(fetch(server))["all"] > before["all"] + 20)
            mark = server.mark()
            os.kill(server.pid_of(f"worker {kill % 2}"), signal.SIGKILL)
            server.wait_log("serves in place of the one that ended", since=mark)
        eventually(lambda: len(json.loads(fetch(server))["each"]) == 8)  # two workers, and six successors
        (server.script.parent / "stop").touch()
        server.wait_log("^report stopped", count=2)
        found = json.loads(fetch(server))
        assert found["all"] <= found["hits"] <= found["all"] + 6
        each = sum(found["each"].values())
        assert each <= found["all"] <= each + 6
        assert server.stop() == 0


@in_loop()
async def test_over_a_reload():
    code = """
    hits = server.atomic("hits", 3)
    table = server.table("names", rows=5, name=str)

    @server.on("message")
    def said(server, frame):
        table.set(frame.data, name=frame.data.upper())
        server.push(frame.fd, f"{hits.add()} {[row['name'] for _, row in table.items()]} {os.getpid()}")
    """
    with Serving(app(code), worker_num=1) as server:
        async with client(server) as ws:
            await ws.send("a")
            first = (await ws.recv()).split()
            assert first[:2] == ["4", "['A']"]
            server.signal(signal.SIGHUP)
            await logged(server, "reload: done")
            await ws.send("a")
            second = (await ws.recv()).split()
            assert second[:2] == ["5", "['A']"]
            assert second[2] != first[2]
        assert server.stop() == 0


@pytest.mark.parametrize(
    "changed",
    ["new = server.atomic('new')", "table = server.table('names', rows=6, name=str)"],
)
def test_a_reload_to_other_declarations_fails(changed):
    """And the old generation serves on."""
    code = f"""
    hits = server.atomic("hits")
    if os.path.exists("changed"):
        {changed}
    else:
        table = server.table("names", rows=5, name=str)

    @server.on("message")
    def said(server, frame): pass

    @server.on("request")
    def tell(request, response): response.end(str(hits.add()))
    """
    with Serving(app(code), worker_num=1) as server:
        assert fetch(server) == b"1"
        (server.script.parent / "changed").touch()
        server.signal(signal.SIGHUP)
        server.wait_log("shared state was declared in another way when the server was started: 'n.*'; restart")
        server.wait_log("reload failed")
        assert fetch(server) == b"2"
        assert server.stop() == 0


@pytest.mark.parametrize(("mode", "number"), [("process", 1), ("base", 2), ("base", 1)])
def test_nothing_is_left_behind(mode, number):
    code = """
    server.atomic("hits")

    @server.on("message")
    def said(server, frame): pass
    """
    with Serving(app(code), mode=mode, worker_num=number) as server:
        mine = folders(server)
        assert mine
        assert all(folder.stat().st_mode & 0o077 == 0 for folder in mine)
        assert server.stop() == 0
    assert not [folder for folder in mine if folder.exists()]


def test_what_a_killed_server_left_is_removed_by_the_next():
    code = """
    server.atomic("hits")

    @server.on("message")
    def said(server, frame): pass
    """
    with Serving(app(code), worker_num=1) as server:
        mine = folders(server)
        server.stop(signal.SIGKILL)
    with Serving(app(code), worker_num=1) as other:
        assert not [folder for folder in mine if folder.exists()]
        assert other.stop() == 0


def test_a_name_that_cannot_be_meant():
    for line, text in (
        ("server.atomic('a/b')", "a name has 1 to 64 of"),
        ("server.atomic('a', 2**63)", "an integer of 64 bits"),
        ("server.table('t')", "table 't' has no columns"),
        ("server.table('t', x=list)", "column x=list; it can be int, float, str, bytes, bool"),
        ("server.table('t', rows=0, x=int)", "rows=0 must be an integer from 1 to"),
        ("server.table('t', x=int); server.table('t', x=int)", "is declared twice"),
    ):
        with Serving(line, start=False, ready=False) as server:
            assert server.ended() == 1
            server.wait_log("ConfigError: .*" + text.replace("(", r"\("))
