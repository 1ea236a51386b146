"""The desk that answers on the control socket: who may ask, what is counted, and its end."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from mooring.admin import calls
from mooring.admin import desk as module
from mooring.admin.aio import AsyncControlClient
from mooring.admin.calls import peer_uid
from mooring.admin.client import ControlClient
from mooring.admin.desk import Desk
from mooring.app.search import FoundConnection, Search
from mooring.errors import AdminError, ServerUnreachable, StateError
from mooring.net.refusals import RefusalLog
from mooring.types import ClientInfo, ConnectionState


class Ends:
    """Nobody's connection ends here."""

    def keeps(self, listener: int | None) -> bool:
        return True

    def open_tail(self, wants: object) -> object:
        raise AssertionError

    def close_tail(self, tail: object) -> None:
        raise AssertionError

    def end_tails(self) -> None:
        pass


class Tally:
    def __init__(self) -> None:
        self.ends = Ends()
        self.counters = {"control_refused": 0}
        self.control_refused_reasons: dict[str, int] = {}
        self.refusals = RefusalLog(asyncio.get_running_loop().call_later, logging.getLogger("test.desk"))


class Server:
    """Of a server, what these tests ask for."""

    def stats(self) -> dict[str, Any]:
        return {"tree": {}}


@contextlib.asynccontextmanager
async def serving(path: Path, server: Server | None = None) -> AsyncIterator[tuple[Desk, Tally, asyncio.Event]]:
    """A desk, its counts, and what its answer about processes waits for."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    tally, go_on = Tally(), asyncio.Event()

    async def processes() -> list[dict[str, Any]]:
        await go_on.wait()
        return [{"role": "worker"}]

    served: Any = server or Server()
    desk = Desk(listener, served, served, tally, can_reload=True, processes=processes)
    desk.open()
    try:
        yield desk, tally, go_on
    finally:
        await desk.finish()


def test_whose_process_has_connected():
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.geteuid()


def test_others_than_the_user_of_the_server_and_root_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async def ask() -> None:
        async with serving(tmp_path / "socket") as (_, tally, _):
            client = AsyncControlClient(tmp_path / "socket")
            assert await client.stats() == {"tree": {}}
            monkeypatch.setattr(module, "peer_uid", lambda _talk: 0)
            assert await client.stats() == {"tree": {}}
            monkeypatch.setattr(module, "peer_uid", lambda _talk: os.geteuid() + 4711)
            for _ in range(30):
                with pytest.raises(AdminError, match=f"root may ask; this is uid {os.geteuid() + 4711}"):
                    await client.stats()
            assert tally.control_refused_reasons == {"wrong_user": 30}
            assert tally.counters["control_refused"] == 30

    with caplog.at_level(logging.INFO, "test.desk"):
        asyncio.run(ask())
    assert 1 <= sum("root may ask" in line for line in caplog.messages) < 30, "the lines are limited"


def test_nothing_is_asked_of_another_user_unless_by_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Who may write in the folder can listen there before the server does."""
    path, theirs = tmp_path / "socket", os.geteuid() + 4711
    monkeypatch.setattr(calls, "peer_uid", lambda _talk: theirs)
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(str(path))
        planted.listen()
        planted.settimeout(5)
        monkeypatch.setattr(os, "geteuid", lambda: 4710)
        for ask in (
            ControlClient(path, 2).shutdown,
            lambda: asyncio.run(AsyncControlClient(path, 2).push(7, "secret")),
        ):
            with pytest.raises(AdminError, match=f"another user, uid {theirs}, not by you, uid 4710, or root: nothing"):
                ask()
            with planted.accept()[0] as talk:
                assert talk.recv(100) == b"", "it was asked"
        for own, other in ((0, theirs), (theirs, theirs), (4710, 0)):
            monkeypatch.setattr(os, "geteuid", lambda own=own: own)
            monkeypatch.setattr(calls, "peer_uid", lambda _talk, other=other: other)
            with pytest.raises(ServerUnreachable, match="not answered within"):
                ControlClient(path, timeout=0.05).shutdown()


def test_whoever_takes_the_end_of_an_answer_later_is_no_error(tmp_path: Path):
    """Some of it waits in the process when it is closed; how much the kernel takes differs."""

    class Full(Server):
        def __init__(self, size: int) -> None:
            self._size = size

        def stats(self) -> dict[str, Any]:
            return {"text": "x" * self._size}

    async def ask(size: int) -> None:
        async with serving(tmp_path / "socket", Full(size)) as (desk, _, _):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "socket", limit=1)
            writer.write(b'{"command": "stats"}\n')
            while not desk._clients:
                await asyncio.sleep(0)
            (task,) = desk._clients
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(10):
                while desk._asking:
                    await asyncio.sleep(0.001)
                writer.transport.resume_reading()  # type: ignore[attr-defined]
                assert len(await reader.read()) > size
                await asyncio.wait([task])
            assert task.exception() is None
            writer.close()

    for size in range(20_000, 400_000, 40_000):
        (tmp_path / "socket").unlink(missing_ok=True)
        asyncio.run(ask(size))


def test_whoever_has_asked_is_answered_when_it_ends(tmp_path: Path):
    async def ask() -> None:
        async with serving(tmp_path / "socket") as (desk, _, go_on):
            client = AsyncControlClient(tmp_path / "socket")
            asking = asyncio.create_task(client.processes())
            while not desk._clients:
                await asyncio.sleep(0)
            ending = asyncio.create_task(desk.finish())
            await asyncio.sleep(0)
            go_on.set()
            await ending
            assert not desk._clients, "it has waited for who had asked"
            assert await asking == [{"role": "worker"}]
            with pytest.raises(ServerUnreachable):
                await client.stats()

    asyncio.run(ask())


def test_who_has_asked_nothing_does_not_hold_it_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FINISH", 0.01)

    async def ask() -> None:
        async with serving(tmp_path / "socket") as (desk, _, _):
            with socket.socket(socket.AF_UNIX) as silent:
                silent.connect(str(tmp_path / "socket"))
                while not desk._clients:
                    await asyncio.sleep(0)
                await asyncio.wait_for(desk.finish(), 3)

    asyncio.run(ask())


def test_without_descriptors_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ACCEPT_AGAIN", 0.01)

    async def ask() -> None:
        async with serving(tmp_path / "socket") as (desk, _, _):
            real = desk._listener

            class Exhausted:
                tries = 0

                def accept(self) -> tuple[socket.socket, object]:
                    self.tries += 1
                    if self.tries < 3:
                        raise OSError(24, "Too many open files")
                    return real.accept()

                def __getattr__(self, name: str) -> Any:
                    return getattr(real, name)

            desk._listener = Exhausted()  # type: ignore[assignment]
            assert await AsyncControlClient(tmp_path / "socket").stats() == {"tree": {}}

    asyncio.run(ask())


PAGES = 5


class Crowded(Server):
    """One with many connections, and what has happened elsewhere in the loop before each page."""

    def __init__(self) -> None:
        self.turns = 0
        self.seen: list[int] = []
        self.breaks = False

    def listing(self, search: Search) -> tuple[int, Iterator[list[FoundConnection]]]:
        def pages() -> Iterator[list[FoundConnection]]:
            for page in range(PAGES):
                self.seen.append(self.turns)
                if self.breaks and page == 2:
                    raise StateError("a gateway has ended")
                fds = range(page * 10, page * 10 + 10)
                yield [FoundConnection(0, fd, 1.0, 1.0, b"/", b"", 0, 0, None, None) for fd in fds]

        return 10 * PAGES, pages()

    def get_client_info(self, fd: int) -> ClientInfo | None:
        if 10 <= fd < 30:  # they have left meanwhile, two pages of them
            return None
        return ClientInfo(fd, ConnectionState.OPEN, "", 0, 0, 0, 0.0, 0.0, 0, 0, 0, 0, 0)


def test_a_long_list_is_made_a_page_at_a_time(tmp_path: Path):
    """Between two pages handlers have their turn; who has left until its page is made is not in it."""

    async def ask() -> None:
        server = Crowded()

        async def handlers() -> None:
            while True:
                server.turns += 1
                await asyncio.sleep(0)

        async with serving(tmp_path / "socket", server) as (_, tally, _):
            busy = asyncio.create_task(handlers())
            client = AsyncControlClient(tmp_path / "socket")
            found = await client.listing()
            assert found["total"] == 10 * PAGES
            assert [one["fd"] for one in found["connections"]] == [*range(10), *range(30, 50)]
            assert len(server.seen) == PAGES
            assert sorted(set(server.seen)) == server.seen
            server.breaks = True
            with pytest.raises((AdminError, ServerUnreachable)):
                await client.listing()
            assert tally.control_refused_reasons == {"failed": 1}
            assert await client.stats() == {"tree": {}}
            busy.cancel()

    asyncio.run(ask())
