"""Sessions against `centrifuge` from npm in Node.js: two minor versions, both encodings, all transports."""

import asyncio
import json
import shutil
import subprocess
import time
from pathlib import Path

import jwt
import msgspec
import pytest
from msgspec import Raw

from e2e.peers import in_loop
from mooring.centrifuge.actions import RpcAnswer
from mooring.centrifuge.commands import Disconnect, Unsubscribe
from mooring.centrifuge.limits import Timing
from mooring.centrifuge.tokens import Key, Tokens
from support.centrifuge_host import Host, now, raw
from support.centrifuge_streams import StreamHost

NODE_FOLDER = Path(__file__).resolve().parents[1] / "node"
PACKAGES = ["centrifuge", "centrifuge-5.7"]
SECRET = "a secret that is long enough for HS256"


class Driven:
    """Does what the client asks it to do by `rpc`: a part of a host."""

    def on_RpcRequest(self, connection, ask, request):
        if request.method != "do":
            return super().on_RpcRequest(connection, ask, request)
        wanted = json.loads(bytes(request.data))
        if "pongs" in wanted:
            asyncio.get_running_loop().create_task(self._pongs(connection, ask.ticket, wanted["pongs"]))
            return None
        # Afterwards: the reply goes out first, and a session is not used while it is being asked.
        asyncio.get_running_loop().call_soon(self._do, connection, wanted)
        return RpcAnswer(raw(None))

    async def _pongs(self, connection, ticket, count):
        for _ in range(count):
            await connection.ponged.get()
        connection.session.answer(ticket, RpcAnswer(raw(count)), now())
        connection.work()

    def _do(self, connection, wanted):
        if "cut" in wanted:
            connection.cut()
            connection.lost()
        if "subscribe" in wanted:
            connection.session.subscribe(wanted["subscribe"], self.options_of(wanted["subscribe"]), now())
            connection.work()
        for channel, value in wanted.get("lose", ()):
            self.publish(channel, value, lost=True)
        for channel, value in wanted.get("publish", ()):
            self.publish(channel, value)
        if "raw" in wanted:
            channel, value = wanted["raw"]
            self.publish(channel, Raw(bytes.fromhex(value)))
        if "trim" in wanted:
            channel, kept = wanted["trim"]
            del self.topic(channel).log[:-kept]
        if "unsubscribe" in wanted:
            channel, code = wanted["unsubscribe"]
            connection.session.unsubscribe(channel, now(), Unsubscribe(code, "as asked"))
        if "message" in wanted:
            connection.session.message(raw(wanted["message"]), now())
        if "end" in wanted:
            connection.session.disconnect(now(), Disconnect(*wanted["end"]))
        connection.work()


class WebSocketHost(Driven, Host):
    pass


class WithoutWebSocket(Driven, StreamHost):
    pass


TRANSPORTS = {
    "websocket": (WebSocketHost, ["json", "protobuf"]),
    "http_stream": (WithoutWebSocket, ["json", "protobuf"]),
    "sse": (WithoutWebSocket, ["json"]),
}
WAYS = [(transport, encoding) for transport, (_, encodings) in TRANSPORTS.items() for encoding in encodings]


@pytest.fixture(scope="module")
def program():
    found = shutil.which("node")
    if found is None:
        pytest.skip("Node.js is not installed (apt-get install nodejs npm)")
    if not all((NODE_FOLDER / "node_modules" / package).is_dir() for package in [*PACKAGES, "eventsource"]):
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run(command, cwd=NODE_FOLDER, check=True, timeout=100)
    return found


@pytest.fixture(params=WAYS, ids="-".join)
def way(request):
    return request.param


@pytest.fixture
def serving(way):
    return TRANSPORTS[way[0]][0]


@pytest.fixture
def encoding(way):
    return way[1]


@pytest.fixture(params=PACKAGES)
def node(request, way, program):
    """Runs one scenario of tests/node/centrifuge.mjs; what it reports."""

    async def run(host, scenario, *tokens):
        command = [program, "centrifuge.mjs", host.url, way[0], request.param, way[1], scenario, json.dumps(tokens)]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=NODE_FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    return run


@in_loop()
async def test_talk(node, serving):
    async with serving() as host:
        assert await node(host, "talk") == {
            "client": "client-1",
            "hello": {"hello": "ann"},
            "recoverable": True,
            "joined": "ann",
            "published": [{"n": n, "text": "tschüß ✓"} for n in (1, 2, 3)],
            "users": ["ann"],
            "stats": [1, 1],
            "history": [3, "one", [2, 3]],
            "echo": [1, None],
            "errors": [[104, False], [103, False], [103]],
            "after": 0,
        }
        assert [json.loads(said) for said in host.told] == [{"said": 1}]


@in_loop()
async def test_recovery(node, serving):
    async with serving() as host:
        assert await node(host, "recover") == {
            "first": [1],
            "again": [True, True],
            "missed": [2, 3, 4],
            "trimmed": [True, False],
        }


@in_loop()
async def test_a_gap_is_repaired_by_the_client(node, serving):
    async with serving() as host:
        assert await node(host, "gap") == {"code": 2500, "recovered": True, "got": [2, 3]}


@in_loop()
async def test_server_side_subscriptions(node, serving):
    async with serving(subs=("mine",)) as host:
        assert await node(host, "server") == {
            "first": "mine",
            "got": [1, 2, 3],
            "recovered": True,
            "more": "more",
            "gone": "more",
            "message": {"to": "you"},
        }


ENDS = {
    "passing": [3001, "the server stops"],
    "last": [4999, "reason: 17"],
    "no": 101,
    "end": [3503, "ended as asked"],
    "later": 100,
}


@in_loop()
async def test_ends(node, serving):
    async with serving() as host:
        assert await node(host, "ends") == ENDS


@pytest.mark.parametrize("way", WAYS[:2], ids="-".join)
@in_loop()
async def test_ends_that_only_the_close_frame_tells(node, serving, way):
    assert way[0] == "websocket"
    async with serving(push_disconnect=False) as host:
        assert await node(host, "ends") == ENDS


class ShortTokens(Tokens):
    """Each lets in for a second, however often it is shown."""

    def connection(self, token):
        return msgspec.structs.replace(super().connection(token), ttl=1.0)

    def subscription(self, token):
        return msgspec.structs.replace(super().subscription(token), ttl=1.0)


def signed(**claims):
    return jwt.encode(claims, SECRET, "HS256")


@in_loop()
async def test_tokens(node, serving):
    """One whose time is over, then new ones each time; at last one for something else."""
    tokens = [
        signed(sub="ann", exp=time.time() - 1),
        signed(sub="ann", info={"name": "Ann"}),
        signed(sub="ann", channel="mine", info=3),
    ]
    async with serving(tokens=ShortTokens([Key("HS256", SECRET)], time.time)) as host:
        assert await node(host, "tokens", *tokens) == {
            "hello": {"hello": "ann"},
            "info": ["ann", {"name": "Ann"}, 3],
            "others": 103,
        }


@in_loop()
async def test_pings(node, serving):
    async with serving(timing=Timing(ping_interval=1, pong_timeout=5), spread=0.0) as host:
        assert await node(host, "pings") == {"pongs": 4, "state": "connected"}


@in_loop()
async def test_data_that_is_no_json(node, serving, encoding):
    async with serving() as host:
        assert await node(host, "noJson") == ({"code": 3506} if encoding == "json" else {"got": "ff7b"})
