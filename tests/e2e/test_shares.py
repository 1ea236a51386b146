"""A worker that is new gets its share of the connections that are there, in order, with their sessions."""

import asyncio
import collections
import contextlib
import os
import signal
from collections.abc import Callable

import pytest
from websockets.asyncio.client import ClientConnection

from e2e.peers import STATS, adds_up, app, client, in_loop, logged, stats, taken, until
from support.serving import LIMIT, Serving

# Each answer: the worker, what the session has counted, what was said.
COUNTING = """
@server.on("open")
def opened(server, request):
    user = request.query.get("user")
    if user:
        server.bind(request.fd, user)

@server.on("message")
def said(server, frame):
    session = server.session(frame.fd)
    session["count"] = session.get("count", 0) + 1
    server.push(frame.fd, f"{server.worker_id} {session['count']} {frame.data}")

@server.on("close")
def left(server, fd, code, reason):
    report("close", code)
"""
CLIENTS = 12


class Crowd(contextlib.AsyncExitStack):
    """Clients that say something one after the other, and look at what they hear."""

    def __init__(self, server: Serving) -> None:
        super().__init__()
        self.server = server
        self.said = 0
        self.clients: list = []

    async def come(self, users: bool = False) -> None:
        for number in range(CLIENTS):
            path = f"/?user=u{number}" if users else "/"
            self.clients.append(await self.enter_async_context(client(self.server, path)))

    async def ask(self) -> list[int]:
        """One round: by which worker each was answered."""
        self.said += 1
        found = []
        for one in self.clients:
            await one.send(f"{self.said}")
            worker, count, said = (await one.recv()).split()
            assert (int(count), int(said)) == (self.said, self.said)
            found.append(int(worker))
        return found

    async def until(self, check: Callable[[list[int]], bool]) -> None:
        """The new worker serves a moment after that is said, and connections move when they speak."""
        async with asyncio.timeout(LIMIT):
            while not check(await self.ask()):
                await asyncio.sleep(0)


def even(workers: list[int]) -> bool:
    return collections.Counter(workers) == {0: CLIENTS // 2, 1: CLIENTS // 2}


@pytest.mark.parametrize("spares", [0, 1])
@in_loop()
async def test_the_successor_of_a_worker_serves_half_of_those_in_use_again(spares):
    with Serving(app(COUNTING, STATS), worker_num=2, spare_worker_num=spares) as server:
        if spares:
            await until(lambda: "mooring: spare 0" in server.titles().values())
        async with Crowd(server) as crowd:
            await crowd.come()
            assert even(await crowd.ask())
            for number in (0, 1, 0):
                mark = server.mark()
                os.kill(server.pid_of(f"worker {number}"), signal.SIGKILL)
                await logged(server, f"worker {number} .* is gone", since=mark)
                # all of them are in use while it is away: those that it had go to the other one
                while not any("serves in place" in line for line in server.lines[mark:]):
                    await crowd.ask()
                # one that was dying when its successor came has been counted, too
                await crowd.until(lambda workers: CLIENTS // 3 <= sum(workers) <= CLIENTS - CLIENTS // 3)
        assert not [line for line in server.reports("close") if line != "1000"]
        counts = await asyncio.to_thread(stats, server)
        assert adds_up(counts)
        assert counts["uncertain"] == 0


@in_loop()
async def test_it_gets_its_share_while_clients_do_not_stop():
    """Each has always something in flight, and hears all of it, in order."""
    with Serving(app(COUNTING), worker_num=2, redeliver=True) as server:
        async with Crowd(server) as crowd:
            await crowd.come()
            sent = [0] * CLIENTS
            heard = [0] * CLIENTS
            workers = [0] * CLIENTS

            async def talk(number: int) -> None:
                one = crowd.clients[number]
                while True:
                    while sent[number] < heard[number] + 4:
                        sent[number] += 1
                        await one.send(str(sent[number]))
                    worker, _, said = (await one.recv()).split()
                    assert int(said) == heard[number] + 1
                    heard[number] += 1
                    workers[number] = int(worker)

            async with asyncio.TaskGroup() as group:
                talkers = [group.create_task(talk(number)) for number in range(CLIENTS)]
                await until(lambda: min(heard) > 20)
                for number in (0, 1):
                    mark = server.mark()
                    os.kill(server.pid_of(f"worker {number}"), signal.SIGKILL)
                    await logged(server, "serves in place", since=mark)
                    now = min(heard)
                    await until(lambda: min(heard) > now + 20)  # noqa: B023 - used at once
                    # which has less to do just now, counts, too
                    await until(lambda: CLIENTS // 4 <= sum(workers) <= CLIENTS - CLIENTS // 4)
                for task in talkers:
                    task.cancel()


@in_loop()
async def test_where_users_decide_each_goes_back_to_the_worker_that_is_its_own():
    with Serving(app(COUNTING, STATS), worker_num=2, dispatch="user") as server:
        async with Crowd(server) as crowd:
            await crowd.come(users=True)
            await crowd.ask()
            own = await crowd.ask()
            assert set(own) == {0, 1}
            for number in (0, 1):
                mark = server.mark()
                os.kill(server.pid_of(f"worker {number}"), signal.SIGKILL)
                await logged(server, f"worker {number} .* is gone", since=mark)
                while not any("serves in place" in line for line in server.lines[mark:]):
                    await crowd.ask()
                await crowd.until(lambda workers: workers == own)


@in_loop()
async def test_one_that_has_something_in_flight_moves_when_that_is_done():
    code = """
    import asyncio

    @server.on("message")
    async def said(server, frame):
        if frame.data == "wait":
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
        server.push(frame.fd, f"{frame.data} {server.worker_id}")
    """
    with Serving(app(code), worker_num=2) as server:
        async with contextlib.AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(client(server)) for _ in range(4)]
            homes = []
            for one in crowd:
                await one.send("who")
                homes.append((await one.recv()).split()[1])
            mark = server.mark()
            os.kill(server.pid_of("worker 0"), signal.SIGKILL)
            await logged(server, "worker 0 .* is gone", since=mark)
            for one in crowd:
                await one.send("who")
                await one.recv()
                await one.send("wait")
                await taken(one)
            waits = [home for home in homes if home == "0"]
            assert len(waits) == 2
            await logged(server, "serves in place", since=mark)
            newcomer = await stack.enter_async_context(client(server))
            async with asyncio.timeout(LIMIT):
                await newcomer.send("who")
                while not (await newcomer.recv()).endswith(" 0"):  # until the least loaded one is the new one
                    newcomer = await stack.enter_async_context(client(server))
                    await newcomer.send("who")
            for one in crowd:
                await one.send("then")
            server.script.with_name("go").touch()
            moved = []
            for one in crowd:
                first, second = await one.recv(), await one.recv()
                assert first.startswith("wait ")
                assert second.startswith("then ")
                moved.append(second.split()[1])
            assert sorted(set(moved)) == ["0", "1"]


@in_loop()
async def test_who_has_moved_leaves_nothing_behind():
    """The worker that served it before knows nothing of its session any more, also when it has left."""
    code = """
    @server.on("open")
    def opened(server, request):
        server.session(request.fd)["secret"] = "of whoever was here"

    @server.on("message")
    def said(server, frame):
        if frame.data == "kept":
            return server.push(frame.fd, str(len(server._running().sessions._copies)))
        fd = int(frame.data or frame.fd)
        server.push(frame.fd, f"{server.worker_id} {fd} {len(server.session(fd))}")
    """

    async def ask(one, text: str = "") -> list[int]:
        await one.send(text)
        return [int(word) for word in (await one.recv()).split()]

    async def empty(one, fd: int) -> None:
        async with asyncio.timeout(LIMIT):
            while (await ask(one, str(fd)))[2]:
                await asyncio.sleep(0.01)

    with Serving(app(code), worker_num=2) as server:
        async with contextlib.AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(client(server)) for _ in range(8)]
            home, *_ = await ask(crowd[0])
            mark = server.mark()
            os.kill(server.pid_of(f"worker {1 - home}"), signal.SIGKILL)
            await logged(server, f"worker {1 - home} .* is gone", since=mark)
            for one in crowd:
                assert (await ask(one))[0] == home
            await logged(server, "serves in place", since=mark)
            moved: dict[int, ClientConnection] = {}
            async with asyncio.timeout(LIMIT):
                while len(moved) < 4:
                    for one in crowd:
                        number, fd, _ = await ask(one)
                        if number != home:
                            moved[fd] = one
            stays = next(one for one in crowd if one not in moved.values())
            for one in moved.values():
                await one.close()
            for fd in moved:
                await empty(stays, fd)
            assert await ask(stays, "kept") == [4]
