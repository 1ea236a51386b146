"""reload() and shutdown(), asked for by a handler."""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from contract.clients import Peer, Raw, crowd, dial, get
from contract.modes import MODES, only
from support.serving import Serving, eventually

APPLICATION = """
import asyncio
VERSION = open("version").read()  # read when the application is loaded, as code is

@server.on("open")
def opened(server, request):
    server.session(request.fd)["path"] = request.path
    server.subscribe(request.fd, "all")
    server.push(request.fd, json.dumps({"fd": request.fd, "worker": server.worker_id, "pid": os.getpid()}))

@server.on("message")
async def said(server, frame):
    if frame.data == "reload":
        server.reload()
    elif frame.data == "shutdown":
        server.shutdown()
        await asyncio.sleep(0.05)
        report("the handler that asked has ended")
    elif frame.data == "publish":
        server.publish("all", "published")
    else:
        about = [VERSION, os.getpid(), server.stats()["generation"], server.session(frame.fd)["path"]]
        server.push(frame.fd, json.dumps(about))

@server.on("close")
def left(server, fd, code, reason):
    report("close", code)

@server.on("request")
def asked(request, response):
    getattr(server, request.path[1:])()
    response.end("asked for")

@server.on("worker_stop")
def worker_stopped(server, worker_id):
    report("worker_stop", worker_id)

@server.on("shutdown")
def stopped(server):
    report("shutdown", server.worker_id)
"""


def serve(mode: dict[str, Any], folder: Path) -> Serving:
    (folder / "version").write_text("first")
    return Serving(APPLICATION, cwd=folder, **mode)


async def about(peer: Peer) -> list[Any]:
    await peer.send("about")
    return json.loads(await peer.recv())


@only("process", "process-2")
@pytest.mark.parametrize("how", ["message", "request"])
async def test_reload_keeps_every_connection(mode: dict[str, Any], tmp_path: Path, how: str):
    """New processes with the new code; sessions, topics and ids are as before."""
    with serve(mode, tmp_path) as server:
        async with crowd(server, mode, "/some/path") as peers:
            before = [await about(peer) for peer in peers]
            (tmp_path / "version").write_text("second")
            if how == "message":
                await peers[0].send("reload")
            else:
                with Raw(server, get("/reload")) as raw:
                    assert raw.answer().body == b"asked for"
            await asyncio.to_thread(server.wait_log, "reload: done")
            after = [await about(peer) for peer in peers]
            assert [(version, generation, path) for version, _, generation, path in before] == [
                ("first", 1, "/some/path")
            ] * len(peers)
            assert [(version, generation, path) for version, _, generation, path in after] == [
                ("second", 2, "/some/path")
            ] * len(peers)
            old, new = {pid for _, pid, *_ in before}, {pid for _, pid, *_ in after}
            assert not old & new
            assert not old & set(server.pids())
            await peers[0].send("publish")
            assert [await peer.recv() for peer in peers] == ["published"] * len(peers)
            assert server.reports("close") == []
            for peer in peers:
                await peer.ws.close(4000)
        assert sorted(server.reports("worker_stop")) == ["0", "1"]
        assert server.reports("shutdown") == []
        eventually(lambda: server.reports("close") == ["4000"] * len(peers))
        assert server.stop() == 0


@only("base-2")
async def test_reload_in_base_mode_closes(mode: dict[str, Any], tmp_path: Path):
    """The connections live in the processes that are replaced: clients are told 1012, and the new code serves."""
    with serve(mode, tmp_path) as server:
        async with crowd(server, mode) as peers:
            (tmp_path / "version").write_text("second")
            await peers[0].send("reload")
            for peer in peers:
                assert await peer.refused_to_go_on() == (1012, "the server restarts")
        await asyncio.to_thread(server.wait_log, "reload: done")
        assert server.reports("close") == ["1012"] * 2
        async with dial(server) as peer:
            assert (await about(peer))[:1] == ["second"]
        assert server.stop() == 0


@only("base")
async def test_reload_is_refused_by_a_single_process(mode: dict[str, Any], tmp_path: Path):
    """Nobody could take its place. It says so, and goes on."""
    with serve(mode, tmp_path) as server:
        async with dial(server) as peer:
            (tmp_path / "version").write_text("second")
            await peer.send("reload")
            line = await asyncio.to_thread(server.wait_log, "reload: a single process cannot replace itself")
            assert " ERROR " in line.string
            assert "mode='process'" in line.string
            assert (await about(peer))[0] == "first"
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("mode", "how"),
    [*[(name, "message") for name in MODES], ("base", "request"), ("process", "request")],
    indirect=["mode"],
    scope="session",
)
async def test_shutdown(mode: dict[str, Any], tmp_path: Path, how: str):
    """Clients are told 1001, handlers finish, `close`, `worker_stop` and `shutdown` are told, and all processes end."""
    with serve(mode, tmp_path) as server:
        pids = [*server.pids(), server.pid]
        async with crowd(server, mode) as peers:
            with Raw(server) as raw:
                if how == "message":
                    await peers[-1].send("shutdown")
                else:
                    raw.send(get("/shutdown"))
                for peer in peers:
                    assert await peer.refused_to_go_on() == (1001, "the server is shutting down")
        assert await asyncio.to_thread(server.ended) == 0
        assert any("stopping: asked for by" in line for line in server.lines)
        said = server.reports()
        if how == "message":
            assert said.index("the handler that asked has ended") < said.index("worker_stop 0")
        assert sorted(line for line in said if line.startswith("worker_stop")) == [
            f"worker_stop {number}" for number in range(mode["worker_num"])
        ]
        assert said.count("close 1001") == len(peers)
        assert said[-1] == "shutdown 0"
        assert said.count("shutdown 0") == 1
        assert "(adds up)" in server.lines[-2]
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_stop_finishes_the_answers_that_are_on_their_way(mode: dict[str, Any]):
    """The handler has ended, the client reads slowly: it gets the whole answer, and the server waits for it."""
    app = """
    @server.on("message")
    def said(server, frame): ...

    @server.on("request")
    def asked(request, response):
        response.end(b"x" * 5_000_000)
    """
    with Serving(app, write_limit=16 << 20, **mode) as server, Raw(server, receive_buffer=1 << 16) as raw:
        raw.send(get("/"))
        raw.until(b"\r\n\r\n")
        server.signal(signal.SIGTERM)
        server.wait_log("stopping: SIGTERM")
        # it refuses newcomers once its gateways have begun to stop
        eventually(lambda: refused(server))
        assert len(raw.rest()) == 5_000_000
        assert server.ended() == 0


def refused(server: Serving) -> bool:
    with socket.socket() as newcomer:
        return newcomer.connect_ex(("127.0.0.1", server.port)) != 0
