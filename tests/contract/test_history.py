"""Topics with a history: what was published is kept, and who comes with a position gets what it missed."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from contract.modes import MODES
from support.brokers import SERVERS, Broker
from support.serving import LIMIT, Serving

APP = """
import asyncio, os

server.topic("told:*", history_size=1000, positions=True)
server.topic("room:*", history_size=50)

async def position(sent):
    return await sent

@server.on("message")
async def message(server, frame):
    what, *given = frame.json()
    match what:
        case "follow":
            topic, since = given
            if since is None:
                answer = server.subscribe(frame.fd, topic)
            else:
                found = await server.subscribe(frame.fd, topic, since=since)
                answer = None if found is None else [found.verdict.name, found.position]
        case "leave":
            answer = server.unsubscribe(frame.fd, given[0])
        case "publish":
            answer = await server.publish(*given)
        case "publish_json":
            answer = await server.publish_json(*given)
        case "storm":
            topic, who, count = given
            sent = [server.publish(topic, f"{who} {n}") for n in range(count)]
            answer = [(await one).offset for one in sent]
        case "history":
            past = await server.history(given[0], **given[1])
            answer = [past.verdict.name, past.publications, past.position]
        case "join":
            server.subscribe(frame.fd, given[0])
            answer = (await server.publish(*given)).offset
        case "thread":
            sent = await asyncio.to_thread(server.publish, *given)
            answer = [await sent, await asyncio.to_thread(asyncio.run, position(server.publish(*given)))]
        case "try":
            try:
                sent = server.publish(*given)
                report("asked")
                answer = await sent
            except PublishRefused:
                answer = "refused"
            except PublishUncertain:
                answer = "uncertain"
        case "try history":
            asked = asyncio.ensure_future(server.history(*given))
            await asyncio.sleep(0)
            report("asked")
            try:
                await asked
            except StateError as error:
                answer = str(error)
        case "much":
            for n in range(given[1]):
                server.publish(given[0], f"{n}" + "x" * 4000)
            answer = None
        case "pid":
            answer = os.getpid()
    server.push_json(frame.fd, {"answer": answer})

@server.on("worker_stop")
def stops(server, number):
    server.publish("room:stops", f"{number} has stopped")

@server.on("request")
def page(request, response):
    response.json(server.stats())
"""


KINDS = [(mode, "memory") for mode in MODES] + [(mode, kind) for kind in SERVERS for mode in ("base", "process-2")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def settings(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Every mode with the engine in memory; two of them with each server there is."""
    mode, kind = request.param
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"engine": "memory"}
        if kind != "memory":
            options["engine"] = stack.enter_context(Broker(SERVERS[kind])).url
        yield MODES[mode] | options


@pytest.fixture(scope="module")
def app(settings: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **settings) as running:
        yield running


class Client:
    """A WebSocket; what topics bring, and answers, each in order."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._heard: list[str] = []

    async def ask(self, *what: object) -> Any:
        await self._ws.send(json.dumps(what))
        while True:
            text = str(await self._ws.recv())
            if text.startswith('{"answer"'):
                return json.loads(text)["answer"]
            self._heard.append(text)

    async def heard(self, count: int) -> list[str]:
        while len(self._heard) < count:
            self._heard.append(str(await self._ws.recv()))
        found, self._heard = self._heard[:count], self._heard[count:]
        return found


@contextlib.asynccontextmanager
async def client(app: Serving) -> AsyncIterator[Client]:
    async with connect(app.url, ping_interval=None, compression=None, proxy=None, max_queue=None) as ws:
        yield Client(ws)


async def test_who_comes_back_gets_what_it_missed_and_then_what_is_new(app: Serving):
    async with client(app) as writer, client(app) as reader:
        epoch, first = await writer.ask("publish", "room:back", "one")
        assert first == 1
        assert await writer.ask("publish", "room:back", "two") == [epoch, 2]
        assert await reader.ask("follow", "room:back", [epoch, 1]) == ["RECOVERED", [epoch, 1]]
        assert await reader.heard(1) == ["two"]
        await writer.ask("publish", "room:back", "three")
        assert await reader.heard(1) == ["three"]
        assert await reader.ask("leave", "room:back") is True
        await writer.ask("publish", "room:back", "four")
        assert await reader.ask("follow", "room:back", [epoch, 3]) == ["RECOVERED", [epoch, 3]]
        assert await reader.heard(1) == ["four"]


async def test_who_comes_without_a_position_hears_what_is_new(app: Serving):
    async with client(app) as writer, client(app) as reader:
        await writer.ask("publish", "room:new", "before")
        assert await reader.ask("follow", "room:new", None) is True
        await reader.ask("follow", "room:other", ["", 0])  # behind it on the way to the gateway and back
        await writer.ask("publish", "room:new", "behind")
        assert await reader.heard(1) == ["behind"]


async def test_where_it_is_comes_with_each_publication(app: Serving):
    async with client(app) as writer, client(app) as reader:
        await reader.ask("follow", "told:all", ["", 0])
        epoch, _ = await writer.ask("publish", "told:all", 'a "text"')
        await writer.ask("publish_json", "told:all", {"value": [1, None]})
        heard = [json.loads(text) for text in await reader.heard(2)]
        assert heard == [
            {"topic": "told:all", "epoch": epoch, "offset": 1, "data": 'a "text"'},
            {"topic": "told:all", "epoch": epoch, "offset": 2, "data": {"value": [1, None]}},
        ]


async def test_what_is_not_there_any_more_has_a_name(app: Serving):
    async with client(app) as one:
        texts = [f"{number}" for number in range(1, 61)]
        for text in texts:
            epoch, _ = await one.ask("publish", "room:short", text)
        assert await one.ask("follow", "room:short", [epoch, 9]) == ["TRIMMED", [epoch, 10]]
        assert await one.heard(50) == texts[10:]
        kept = [[number + 11, text] for number, text in enumerate(texts[10:])]
        assert await one.ask("history", "room:short", {"since": [epoch, 9]}) == ["TRIMMED", kept, [epoch, 60]]
        assert await one.ask("follow", "room:short", ["other", 9]) == ["UNKNOWN_EPOCH", [epoch, 60]]
        assert await one.ask("follow", "room:short", [epoch, 61]) == ["ROLLED_BACK", [epoch, 60]]
        await one.ask("publish", "room:short", "new")
        assert await one.heard(1) == ["new"]


async def test_where_it_is_told_its_position_a_client_is_told_the_verdict_first(app: Serving):
    async with client(app) as one:
        epoch, _ = await one.ask("publish", "told:verdict", "1")
        assert await one.ask("follow", "told:verdict", [epoch, 7]) == ["ROLLED_BACK", [epoch, 1]]
        assert await one.ask("follow", "told:verdict", ["other", 1]) == ["UNKNOWN_EPOCH", [epoch, 1]]
        await one.ask("publish", "told:verdict", "2")
        told = [json.loads(text) for text in await one.heard(3)]
        assert [each.get("verdict") for each in told] == ["rolled_back", "unknown_epoch", None]
        assert [(each["epoch"], each["offset"]) for each in told] == [(epoch, 1), (epoch, 1), (epoch, 2)]


async def test_more_than_a_client_may_have_waiting_comes_as_fast_as_it_reads(app: Serving):
    """2 MB, and the limit of what waits for a client is 1 MiB: it is not closed, and then hears what is new."""
    async with client(app) as writer, client(app) as reader:
        text = "x" * 4000
        for number in range(500):
            epoch, _ = await writer.ask("publish", "told:much", f"{number} {text}")
        found = asyncio.create_task(reader.ask("follow", "told:much", [epoch, 0]))
        more = [await writer.ask("publish", "told:much", f"{number}") for number in range(500, 520)]
        assert await found == ["RECOVERED", [epoch, 0]]
        told = [json.loads(one) for one in await reader.heard(520)]
        assert [one["offset"] for one in told] == list(range(1, 521))
        assert [one["data"] for one in told[500:]] == [f"{number}" for number in range(500, 520)]
        assert more[-1] == [epoch, 520]


async def test_what_is_published_behind_a_subscription_reaches_it(app: Serving):
    for lap in range(20):
        async with client(app) as one, client(app) as other:
            assert await one.ask("join", f"room:join-{lap}", "one is here") == 1
            assert await other.ask("join", f"room:join-{lap}", "other is here") == 2
            assert await one.heard(2) == ["one is here", "other is here"]
            assert await other.heard(1) == ["other is here"]


async def test_other_threads_and_their_loops_publish_too(app: Serving):
    async with client(app) as one:
        assert [offset for _, offset in await one.ask("thread", "room:thread", "x")] == [1, 2]


async def test_who_subscribes_again_from_a_position_begins_there(app: Serving):
    async with client(app) as one:
        epoch, _ = await one.ask("publish", "room:again", "one")
        for _ in range(2):
            assert await one.ask("follow", "room:again", [epoch, 0]) == ["RECOVERED", [epoch, 0]]
            assert await one.heard(1) == ["one"]
        await one.ask("publish", "room:again", "two")
        assert await one.heard(1) == ["two"]


async def test_a_history_can_be_asked_for(app: Serving):
    async with client(app) as one:
        for number in range(5):
            epoch, _ = await one.ask("publish", "room:asked", f"{number}")
        everything = [[number + 1, f"{number}"] for number in range(5)]
        end = [epoch, 5]
        assert await one.ask("history", "room:asked", {}) == ["RECOVERED", everything, end]
        assert await one.ask("history", "room:asked", {"limit": 2}) == ["RECOVERED", everything[3:], end]
        newest = {"limit": 2, "newest_first": True}
        assert await one.ask("history", "room:asked", newest) == ["RECOVERED", everything[:2:-1], end]
        assert await one.ask("history", "room:asked", {"since": [epoch, 1], "limit": 2}) == [
            "RECOVERED",
            everything[1:3],
            [epoch, 3],
        ]
        verdict, publications, (_, top) = await one.ask("history", "room:nothing", {})
        assert (verdict, publications, top) == ("RECOVERED", [], 0)


@pytest.mark.parametrize("lap", range(3))
async def test_in_a_storm_nothing_is_missing_double_or_out_of_order(app: Serving, lap: int):
    """Readers come, leave and come back with what they have read last, while all workers publish."""
    topic, writers, count = f"told:storm-{lap}", 4, 200
    total = writers * count

    async def write(who: int) -> list[int]:
        async with client(app) as one:
            return [offset for _ in range(4) for offset in await one.ask("storm", topic, who, count // 4)]

    async def read(pause: int) -> list[str]:
        position, read = ["", 0], []
        while len(read) < total:
            async with client(app) as one:
                verdict, _ = await one.ask("follow", topic, position)
                assert verdict == "RECOVERED"
                for _ in range(min(pause, total - len(read))):
                    told = json.loads((await one.heard(1))[0])
                    assert told["offset"] == len(read) + 1
                    position = [told["epoch"], told["offset"]]
                    read.append(told["data"])
        return read

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        readers = [group.create_task(read(pause)) for pause in (37, 111, 1000)]
        sent = [group.create_task(write(who)) for who in range(writers)]
    offsets = [offset for one in sent for offset in one.result()]
    assert sorted(offsets) == list(range(1, total + 1))
    for one in sent:
        assert one.result() == sorted(one.result())
    heard = [one.result() for one in readers]
    assert heard[0] == heard[1] == heard[2]
    for who in range(writers):
        assert [text for text in heard[0] if text.startswith(f"{who} ")] == [
            text for _ in range(4) for text in (f"{who} {n}" for n in range(count // 4))
        ]


PROCESS = pytest.mark.parametrize("name", [name for name in MODES if name.startswith("process")])


@PROCESS
async def test_it_outlives_workers_and_gateways(name: str):
    with Serving(APP, **MODES[name]) as server:
        async with client(server) as one:
            epoch, _ = await one.ask("publish", "room:kept", "one")
            pid = await one.ask("pid")
            mark = server.mark()
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(server.wait_log, "takes its place|serves again|restarting it", since=mark)
        for gateway in range(MODES[name].get("gateway_num", 1)):
            mark = server.mark()
            os.kill(server.pid_of(f"gateway {gateway}"), signal.SIGKILL)
            await asyncio.to_thread(server.wait_log, rf"gateway {gateway} \(pid \d+\) serves in place of", since=mark)
        async with client(server) as one:
            assert await one.ask("follow", "room:kept", [epoch, 0]) == ["RECOVERED", [epoch, 0]]
            assert await one.heard(1) == ["one"]


@PROCESS
async def test_a_reload_leaves_no_gap(name: str):
    """Readers stay, and others come and go with their positions, while workers are replaced twice."""
    with Serving(APP, **MODES[name]) as server:
        done = asyncio.Event()

        async def write() -> int:
            last = 0
            async with client(server) as one:
                while not done.is_set():
                    _, last = await one.ask("publish", "told:reload", f"{last + 1}")
            return last

        async def read(pause: int) -> list[int]:
            """Offsets, until none is missing at the end."""
            position, read = ["", 0], []
            while not (done.is_set() and writer.done() and len(read) == writer.result()):
                async with client(server) as one:
                    verdict, _ = await one.ask("follow", "told:reload", position)
                    assert verdict == "RECOVERED"
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1):
                            while len(read) < pause or len(read) % pause:
                                told = json.loads((await one.heard(1))[0])
                                position = [told["epoch"], told["offset"]]
                                read.append(told["offset"])
                                assert told["data"] == f"{told['offset']}"
                if len(read) >= pause and not len(read) % pause:
                    pause = len(read) + pause
            return read

        async with asyncio.timeout(2 * LIMIT), asyncio.TaskGroup() as group:
            writer = group.create_task(write())
            readers = [group.create_task(read(pause)) for pause in (7, 1 << 30)]
            for _ in range(2):
                mark = server.mark()
                server.signal(signal.SIGHUP)
                await asyncio.to_thread(server.wait_log, "reload: done", since=mark)
            done.set()
        for one in readers:
            assert one.result() == list(range(1, writer.result() + 1))


@PROCESS
async def test_when_the_engine_dies_nobody_is_told_nothing(name: str):
    with Serving(APP, **MODES[name]) as server:
        async with client(server) as writer, client(server) as reader:
            epoch, _ = await writer.ask("publish", "told:lost", "one")
            await reader.ask("follow", "told:lost", [epoch, 1])
            mark = server.mark()
            os.kill(server.pid_of("engine 0"), signal.SIGKILL)
            told = json.loads((await reader.heard(1))[0])
            assert (told["topic"], told["offset"], told["verdict"]) == ("told:lost", 0, "unknown_epoch")
            assert told["epoch"] != epoch
            line = r"subscribers of told:lost may have missed something that the engine has lost \(unknown_epoch\)"
            await asyncio.to_thread(server.wait_log, line, since=mark)
            while (answer := await writer.ask("try", "told:lost", "two")) == "refused":
                pass
            assert answer == [told["epoch"], 1]
            assert json.loads((await reader.heard(1))[0])["data"] == "two"
            assert await reader.ask("follow", "told:lost", [epoch, 1]) == ["UNKNOWN_EPOCH", [told["epoch"], 1]]


@PROCESS
async def test_what_was_on_its_way_is_uncertain(name: str):
    """The engine stands still, takes a publication, and dies: nobody can say whether it was published."""
    with Serving(APP, **MODES[name]) as server:
        async with client(server) as writer, client(server) as other:
            await writer.ask("publish", "room:doubt", "one")
            pid = server.pid_of("engine 0")
            os.kill(pid, signal.SIGSTOP)
            asked = asyncio.create_task(writer.ask("try", "room:doubt", "two"))
            history = asyncio.create_task(other.ask("try history", "room:doubt"))
            await asyncio.to_thread(server.wait_log, "^report asked", count=2)
            os.kill(pid, signal.SIGKILL)
            assert await asked == "uncertain"
            assert "engine" in await history


@PROCESS
async def test_what_a_worker_has_published_is_not_lost_with_its_end(name: str):
    """More than a channel takes, while the engine stands still; and the last words of a worker."""
    with Serving(APP, **MODES[name]) as server:
        engine = server.pid_of("engine 0")
        async with client(server) as one:
            os.kill(engine, signal.SIGSTOP)
            await one.ask("much", "told:much", 3000)
            mark = server.mark()
            server.signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_log, "generation 2 serves", since=mark)
            os.kill(engine, signal.SIGCONT)
            await asyncio.to_thread(server.wait_log, "reload: done", since=mark)
            _, publications, (_, top) = await one.ask("history", "told:much", {"limit": 1})
            assert top == 3000
            _, publications, _ = await one.ask("history", "room:stops", {})
            assert sorted(text for _, text in publications) == ["0 has stopped", "1 has stopped"]
        mark = server.mark()
        assert await asyncio.to_thread(server.stop) == 0
        assert not [line for line in server.lines[mark:] if "published" in line]
