"""Which worker serves a connection: the least loaded, the one of its address or user, the one a function says."""

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from support.serving import Serving, eventually

APP = """
@server.on("open")
def opened(server, request):
    server.push(request.fd, str(server.worker_id))

@server.on("message")
def said(server, frame):
    if str(frame.data).startswith("bind "):
        server.bind(frame.fd, frame.data[5:] or None)
    server.push(frame.fd, str(server.worker_id))
"""
LIMIT = 20.0
MODE = {"mode": "process", "worker_num": 3, "max_connections_per_address": 0}


@contextlib.contextmanager
def client(server: Serving, *, source: str = "127.0.0.1"):
    with connect(
        f"{server.url}/", compression=None, ping_interval=None, open_timeout=LIMIT, source_address=(source, 0)
    ) as ws:
        yield ws


def ask(ws: ClientConnection, text: str = "who?") -> int:
    ws.send(text)
    return int(ws.recv(LIMIT))


def worker_of(ws: ClientConnection) -> int:
    """As `open` says it."""
    return int(ws.recv(LIMIT))


@pytest.fixture
def clients():
    with contextlib.ExitStack() as stack:
        yield stack


def test_connections_are_spread_evenly(clients):
    with Serving(APP, **MODE) as server:
        found = Counter(worker_of(clients.enter_context(client(server))) for _ in range(30))
        assert set(found) == {0, 1, 2}
        assert max(found.values()) - min(found.values()) <= 2


def test_a_stopped_worker_gets_no_new_connections(clients):
    with Serving(APP, **MODE) as server:
        stuck = clients.enter_context(client(server))
        number = worker_of(stuck)
        pid = server.pid_of(f"worker {number}")
        os.kill(pid, signal.SIGSTOP)
        try:
            stuck.send("does nobody hear me?")
            # once it has been silent for longer than a second, it is passed over
            with pytest.raises(TimeoutError):
                stuck.recv(1.5)
            for _ in range(12):
                assert worker_of(clients.enter_context(client(server))) != number
        finally:
            os.kill(pid, signal.SIGCONT)
        assert int(stuck.recv(LIMIT)) == number


@contextlib.contextmanager
def stopped(pid: int, witness: ClientConnection, seconds: float):
    """That process is stopped, for so long already; nothing comes to the witness meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            witness.recv(seconds)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_stopped_worker_that_had_nothing_to_do_gets_no_new_connections(clients):
    """No client has to find out."""
    with Serving(APP, **MODE) as server:
        witness = clients.enter_context(client(server))
        number = (worker_of(witness) + 1) % 3
        with stopped(server.pid_of(f"worker {number}"), witness, 4.0):
            found = {worker_of(clients.enter_context(client(server))) for _ in range(12)}
            assert found == {0, 1, 2} - {number}
        # afterwards it gets those that the others have got more than it
        found = {worker_of(clients.enter_context(client(server))) for _ in range(6)}
        assert number in found


def test_the_keys_of_a_stopped_worker_are_with_others_until_it_goes_on(clients):
    with Serving(APP, dispatch="address", **MODE) as server:
        theirs = {}  # worker -> an address
        for last in range(1, 60):
            ws = clients.enter_context(client(server, source=f"127.0.0.{last}"))
            theirs.setdefault(worker_of(ws), (f"127.0.0.{last}", ws))
            if len(theirs) == 3:
                break
        source, _ = theirs[0]
        with stopped(server.pid_of("worker 0"), theirs[1][1], 7.0):
            assert worker_of(clients.enter_context(client(server, source=source))) != 0
            other = clients.enter_context(client(server, source=theirs[1][0]))
            assert worker_of(other) == 1, "other keys stay where they are"
        assert ask(theirs[0][1]) == 0

        def back() -> bool:
            with client(server, source=source) as ws:
                return worker_of(ws) == 0

        eventually(back)


def test_by_address_one_worker_serves_all_of_an_address(clients):
    with Serving(APP, dispatch="address", **MODE) as server:
        homes = {}
        for _ in range(3):
            for last in range(1, 25):
                source = f"127.0.0.{last}"
                worker = worker_of(clients.enter_context(client(server, source=source)))
                assert homes.setdefault(source, worker) == worker
        assert set(homes.values()) == {0, 1, 2}


def test_by_user_a_connection_moves_to_the_worker_of_its_user(clients):
    with Serving(APP, dispatch="user", **MODE) as server:
        homes = {}
        for turn in range(3):
            for number in range(12):
                ws = clients.enter_context(client(server))
                worker_of(ws)
                ask(ws, f"bind user {number}")
                home = ask(ws)
                assert homes.setdefault(number, home) == home, f"turn {turn}"
                assert ask(ws) == home
        assert set(homes.values()) == {0, 1, 2}


def test_messages_stay_in_order_while_a_connection_moves(clients):
    app = """
    import asyncio

    @server.on("message")
    async def said(server, frame):
        await asyncio.sleep(0.001 * (int(frame.data) % 3))
        if int(frame.data) % 10 == 0:
            server.bind(frame.fd, frame.data)
        server.push(frame.fd, f"{frame.data} {server.worker_id}")
    """
    with Serving(app, dispatch="user", **MODE) as server:
        ws = clients.enter_context(client(server))
        for number in range(200):
            ws.send(str(number))
        got = [ws.recv(LIMIT).split() for _ in range(200)]
        assert [int(number) for number, _ in got] == list(range(200))
        assert {worker for _, worker in got} == {"0", "1", "2"}


def test_a_key_stays_where_it_is_when_another_worker_dies(clients):
    with Serving(APP, dispatch="address", **MODE) as server:
        sources = [f"127.0.0.{last}" for last in range(1, 25)]
        before = {source: worker_of(clients.enter_context(client(server, source=source))) for source in sources}
        mark = server.mark()
        os.kill(server.pid_of("worker 0"), signal.SIGKILL)
        server.wait_log("serves in place", since=mark)
        after = {source: worker_of(clients.enter_context(client(server, source=source))) for source in sources}
        assert after == before


FUNCTION = """
def choose(client):
    if client.remote_ip == "127.0.0.9":
        raise RuntimeError("this one I cannot place")
    return None if client.remote_ip == "127.0.0.8" else client.remote_ip.split(".")[-1]
"""


def test_a_function_of_the_application_decides(clients, tmp_path: Path):
    (tmp_path / "placing.py").write_text(FUNCTION)
    script = tmp_path / "app.py"
    from support import serving

    script.write_text(serving.PREAMBLE + APP + "\nserver.start()\n")
    with Serving(script, dispatch="placing:choose", cwd=tmp_path, **MODE) as server:
        homes = {}
        for _ in range(2):
            for last in range(10, 30):
                worker = worker_of(clients.enter_context(client(server, source=f"127.0.0.{last}")))
                assert homes.setdefault(last, worker) == worker
        assert set(homes.values()) == {0, 1, 2}
        mark = server.mark()
        worker_of(clients.enter_context(client(server, source="127.0.0.8")))
        worker_of(clients.enter_context(client(server, source="127.0.0.9")))
        server.wait_log("this one I cannot place", since=mark)
        for _ in range(10):
            assert ask(clients.enter_context(client(server, source="127.0.0.9"))) in (0, 1, 2)
        server.wait_log("the 8. failure", since=mark)
        assert len([line for line in server.lines if "failed on connection" in line]) == 4, "the 1., 2., 4. and 8."


@pytest.mark.parametrize(
    ("dispatch", "why"),
    [
        ("nowhere:choose", "no module 'nowhere'"),
        ("json:choose", "no function 'choose'"),
        ("round robin", "MODULE:FUNCTION"),
    ],
)
def test_a_function_that_is_not_there_is_said_at_the_start(dispatch: str, why: str):
    with Serving(APP, ready=False, dispatch=dispatch, **MODE) as server:
        assert server.ended() != 0
        server.wait_log(why)
