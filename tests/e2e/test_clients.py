"""Clients that nobody here wrote, against both modes: websockets and aiohttp (Python), ws (Node.js)."""

import asyncio
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as plain_connect

from e2e.peers import BOTH_MODES, client, in_loop
from support.serving import LIMIT, Serving

NODE_FOLDER = Path(__file__).resolve().parents[1] / "node"
MIB = 1 << 20

# Echoes in the kind it came; "ping me" and "close me CODE REASON" do what they say.
APP = """
@server.on("open")
def opened(server, request):
    server.session(request.fd)["path"] = request.path

@server.on("message")
def said(server, frame):
    if frame.data == "ping me":
        server.push(frame.fd, "are you there?", Opcode.PING)
    elif isinstance(frame.data, str) and frame.data.startswith("close me "):
        code, _, reason = frame.data[9:].partition(" ")
        server.disconnect(frame.fd, int(code), reason)
    else:
        server.push(frame.fd, frame)

@server.on("close")
def left(server, fd, code, reason):
    report("close", server.session(fd)["path"], code, reason)

@server.on("request")
def page(request, response):
    response.header("X-Path", request.path)
    response.end(request.body or f"{request.method} {request.target}")
"""


@pytest.fixture(scope="module", params=BOTH_MODES, ids=lambda settings: settings["mode"])
def server(request):
    with Serving(APP, **request.param) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in "\n".join(running.lines)
        assert "Traceback" not in "\n".join(running.lines)


# ---------------------------------------------------------------------------------------------- websockets


TEXTS = ["", "hello", "tschüß ✓ 🚢", "a" * 125, "b" * 126, "c" * 65535, "d" * 65536]
BYTES = [b"", b"\x00\xff", bytes(range(256)) * 300]


@in_loop()
async def test_websockets_echo(server):
    async with client(server) as ws:
        for data in TEXTS + BYTES:
            await ws.send(data)
            assert await ws.recv() == data


def test_websockets_echo_in_threads(server):
    """Its other implementation, which blocks."""
    with plain_connect(server.url, proxy=None, compression="deflate") as ws:  # offered, and not taken
        for data in TEXTS + BYTES:
            ws.send(data)
            assert ws.recv(LIMIT) == data
        assert ws.ping("x").wait(LIMIT)


@in_loop()
async def test_websockets_fragments(server):
    async with client(server) as ws:
        await ws.send(["one ", "two ✓ ", "", "three"])
        assert await ws.recv() == "one two ✓ three"
        await ws.send([bytes([n]) for n in range(200)])
        assert await ws.recv() == bytes(range(200))

        async def slowly():
            yield "before the ping, "
            await (await ws.ping("between"))
            yield "behind it"

        await ws.send(slowly())
        assert await ws.recv() == "before the ping, behind it"


@in_loop()
async def test_websockets_pings(server):
    async with client(server) as ws:
        for data in (b"", b"x" * 125):
            await asyncio.wait_for(await ws.ping(data), LIMIT)
        await ws.send("ping me")  # answered by the library itself; the echo behind it proves that all is well
        await ws.send("still here")
        assert await ws.recv() == "still here"
        await asyncio.gather(*[await ws.ping(str(n)) for n in range(40)])  # below control_frame_limit


@in_loop()
async def test_websockets_close_codes(server):
    reason = "ü" * 61
    for code, text in ((1000, ""), (1001, "going"), (3000, "a library"), (4999, reason)):
        mark = server.mark()
        async with client(server, f"/code/{code}") as ws:
            await ws.close(code, text)
            # the answer repeats the code (RFC 6455 section 5.5.1)
            assert ws.close_code == code
        await asyncio.to_thread(server.wait_log, f"^report close /code/{code} {code} {text}$", since=mark)
    for code, text in ((1000, ""), (1008, "policy"), (4321, reason)):
        async with client(server) as ws:
            await ws.send(f"close me {code} {text}")
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, text)
            assert closed.value.rcvd_then_sent
    async with client(server, "/cut") as ws:
        mark = server.mark()
        ws.transport.abort()
        await asyncio.to_thread(server.wait_log, "^report close /cut 1006 ", since=mark)


@in_loop()
async def test_websockets_large_messages(server):
    async with client(server, max_size=2 * MIB) as ws:
        for data in (os.urandom(MIB), "x" * MIB, "é" * (MIB // 2)):
            await ws.send(data)
            assert await ws.recv() == data
        parts = [os.urandom(64 * 1024) for _ in range(16)]
        await ws.send(parts)
        assert await ws.recv() == b"".join(parts)
        await ws.send(b"x" * (MIB + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()
        assert closed.value.rcvd.code == 1009


@in_loop(60)
async def test_websockets_many_connections(server):
    """300 at a time, several messages of each under way."""

    async def one(number):
        async with client(server) as ws:
            for n in range(10):
                await ws.send(f"{number} {n}")
            for n in range(10):
                assert await ws.recv() == f"{number} {n}"

    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(one(number))


@in_loop()
async def test_websockets_is_refused(server):
    with pytest.raises(InvalidStatus) as refused:
        async with client(server, origin="https://elsewhere.example"):
            pass
    assert refused.value.response.status_code == 403
    async with client(server, origin=server.http) as ws:
        await ws.send("own origin")
        assert await ws.recv() == "own origin"


# ---------------------------------------------------------------------------------------------- aiohttp


@in_loop()
async def test_aiohttp_echo(server):
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(server.url, max_msg_size=2 * MIB, compress=15) as ws:
            assert not ws.compress  # offered, and not taken
            for data in TEXTS:
                await ws.send_str(data)
                assert await ws.receive_str(timeout=LIMIT) == data
            for data in [*BYTES, os.urandom(MIB)]:
                await ws.send_bytes(data)
                assert await ws.receive_bytes(timeout=LIMIT) == data


@in_loop()
async def test_aiohttp_pings_and_closes(server):
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(server.url, autoping=False) as ws:
            await ws.ping(b"are you there?")
            answer = await ws.receive(LIMIT)
            assert (answer.type, bytes(answer.data)) == (aiohttp.WSMsgType.PONG, b"are you there?")
            await ws.send_str("ping me")
            asked = await ws.receive(LIMIT)
            assert (asked.type, bytes(asked.data)) == (aiohttp.WSMsgType.PING, b"are you there?")
            await ws.pong(asked.data)
            await ws.send_str("close me 4321 because")
            closed = await ws.receive(LIMIT)
            assert (closed.type, closed.data, closed.extra) == (aiohttp.WSMsgType.CLOSE, 4321, "because")
        async with session.ws_connect(server.url + "/aiohttp") as ws:
            mark = server.mark()
            await ws.close(code=4001, message=b"enough")
            assert ws.close_code == 4001
            await asyncio.to_thread(server.wait_log, "^report close /aiohttp 4001 enough$", since=mark)


@in_loop()
async def test_aiohttp_many_connections(server):
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number):
            async with session.ws_connect(server.url) as ws:
                for n in range(5):
                    await ws.send_str(f"{number} {n}")
                for n in range(5):
                    assert await ws.receive_str(timeout=LIMIT) == f"{number} {n}"

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(number))


@in_loop()
async def test_aiohttp_requests(server):
    """Plain HTTP on the same port: one after the other on a connection, and many beside each other."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20)) as session:
        async with session.get(server.http + "/a/b?c=d") as answer:
            assert (answer.status, await answer.text()) == (200, "GET /a/b?c=d")
            assert answer.headers["X-Path"] == "/a/b"
        body = os.urandom(MIB)
        for chunked in (False, True):
            async with session.post(server.http + "/", data=io.BytesIO(body), chunked=chunked or None) as answer:
                assert await answer.read() == body
        async with session.head(server.http + "/") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with session.post(server.http + "/", data=io.BytesIO(body + b"x")) as answer:
            assert answer.status == 413

        async def one(number):
            async with session.get(f"{server.http}/{number}") as answer:
                assert await answer.text() == f"GET /{number}"

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(number))


# ---------------------------------------------------------------------------------------------- ws, of Node.js


@pytest.fixture(scope="session")
def node():
    """Runs one scenario of tests/node/client.mjs; what it reports."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("Node.js is not installed (apt-get install nodejs npm)")
    if not (NODE_FOLDER / "node_modules" / "ws").is_dir():
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run(command, cwd=NODE_FOLDER, check=True, timeout=100)

    def run(server, scenario):
        command = [program, "client.mjs", server.url, scenario]
        done = subprocess.run(command, cwd=NODE_FOLDER, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_node_echo(server, node):
    assert node(server, "echo") == {
        "got": [[False, ""], [False, "hello"], [False, "tschüß ✓ 🚢"], [True, ""], [True, "00ff01fe"]],
        "close": [1000, ""],
    }


def test_node_fragments(server, node):
    assert node(server, "fragments") == {
        "text": [False, "one two ✓ three"],
        "bytes": [True, bytes(range(100)).hex()],
    }


def test_node_pings(server, node):
    assert node(server, "pings") == {"pongs": ["", "are you there?", "x" * 125], "ping": "are you there?"}


def test_node_closes(server, node):
    assert node(server, "closes")["got"] == [
        [1000, ""],
        [1001, ""],  # the server repeats the code; a reason is for the one who reads it
        [3000, ""],
        [4999, ""],
        [4321, "because"],
        [1000, ""],
    ]


def test_node_large(server, node):
    sizes = [125, 126, 65535, 65536, MIB]
    result = node(server, "large")
    assert result["got"] == [[size, True] for size in sizes]
    assert result["close"][0] == 1009


def test_node_many(server, node):
    assert node(server, "many") == {"clients": 200, "wrong": []}


def test_node_handshake(server, node):
    assert node(server, "handshake") == {"extensions": "", "refused": [403]}
