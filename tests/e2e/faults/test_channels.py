"""F29, F30: channels between processes: both directions full at once, and one that ends inside a record."""

import asyncio
import contextlib
import os
import signal
import threading
import zlib

import pytest

from e2e.peers import UNCERTAIN, Rude, app, client, drained, in_loop, logged, taken
from support.serving import LIMIT, Serving

MIB = 1 << 20
FLOODED = {"write_limit": 256 * MIB, "in_flight_bytes": 64 * MIB, "worker_bytes": 64 * MIB, "max_message_size": 4 * MIB}


class Talk(threading.Thread):
    """Sends large messages as fast as it can, and reads as fast as it can; each gives `times` answers of that size."""

    def __init__(self, rude, count, size, times):
        super().__init__(daemon=True)
        self.rude, self.count, self.size, self.times = rude, count, size, times
        self.failure = None
        self.start()

    def run(self):
        try:
            sending = threading.Thread(target=self._send, daemon=True)
            sending.start()
            for n in range(self.count * self.times):
                (message,) = self.rude.read(1, 45)
                assert len(message) == self.size
                assert int(message[:8]) == n // self.times, "out of order"
            sending.join(LIMIT)
        except BaseException as failure:
            self.failure = failure

    def _send(self):
        with contextlib.suppress(OSError):
            for n in range(self.count):
                self.rude.socket.sendall(self.rude.frame(f"{n:08d}".ljust(self.size)))


@pytest.mark.parametrize(
    "mode",
    [{"mode": "process", "worker_num": 1}, {"mode": "process", "worker_num": 2, "gateway_num": 2}],
    ids=["one of each", "two of each"],
)
def test_f29_a_flood_in_both_directions(mode):
    """While a handler sends more than fits, more comes than fits: neither side waits for the other for ever."""
    code = """
    @server.on("message")
    def said(server, frame):
        for _ in range(10):
            server.push(frame.fd, frame.data)
    """
    with Serving(app(code), **FLOODED, **mode) as server, contextlib.ExitStack() as stack:
        talks = [Talk(stack.enter_context(Rude(server, receive_buffer=MIB)), 12, 500_000, 10) for _ in range(4)]
        for talk in talks:
            talk.join(60)
            assert not talk.is_alive()
            assert talk.failure is None, talk.failure
        assert server.stop() == 0
        assert drained(server)["finished"] == 48


@in_loop(60)
async def test_f30_a_worker_killed_in_the_middle_of_a_record():
    """More lies before it than its channel holds, the last record cut in two: none is lost, or wrong."""
    code = """
    import zlib

    @server.on("message")
    def said(server, frame):
        number, crc, filling = frame.data.split(" ", 2)
        if zlib.crc32(filling.encode()) != int(crc):
            report("wrong", number)
        report("begin", number, os.getpid())
        if number == "block" and not os.path.exists("go on"):
            time.sleep(600)
        server.push(frame.fd, f"{number} {crc} {os.getpid()} {filling}")
    """
    report = UNCERTAIN.replace('f"uncertain {frame.data}"', 'f"uncertain {frame.data[:5]}"').replace(
        'report("uncertain", frame.data, "|", reason)', ""
    )
    settings = {
        "in_flight_bytes": 2 * MIB,
        "worker_bytes": 64 * MIB,
        "max_message_size": 2 * MIB,
        "write_limit": 64 * MIB,
    }
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(Serving(app(code, report), worker_num=1, **settings))
        old = server.pid_of("worker 0")

        def message(number):
            filling = chr(97 + len(number)) * MIB
            return f"{number} {zlib.crc32(filling.encode())} {filling}"

        first = await stack.enter_async_context(client(server, max_size=None))
        crowd = [await stack.enter_async_context(client(server, max_size=None)) for _ in range(14)]
        await first.send("block 0 ")
        await logged(server, "^report begin block")
        for n, ws in enumerate(crowd):
            await ws.send(message(str(n)))
            await taken(ws)
        os.kill(old, signal.SIGKILL)
        gone = await logged(server, r"is gone: .*; (\d+) events go to another worker, (\d+) are uncertain")
        assert gone.groups() == ("14", "1")
        assert await first.recv() == "uncertain block"
        for n, ws in enumerate(crowd):
            number, crc, pid, filling = (await ws.recv()).split(" ")
            assert (number, int(pid) != old) == (str(n), True)
            assert zlib.crc32(filling.encode()) == int(crc)
        assert not server.reports("wrong")
        assert len(server.reports("begin")) == 15
        await first.close()
        for ws in crowd:
            await ws.close()
        assert server.stop() == 0
        assert drained(server)["uncertain"] == 1


@in_loop(60)
async def test_f30_answers_cut_in_the_middle_of_a_record():
    """The gateway reads half of an answer and the end: what it got is whole, the rest is said to be uncertain."""
    code = """
    import asyncio

    @server.on("message")
    def said(server, frame):
        report("begin", frame.data, os.getpid())
        for n in range(40):
            server.push(frame.fd, f"{n} {frame.data} ".ljust(1 << 20, "x"))
    """
    settings = {"write_limit": 256 * MIB, "worker_num": 1}
    with Serving(app(code, UNCERTAIN), **settings) as server:
        worker, gateway = server.pid_of("worker 0"), server.pid_of("gateway 0")
        async with client(server, max_size=None, max_queue=None) as ws:
            await ws.send("go")
            await logged(server, "^report begin go")
            os.kill(gateway, signal.SIGSTOP)
            os.kill(worker, signal.SIGKILL)
            os.kill(gateway, signal.SIGCONT)
            got = []
            while not (message := await ws.recv()).startswith("uncertain"):
                got.append(message)
            assert message == "uncertain go"
            assert [int(one.split()[0]) for one in got] == list(range(len(got)))
            assert {len(one) for one in got} <= {MIB}
            await ws.send("again")
            for n in range(40):
                assert (await ws.recv()).startswith(f"{n} again ")
        assert server.stop() == 0
        assert drained(server)["uncertain"] == 1


@in_loop(60)
async def test_f29_siblings_that_flood_each_other():
    """In base mode each process keeps clients and runs handlers; each sends to the clients of the other."""
    code = """
    other = {}

    @server.on("message")
    def said(server, frame):
        if frame.data.startswith("to "):
            other[frame.fd] = int(frame.data[3:])
            return server.push(frame.fd, f"{frame.fd} {os.getpid()}")
        report("floods", os.getpid())
        for n in range(160):
            server.push(other[frame.fd], f"{n:08d}".ljust(500_000))
    """
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(Serving(app(code), mode="base", worker_num=2, **FLOODED))
        by_pid = {}
        while len(by_pid) < 2 or min(map(len, by_pid.values())) < 2:
            ws = await stack.enter_async_context(client(server, max_queue=None))
            await ws.send("to 0")
            fd, pid = (await ws.recv()).split()
            by_pid.setdefault(pid, []).append((ws, fd))
        (here, there) = by_pid.values()
        for (ws, _), (_, fd) in ((here[0], there[1]), (there[0], here[1])):
            await ws.send(f"to {fd}")
            await ws.recv()
        await asyncio.gather(here[0][0].send("go"), there[0][0].send("go"))

        async def hear(ws):
            return [int((await ws.recv())[:8]) for _ in range(160)]

        assert await asyncio.gather(hear(here[1][0]), hear(there[1][0])) == [list(range(160))] * 2
        # beside this loop, so that the clients answer the closes
        assert await asyncio.to_thread(server.stop) == 0
