"""All subscribers of a topic see one order, also while those that publish are killed and stopped."""

import asyncio
import mmap
import os
import random
import signal
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from contract.clients import halted
from e2e.peers import fetch
from support.serving import LIMIT, Serving

APP = """
import asyncio
from itertools import count

go = server.atomic("go")

@server.on("open")
def opened(server, request):
    server.push(request.fd, str(request.fd >> 57))
    server.subscribe(request.fd, "news")

async def publish():
    while True:
        for n in range(5 * go.get()):
            server.publish("news", f"{os.getpid()} {next(numbers)}")
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)

@server.on("worker_start")
def started(server, worker):
    global numbers, running
    numbers = count()
    running = asyncio.get_running_loop().create_task(publish())

@server.on("message")
def said(server, frame):
    if frame.data == "begin":
        go.set(1)
    else:
        late = sum(gateway["published_out_of_order"] for gateway in server.stats()["gateways"])
        server.publish("news", f"the end {late}")
"""
MODES: list[dict[str, Any]] = [
    {"mode": "process", "gateway_num": 3, "worker_num": 3},
    {"mode": "base", "worker_num": 3},
]


async def listen(client: ClientConnection) -> list[str]:
    heard: list[str] = []
    async for message in client:
        heard.append(str(message))
        if heard[-1].startswith("the end"):
            return heard
    raise AssertionError("disconnected")


async def publishers_in_trouble(mode: dict[str, Any]) -> tuple[list[list[str]], dict[str, int]]:
    rng = random.Random(20261125)
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "proxy": None, "open_timeout": LIMIT}
    options["max_queue"] = None
    role = "worker" if mode["mode"] == "process" else "server"
    with Serving(APP, **mode) as server:
        async with AsyncExitStack() as stack:
            clients = []
            gateways = [server.pid_of(f"{'gateway' if role == 'worker' else role} {number}") for number in range(3)]
            for number in range(3):
                others = [pid for pid in gateways if pid != gateways[number]]
                with halted(*others):  # so that this one takes the next clients
                    for _ in range(2):
                        clients.append(await stack.enter_async_context(connect(server.url, **options)))
                        assert await clients[-1].recv() == str(number)
            listening = [asyncio.create_task(listen(client)) for client in clients]
            await clients[0].send("begin")
            done = {"stop": 0, "kill": 0}
            for _ in range(8):
                mark = server.mark()
                number = rng.randrange(3)
                pid = server.pid_of(f"{role} {number}")
                os.kill(pid, signal.SIGSTOP)
                done["stop"] += 1
                await asyncio.sleep(rng.random() / 4)  # how long it is stopped
                if role == "worker" and rng.random() < 0.5:
                    os.kill(pid, signal.SIGKILL)
                    done["kill"] += 1
                    await asyncio.to_thread(server.wait_log, "serves in place", since=mark)
                else:
                    os.kill(pid, signal.SIGCONT)
            await clients[0].send("end")
            return [await asyncio.wait_for(heard, LIMIT) for heard in listening], done


@pytest.mark.parametrize("mode", MODES, ids=["process", "base"])
def test_one_order_while_publishers_are_killed_and_stopped(mode: dict[str, Any]):
    """Nobody hears anything twice, or in another order than somebody else. Of a publisher that was killed, a gateway
    may have had a little more than another one."""
    heard, done = asyncio.run(publishers_in_trouble(mode))
    assert done["stop"] >= 8
    assert done["kill"] >= (1 if mode["mode"] == "process" else 0)
    # a stop that is longer than a publish is waited for is rare here, but this machine may be busy; then it was counted
    late = int(heard[0][-1].split()[-1])
    places = {message: place for place, message in enumerate(heard[0])}
    for messages in heard:
        assert len(set(messages)) == len(messages) > 100
        common = [places[message] for message in messages if message in places]
        assert len(common) > 100
        assert sum(one > next_one for one, next_one in pairwise(common)) <= late


FULL = """
@server.on("open")
def opened(server, request):
    server.push(request.fd, str(request.fd >> 57))
    server.subscribe(request.fd, "news")

@server.on("message")
def said(server, frame):
    if frame.data != "fill":
        server.publish("news", frame.data)
        return
    report("begun")
    while not os.path.exists("go"):     # without a turn of the loop: nothing is read of what others send
        time.sleep(0.01)
    server.publish("news", "mine")
    start = time.monotonic()
    for number in range(COUNT):
        server.push(frame.fd, f"{number:0{SIZE}}")
    report("took", time.monotonic() - start)

@server.on("request")
def late(request, response):
    response.json([gateway["published_out_of_order"] for gateway in server.stats()["gateways"]])
""".replace("COUNT", "400").replace("SIZE", "65536")  # 25 MiB; what waits for publishes of others may be 16


def forge(server: Serving, pid: int, number: int) -> None:
    """An entry in the log of a publish that will not come, as of a worker that is stopped in the middle of it."""
    folder = Path(f"/proc/{server.pid}/fd")
    [file] = [file for file in folder.iterdir() if "mooring-order" in os.readlink(file)]
    with file.open("r+b") as memory, mmap.mmap(memory.fileno(), 0) as log:
        tail = int.from_bytes(log[:8], "little")
        assert tail < 1 << 20, "the first lap"
        log[64 + 8 * tail : 72 + 8 * tail] = (1 << 52 | pid << 30 | number).to_bytes(8, "little")


async def one_on_each(server: Serving, stack: AsyncExitStack) -> list[ClientConnection]:
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "proxy": None, "open_timeout": LIMIT}
    clients: dict[str, ClientConnection] = {}
    while len(clients) < 2:
        client = await stack.enter_async_context(connect(server.url, max_queue=None, max_size=None, **options))
        clients.setdefault(str(await client.recv()), client)
    return [clients["0"], clients["1"]]


async def full_queue(forged: bool) -> None:
    with Serving(FULL, mode="base", worker_num=2, write_limit=64 << 20) as server:
        go = server.script.with_name("go")
        async with AsyncExitStack() as stack:
            one, other = await one_on_each(server, stack)
            await one.send("fill")
            await asyncio.to_thread(server.wait_log, "report begun")
            if forged:
                forge(server, server.pid_of("server 1"), 1000)
            else:
                await other.send("other")
                assert await other.recv() == "other"  # it is in the log, and lies unread before the other gateway
            mark = server.mark()
            go.touch()
            if not forged:
                assert await asyncio.wait_for(one.recv(), LIMIT) == "other"
            assert await asyncio.wait_for(one.recv(), LIMIT) == "mine"
            assert await asyncio.wait_for(other.recv(), LIMIT) == "mine"
            for number in range(400):
                assert await asyncio.wait_for(one.recv(), LIMIT) == f"{number:065536}"
            took = float((await asyncio.to_thread(server.wait_log, r"report took (\S+)", since=mark))[1])
            said = [line for line in server.lines[mark:] if "going on without it" in line]
            late = await asyncio.to_thread(fetch, server)
            if not forged:
                assert (late, said) == (b"[0,0]", [])
                return
            assert 0.2 < took < 10, "it has waited, for a limited time"
            assert len([line for line in said if "[server 0," in line and "within 1 s" in line]) == 1
            assert late == b"[0,0]", "nothing has come late so far"
            await other.send("late")
            assert await asyncio.wait_for(one.recv(), LIMIT) == "late"
            assert await asyncio.wait_for(other.recv(), LIMIT) == "late"
            assert (await asyncio.to_thread(fetch, server)) == b"[1,1]"


@pytest.mark.parametrize("forged", [False, True], ids=["for what is there unread", "for what does not come"])
def test_who_fills_the_queue_behind_a_publish_that_waits_waits_as_well(forged: bool):
    """Base mode: nothing overtakes, nothing is lost, and what one waits for in vain is said and counted."""
    asyncio.run(full_queue(forged))
