"""Two connections of one life, against a server that answers as the test says."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest
from redis.asyncio.connection import UnixDomainSocketConnection
from redis.exceptions import ResponseError

from mooring.engine.redis.connections import Lost, Pair
from mooring.engine.redis.scripts import BEAT

LIMIT = 20.0


class Server:
    """Takes requests of any connection, one after the other; `answer(words)` has what is sent back, or None."""

    def __init__(self, path):
        self.path = str(path)
        self.requests = []
        self.writers = []
        self.serving = []
        self.answers = {}
        self.came = asyncio.Event()

    async def accept(self, reader, writer):
        self.writers.append(writer)
        self.serving.append(asyncio.current_task())
        try:
            while line := await reader.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                self.requests.append((writer, words))
                self.came.set()
                if words[0] == b"CLIENT":
                    writer.write(b"+OK\r\n")
                elif words[0] in self.answers:
                    writer.write(self.answers[words[0]])
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def until(self, word):
        """Who has sent it, when it has come."""
        async with asyncio.timeout(LIMIT):
            while True:
                for writer, words in self.requests:
                    if words[0] == word:
                        return writer
                self.came.clear()
                await self.came.wait()


@asynccontextmanager
async def opened(tmp_path, limit=LIMIT):
    server = Server(tmp_path / "s")
    listening = await asyncio.start_unix_server(server.accept, server.path)
    heard = []

    async def resolve():
        return UnixDomainSocketConnection(path=server.path, protocol=2, socket_timeout=None)

    pair = await Pair.open(resolve, lambda channel, message: heard.append((channel, message)), limit)
    running = asyncio.create_task(pair.run())
    server.heard, server.pair, server.running = heard, pair, running
    try:
        yield server
    finally:
        pair.give_up("the test ends")
        with pytest.raises(Lost):
            await running
        await pair.close()
        listening.close()
        await asyncio.gather(*server.serving)


def run(test):
    async def limited():
        async with asyncio.timeout(2 * LIMIT):
            await test()

    asyncio.run(limited())


def test_answers_go_to_who_has_asked_in_order(tmp_path):
    async def test():
        async with opened(tmp_path) as server:
            asked = [asyncio.create_task(server.pair.call("A", i, b"\0\r\n")) for i in range(3)]
            writer = await server.until(b"A")
            writer.write(b":1\r\n$2\r\n\xff\r\r\n*2\r\n:3\r\n$-1\r\n")
            assert await asyncio.gather(*asked) == [1, b"\xff\r", [3, None]]
            assert [words for _, words in server.requests if words[0] == b"A"] == [
                [b"A", b"%d" % i, b"\0\r\n"] for i in range(3)
            ]

    run(test)


def test_an_error_is_an_answer(tmp_path):
    async def test():
        async with opened(tmp_path) as server:
            server.answers[b"A"] = b"-NO because\r\n"
            with pytest.raises(ResponseError, match="because"):
                await server.pair.call("A")
            server.answers[b"A"] = b":1\r\n"
            assert await server.pair.call("A") == 1

    run(test)


def test_a_request_without_an_answer_ends_both(tmp_path):
    async def test():
        async with opened(tmp_path, 0.2) as server:
            other = asyncio.create_task(server.pair.call("B"))
            with pytest.raises(Lost, match=r"no answer within 0\.2 s"):
                await server.pair.call("A")
            with pytest.raises(Lost):
                await other
            with pytest.raises(Lost):
                await server.pair.call("A")
            with pytest.raises(Lost, match="no answer"):
                await asyncio.shield(server.running)

    run(test)


def test_who_does_not_wait_any_more_leaves_the_answers_of_others(tmp_path):
    async def test():
        async with opened(tmp_path) as server:
            first = asyncio.create_task(server.pair.call("A"))
            second = asyncio.create_task(server.pair.call("A"))
            writer = await server.until(b"A")
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            writer.write(b":1\r\n:2\r\n")
            assert await second == 2

    run(test)


@pytest.mark.parametrize("which", [0, 1])
def test_the_end_of_one_is_the_end_of_both(tmp_path, which):
    async def test():
        async with opened(tmp_path) as server:
            waits = asyncio.create_task(server.pair.call("A"))
            await server.until(b"A")
            server.writers[which].close()
            with pytest.raises(Lost, match="closed"):
                await waits
            with pytest.raises(Lost):
                await server.pair.subscribe([b"c"])
            assert len(server.writers) == 2, "nothing is opened again"

    run(test)


def test_what_is_no_answer_ends_both(tmp_path):
    async def test():
        async with opened(tmp_path) as server:
            server.answers[b"A"] = b"what?\r\n"
            with pytest.raises(Lost):
                await server.pair.call("A")

    run(test)


def test_a_script_that_the_server_does_not_know_is_told(tmp_path):
    async def test():
        async with opened(tmp_path) as server:
            server.answers = {b"EVALSHA": b"-NOSCRIPT No matching script.\r\n", b"EVAL": b":5\r\n"}
            assert await server.pair.script(BEAT, [b"k"], [b"x", 1]) == 5
            sent = [words for _, words in server.requests if words[0].startswith(b"EVAL")]
            assert sent == [
                [b"EVALSHA", BEAT.sha.encode(), b"1", b"k", b"x", b"1"],
                [b"EVAL", BEAT.text, b"1", b"k", b"x", b"1"],
            ]

    run(test)


def test_a_subscription_is_one_when_it_is_confirmed(tmp_path):
    async def test():
        async with opened(tmp_path) as server:
            subscribed = asyncio.create_task(server.pair.subscribe([b"a", b"b"]))
            writer = await server.until(b"SUBSCRIBE")
            writer.write(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n")
            async with asyncio.timeout(LIMIT):
                while not server.heard:
                    await asyncio.sleep(0)
            assert server.heard == [(b"a", b"x")]
            assert not subscribed.done()
            writer.write(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n")
            await subscribed
            await server.pair.subscribe([])
            await server.pair.unsubscribe([b"a"])
            await server.until(b"UNSUBSCRIBE")

    run(test)


def test_a_subscription_that_is_not_confirmed_ends_both(tmp_path):
    async def test():
        async with opened(tmp_path, 0.2) as server:
            with pytest.raises(Lost, match="subscription"):
                await server.pair.subscribe([b"a"])

    run(test)


def test_where_nobody_listens(tmp_path):
    async def resolve():
        return UnixDomainSocketConnection(path=str(tmp_path / "none"), protocol=2)

    async def test():
        with pytest.raises(Lost):
            await Pair.open(resolve, lambda channel, message: None, LIMIT)

    run(test)


def test_who_does_not_let_us_in(tmp_path):
    async def test():
        ended = asyncio.Event()

        async def silent(reader, writer):
            await reader.read()
            writer.close()
            await writer.wait_closed()
            ended.set()

        listening = await asyncio.start_unix_server(silent, str(tmp_path / "s"))

        async def resolve():
            return UnixDomainSocketConnection(path=str(tmp_path / "s"), protocol=2, socket_timeout=None)

        with pytest.raises(Lost, match="did not let us in"):
            await Pair.open(resolve, lambda channel, message: None, 0.2)
        await ended.wait()
        listening.close()

    run(test)
