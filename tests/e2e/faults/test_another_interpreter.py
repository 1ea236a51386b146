"""F22: another interpreter, another version of this package: a new server takes over the listening socket of an old.

The socket is held outside, here by the test, as systemd does with a .socket unit. Clients that are connected are told
to come again; nobody who comes is refused or lost.
"""

import asyncio
import contextlib
import os
import signal
import socket

import pytest
from websockets.exceptions import ConnectionClosed

from e2e.peers import Newcomers, app, client, drained, in_loop, logged
from support.serving import Serving

MODES = pytest.mark.parametrize(
    "mode",
    [{"worker_num": 2, "gateway_num": 2}, {"mode": "base", "worker_num": 1}, {"mode": "base", "worker_num": 2}],
    ids=["process", "base", "base-2"],
)

APP = """
VERSION = os.environ["VERSION"]
if VERSION == "broken":
    raise RuntimeError("it does not start")

@server.on("request")
def page(request, response):
    response.end(VERSION)

@server.on("message")
def said(server, frame):
    server.push(frame.fd, VERSION)
"""


class Image:
    """A server of that version on a socket that somebody else holds."""

    def __init__(self, held: socket.socket, version: str, **settings: object) -> None:
        self._fd = os.dup(held.fileno())
        os.set_inheritable(self._fd, True)
        self.version = version
        self.server = Serving(
            app(APP),
            port=held.getsockname()[1],
            pass_fds=(self._fd,),
            env={"VERSION": version},
            ready=False,
            inherited=f"fd://{self._fd}",
            **settings,
        )

    def __enter__(self) -> Serving:
        return self.server

    def __exit__(self, *failure: object) -> None:
        self.server.__exit__(*failure)
        os.close(self._fd)


@contextlib.contextmanager
def held():
    """The listening socket, in a process that has nothing to do with the servers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as one:
        yield one


async def is_told(ws) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(ws.recv(), 20)
    assert closed.value.rcvd is not None, "it was cut, and not told"
    return closed.value.rcvd.code


@MODES
@in_loop(120)
async def test_f22_the_new_one_is_started_before_the_old_one_stops(mode, tmp_path):
    """Each with a pid file and a control socket of its own. Who comes is answered by the old one, then by the new."""

    def own(name):
        return {"pid_file": str(tmp_path / f"{name}.pid"), "control_socket": str(tmp_path / f"{name}.sock"), **mode}

    with held() as listener, Image(listener, "old", **own("old")) as old:
        await logged(old, r"\bready\b")
        async with Newcomers(old.port) as clients, contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(client(old)) for _ in range(20)]
            await clients.more(20, by="old")
            with Image(listener, "new", **own("new")) as new:
                await logged(new, r"\bready\b")
                old.signal(signal.SIGTERM)
                assert {await is_told(ws) for ws in sockets} == {1001}
                assert await asyncio.to_thread(old.ended) == 0
                assert drained(old)["uncertain"] == 0
                mark = len(clients.answers)
                await clients.more(20, by="new")
                assert set(clients.answers[mark:]) == {"new"}
                async with client(new) as ws:
                    await ws.send("who")
                    assert await ws.recv() == "new"
                await clients.__aexit__()
                assert new.stop() == 0
    assert list(tmp_path.iterdir()) == []


@MODES
@in_loop(120)
async def test_f22_a_new_one_that_does_not_start_leaves_the_old_one(mode, tmp_path):
    """Whether it is broken, or wants the pid file or the control socket that the old one has."""
    own = {"pid_file": str(tmp_path / "pid"), "control_socket": str(tmp_path / "control"), **mode}
    with held() as listener, Image(listener, "old", **own) as old:
        await logged(old, r"\bready\b")
        async with Newcomers(old.port) as clients, client(old) as ws:
            for version, more, code, why in (
                ("broken", {}, 1, "RuntimeError: it does not start"),
                ("new", {"pid_file": own["pid_file"]}, 1, "another server runs with it"),
                ("new", {"control_socket": own["control_socket"]}, 98, "another server listens there"),
            ):
                with Image(listener, version, **mode, **more) as new:
                    assert await asyncio.to_thread(new.ended) == code
                    assert why in "\n".join(new.lines)
                await clients.more(20, by="old")
            assert set(clients.answers) == {"old"}
            await ws.send("who")
            assert await ws.recv() == "old"
        assert (tmp_path / "pid").read_text() == f"{old.pid}\n"
        assert old.stop() == 0


@MODES
@in_loop(120)
async def test_f22_one_after_the_other(mode):
    """A plain restart: those who come while there is no server wait in the queue of the socket."""
    with held() as listener, contextlib.ExitStack() as stack:
        old = stack.enter_context(Image(listener, "old", **mode))
        await logged(old, r"\bready\b")
        async with Newcomers(old.port) as clients:
            for version in ("newer", "newest"):
                assert await asyncio.to_thread(old.stop) == 0
                old = stack.enter_context(Image(listener, version, **mode))
                await clients.more(20, by=version)
        assert list(dict.fromkeys(clients.answers)) == ["old", "newer", "newest"]
        assert old.stop() == 0
