"""Other programs on the machine ask a server that runs, through its control socket."""

import asyncio
import contextlib
import errno
import inspect
import itertools
import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mooring
from contract.clients import Peer, Raw, crowd, dial, gateways_of
from contract.modes import only
from mooring import AdminError, AsyncControlClient, ControlClient, ServerUnreachable
from mooring.admin.desk import CLIENTS
from mooring.admin.finder import PAGE
from mooring.admin.requests import LINE_LIMIT
from mooring.app.search import SORTS
from mooring.cli import main
from support.descriptors import open_descriptors
from support.serving import Serving, eventually

APPLICATION = """
@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")
    server.bind(request.fd, request.query.get("user", "nobody"))
    server.push(request.fd, json.dumps({"fd": request.fd, "worker": server.worker_id, "pid": os.getpid()}))

@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)
"""


@contextlib.contextmanager
def serve(mode: dict[str, Any], path: Path) -> Iterator[Serving]:
    with Serving(APPLICATION, **mode, control_socket=str(path)) as running:
        yield running
        if running.process.poll() is None:
            assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])
        assert not path.exists()


@pytest.fixture(scope="module")
def path(mode: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control") / "control.sock"


@pytest.fixture(scope="module")
def asked(mode: dict[str, Any], path: Path) -> Iterator[Serving]:
    with serve(mode, path) as running:
        yield running


@pytest.fixture
def client(asked: Serving, path: Path) -> ControlClient:
    return mooring.connect(path, timeout=20)


def talk(path: Path, data: bytes, *, shut: bool = False) -> bytes:
    """What comes for these bytes, until the server closes."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(str(path))
        with contextlib.suppress(BrokenPipeError):  # refused before everything was read
            raw.sendall(data)
        if shut:
            raw.shutdown(socket.SHUT_WR)
        answer = b""
        while part := raw.recv(65536):
            answer += part
            if answer.endswith(b"\n"):
                break
        return answer


def command(path: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--socket", str(path), "--timeout", "20"])


async def take(peers: list[Peer]) -> list[str | bytes]:
    return [await peer.recv() for peer in peers]


async def test_it_pushes_to_connections_of_every_gateway(asked: Serving, mode: dict[str, Any], client: ControlClient):
    async with crowd(asked, mode, "/", user="ann") as peers, dial(asked, "/", user="bob") as stranger:
        everybody = [*peers, stranger]
        for peer in everybody:
            assert client.push(peer.fd, "to you") is True
            assert client.push(peer.fd, b"\x00\xff") is True
            assert await peer.take(2) == ["to you", b"\x00\xff"]
        client.publish("all", "to all")
        assert await take(everybody) == ["to all"] * len(everybody)
        client.push_user("ann", "to ann")
        client.publish("all", "fence")
        assert await take(peers) == ["to ann"] * len(peers)
        assert await take(everybody) == ["fence"] * len(everybody)


async def test_it_closes_connections(asked: Serving, mode: dict[str, Any], client: ControlClient):
    async with crowd(asked, mode, "/", user="carl") as peers, dial(asked, "/", user="dora") as other:
        assert client.disconnect(other.fd, 4001, "out") is True
        assert await other.ended() == (4001, "out")
        assert client.disconnect_user("carl", 4002, "all out") == len(peers)
        for peer in peers:
            assert await peer.ended() == (4002, "all out")
        eventually(lambda: client.inspect(other.fd) is None)
        assert client.disconnect(other.fd) is False
        assert client.push(other.fd, "nobody") is False


async def test_it_tells_of_connections(asked: Serving, mode: dict[str, Any], client: ControlClient):
    async with crowd(asked, mode, "/", user="eve") as peers:
        fds = {peer.fd for peer in peers}
        assert {one["fd"] for one in client.connections("eve")} == fds
        assert fds <= {one["fd"] for one in client.connections()}
        assert len(client.connections("eve", limit=1)) == 1
        assert client.listing("eve", limit=1)["total"] == len(peers)
        found = client.inspect(peers[0].fd)
        assert found is not None
        assert (found["fd"], found["state"], found["remote_ip"]) == (peers[0].fd, "OPEN", "127.0.0.1")
        stats = client.stats()
        assert stats["connections"] >= len(peers)
        assert len(stats["gateways"]) == gateways_of(mode)
        assert stats["tree"]["workers_running"] == mode["worker_num"]


def found(client: ControlClient, **search: Any) -> list[int]:
    return [one["fd"] for one in client.connections(**search)]


async def test_a_list_of_several_pages_is_in_one_order(asked: Serving, mode: dict[str, Any], client: ControlClient):
    async with contextlib.AsyncExitStack() as stack:
        many = [await stack.enter_async_context(dial(asked, "/many", user=f"m{n}")) for n in range(PAGE * 2 + 10)]
        everybody = found(client, path="/many")
        assert sorted(everybody) == sorted(one.fd for one in many)
        since = [one["connect_time"] for one in client.connections(path="/many")]
        # each gateway has noted for itself what the wall clock was
        assert all(one < next_one + 0.001 for one, next_one in itertools.pairwise(since)), "the oldest come first"
        assert found(client, path="/many", reverse=True) == everybody[::-1]
        assert found(client, path="/many", limit=PAGE + 1) == everybody[: PAGE + 1]
        for sort in SORTS:
            there = client.connections(path="/many", sort=sort)
            assert sorted(one["fd"] for one in there) == sorted(one.fd for one in many)
            assert [one["user"] for one in there] == [f"m{[m.fd for m in many].index(one['fd'])}" for one in there]
            assert all(("message_rate" in one) == (sort == "rate") for one in there)


async def test_it_finds_connections(asked: Serving, mode: dict[str, Any], client: ControlClient):
    """Whatever is asked for, all gateways search, and the answer is in one order."""
    async with crowd(asked, mode, "/room/7", user="gus") as gus, dial(asked, "/room/8%20b", user="hal") as hal:
        everybody = [*(peer.fd for peer in gus), hal.fd]
        assert found(client, path="/room/*") == everybody, "the oldest come first"
        assert found(client, path="/room/*", reverse=True) == everybody[::-1]
        assert found(client, path="/room/*", limit=2) == everybody[:2]
        assert found(client, path="/room/7") == everybody[:-1]
        assert found(client, path="/room/8 b") == [hal.fd]
        assert found(client, path="/room") == found(client, path="/room/") == []
        assert set(found(client, path="*")) >= set(everybody)
        assert found(client, user="hal") == found(client, user="hal", topic="all", path="/room/8*") == [hal.fd]
        assert found(client, user="nobody there") == found(client, topic="nowhere") == []
        assert set(found(client, topic="all")) >= set(everybody)
        assert found(client, path="/room/*", address="127.0.0.1") == everybody
        assert found(client, path="/room/*", address="127.3.2.1/9") == everybody
        assert found(client, path="/room/*", address="127.128.0.0/9") == found(client, address="::/0") == []
        for number in range(mode["worker_num"]):
            mine = [peer.fd for peer in [*gus, hal] if peer.worker == number]
            assert found(client, path="/room/*", worker=number) == mine
        for number in range(gateways_of(mode)):
            mine = [peer.fd for peer in [*gus, hal] if peer.gateway == number]
            assert found(client, path="/room/*", gateway=number) == mine
        assert found(client, worker=60) == found(client, gateway=60) == []
        assert found(client, path="/room/*", older=3600) == found(client, path="/room/*", idle=3600) == []
        assert found(client, path="/room/*", younger=3600) == everybody
        one = client.inspect(hal.fd)
        assert one is not None
        assert (one["path"], one["user"], one["topics"], one["bytes_queued"]) == ("/room/8 b", "hal", 1, 0)
        assert "message_rate" not in one
        assert 0 <= one["idle"] <= one["age"] < 60
        for _ in range(5):
            await hal.send("x" * 100)
            assert await hal.recv() == "x" * 100
        await gus[0].send("x" * 5000)
        assert await gus[0].recv() == "x" * 5000
        assert found(client, path="/room/*", sort="messages")[:2] == [hal.fd, gus[0].fd]
        assert found(client, path="/room/*", sort="bytes")[:2] == [gus[0].fd, hal.fd]
        assert set(found(client, path="/room/*", sort="idle")[-2:]) == {hal.fd, gus[0].fd}
        assert set(found(client, path="/room/*", sort="idle", reverse=True)[:2]) == {hal.fd, gus[0].fd}
        assert set(found(client, path="/room/*", sort="rtt")) == set(everybody), "also who was not measured"
        with Raw(asked) as raw:
            raw.send(b"GET / HTTP/1.1\r\n")
            eventually(lambda: [one["remote_port"] for one in client.connections(state="http", younger=60)])
            [http] = client.connections(state="http")
            assert (http["remote_port"], http["path"]) == (raw.socket.getsockname()[1], "")
            assert http["fd"] not in found(client, state="established")


async def test_who_does_not_read_is_found(asked: Serving, mode: dict[str, Any], client: ControlClient):
    async with crowd(asked, mode, "/readers") as peers:
        with Raw(asked, receive_buffer=4096) as lazy:
            lazy.upgrade("/readers?user=lazy")
            lazy.text()  # its `open` handler is done
            [one] = client.connections("lazy")

            def waits() -> bool:
                longest = client.connections(path="/readers", sort="queued", limit=1)[0]["bytes_queued"]
                if longest < 200_000:
                    client.push(one["fd"], "x" * 50_000)  # the kernel takes some MB first
                return longest >= 200_000

            eventually(waits)
            assert found(client, path="/readers", sort="queued")[0] == one["fd"]
            assert found(client, path="/readers", sort="queued", reverse=True)[-1] == one["fd"]
            assert client.listing(path="/readers", limit=1)["total"] == len(peers) + 1


async def test_rates(asked: Serving, client: ControlClient):
    """The first time they are since the connection began, later since the look before."""
    async with dial(asked, "/rates", user="busy") as busy, dial(asked, "/rates", user="calm"):
        for _ in range(50):
            await busy.send("hello")
            await busy.recv()
        first = client.connections(path="/rates", sort="rate")
        assert [one["user"] for one in first] == ["busy", "calm"]
        assert first[0]["message_rate"] > first[1]["message_rate"] >= 0
        assert first[0]["byte_rate"] > 0
        await asyncio.sleep(1.1)  # a sample is a second old before it is taken again
        client.connections(path="/rates", sort="rate")
        assert [one["message_rate"] for one in client.connections(path="/rates", sort="rate")] == [0, 0]


def test_it_tells_of_processes(asked: Serving, mode: dict[str, Any], client: ControlClient):
    def rows() -> list[dict[str, Any]]:
        return [row for row in client.processes() if row["role"] != "supervisor"]

    role = "worker" if mode["mode"] == "process" else "server"
    assert len([row for row in rows() if row["role"] == role]) == mode["worker_num"]
    assert len([row for row in rows() if row["role"] in ("gateway", "server")]) == gateways_of(mode)
    assert {row["pid"] for row in rows()} == (set(asked.pids()) or {asked.pid})
    eventually(lambda: all(row["pulse_age"] is not None for row in rows()))
    before = rows()
    for one in before:
        assert one["memory"] > 1 << 20
        assert one["cpu"] > 0
        assert one["pulse_age"] < 60
        assert (one["state"], one["restarts"], one["degraded"]) == ("serving", 0, False)
        assert (one["events"] is None) == (one["role"] == "gateway")


async def test_commands(asked: Serving, path: Path):
    async with dial(asked, "/", user="fay") as peer:
        fd = str(peer.fd)
        assert json.loads(command(path, "status", "--json").output)["connections"] >= 1
        assert "workers" in command(path, "status").output
        counted = command(path, "counters", "accepted").output
        assert "Clients that were accepted." in counted
        assert "bytes_sent" not in counted
        everything = json.loads(command(path, "counters", "--json").output)
        assert everything["connections_accepted"] >= 1
        assert everything["workers_running"] == everything["workers_wanted"]
        assert fd in command(path, "connections").output
        assert fd in command(path, "connections", "--path", "/", "--idle", "0", "--younger", "1h").output
        assert command(path, "connections", "--path", "/none").output == "no connection fits\n"
        assert command(path, "connections", "--idle", "soon").exit_code == 2
        assert json.loads(command(path, "connections", "--user", "fay", "--json").output)["total"] == 1
        assert json.loads(command(path, "inspect", fd, "--json").output)["fd"] == peer.fd
        assert command(path, "push", fd, "one").exit_code == 0
        assert command(path, "push", "--user", "fay", "two").output == "sent to 1 connection\n"
        assert json.loads(command(path, "push", "--topic", "all", "three", "--json").output) >= 1
        for target, words in (
            (("--user", "faye"), "the user 'faye' has no"),
            (("--topic", "al"), "is in the topic 'al'"),
        ):
            nobody = command(path, "push", *target, "four")
            assert nobody.exit_code == 1
            assert words in nobody.output
        assert await peer.take(3) == ["one", "two", "three"]
        assert json.loads(command(path, "kick", fd, "--code", "4003", "--reason", "bye", "--json").output) is True
        assert await peer.ended() == (4003, "bye")
        assert command(path, "counters", "xyzzy", "acepted").exit_code == 1
        assert "no counter has 'xyzzy' or 'acepted'" in command(path, "counters", "xyzzy", "acepted").output
        for words in (["push", fd, "late"], ["kick", fd], ["inspect", fd]):
            eventually(lambda words=words: command(path, *words).exit_code == 1)
        for words in (["push", "text"], ["push", fd, "--user", "fay", "text"], ["kick"], ["push", "x", "text"]):
            assert command(path, *words).exit_code == 2
        for words in (["kick", "fay"], ["push", "fay", "text"]):
            assert "'fay' is no fd, which is a number" in command(path, *words).output
            assert "--user fay" in command(path, *words).output
        assert "--user" not in command(path, "inspect", "fay").output
        nobody = command(path, "kick", "--user", "fay")
        assert (nobody.exit_code, nobody.output) == (1, "the user 'fay' has no connection\n")
        assert command(path, "kick", "--user", "fay", "--json").exit_code == 1
        result = command(path, "kick", "--user", "fay", "--code", "1")
        assert result.exit_code == 1
        assert "Error: " in result.output


def test_only_the_user_of_the_server_may_ask(asked: Serving, path: Path):
    found = path.stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\n", "no request"),
        (b"GET / HTTP/1.1\r\n", "no request"),
        (b"\xff\x00\xfe\n", "no request"),
        (b"[" * 100_000 + b"\n", "no request"),
        (b'{"command": "dance"}\n', "dance"),
        (b'{"command": "push", "fd": "7", "text": "a"}\n', "Expected `int"),
        (b'{"command": "push", "fd": 7, "text": "a", "more": 1}\n', "unknown field"),
        (b'{"command": "push", "fd": 7}\n', "either text or binary"),
        (b'{"command": "push", "text": "a"}\n', "exactly one of fd, user, topic"),
        (b'{"command": "push", "fd": 7, "topic": "t", "text": "a"}\n', "exactly one of"),
        (b'{"command": "push", "topic": "", "text": "a"}\n', "1 to 255 bytes"),
        (b'{"command": "kick", "fd": 7, "code": 99999}\n', "99999"),
        (b'{"command": "connections", "limit": -1}\n', "limit=-1"),
        (b'{"command": "connections", "limit": 10001}\n', "from 0 to 10000"),
        (b'{"command": "connections", "sort": "beauty"}\n', "beauty"),
        (b'{"command": "connections", "state": "OPEN"}\n', "OPEN"),
        (b'{"command": "connections", "address": "300.1.1.1"}\n', "write 192.0.2.7 or"),
        (b'{"command": "connections", "older": -1}\n', "older=-1"),
        (b'{"command": "connections", "idle": 1e300}\n', "idle=1e+300"),
        (b'{"command": "connections", "worker": -1}\n', "worker=-1"),
        (b'{"command": "connections", "gateway": 70000}\n', "gateway=70000"),
        (b'{"command": "connections", "path": ""}\n', "1 to 255 bytes"),
        (b'{"command": "connections", "topic": ""}\n', "1 to 255 bytes"),
        (b'{"command": "connections", "user": "%s"}\n' % (b"u" * 256), "1 to 255 bytes"),
        (b"x" * (LINE_LIMIT + 70_000) + b"\n", "too long"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_garbage_is_refused_with_a_reason(asked: Serving, client: ControlClient, path: Path, line: bytes, reason: str):
    before = client.stats()
    answer = json.loads(talk(path, line))
    assert answer["ok"] is False
    assert reason in answer["error"]
    after = client.stats()
    assert after["control_refused"] == before["control_refused"] + 1
    kinds = ("bad_request", "too_long", "declined")
    assert sum(_refused(after, kind) - _refused(before, kind) for kind in kinds) == 1
    assert _refused(after, "too_long") - _refused(before, "too_long") == (reason == "too long")
    asked.wait_log("request on the control socket refused")


def _refused(stats: dict[str, Any], kind: str) -> int:
    return stats["control_refused_reasons"].get(kind, 0)


def test_numbers_that_no_connection_has(asked: Serving, client: ControlClient):
    for fd in (0, -1, 1 << 62, (1 << 64) - 1, 1 << 200):
        with contextlib.suppress(AdminError):  # more than 64 bits are no number of the protocol
            assert client.push(fd, "a") is False
            assert client.inspect(fd) is None
            assert client.disconnect(fd) is False


def test_half_a_request_is_none(asked: Serving, path: Path):
    assert b"without a newline" in talk(path, b'{"command": "stop"}', shut=True)
    assert talk(path, b"", shut=True) == b""
    assert asked.process.poll() is None


def test_others_are_answered_while_some_stall(asked: Serving, client: ControlClient, path: Path):
    with contextlib.ExitStack() as stack:
        stalled = []
        for number in range(CLIENTS):
            if number == CLIENTS - 1:
                assert client.stats()["tree"]
            raw = stack.enter_context(socket.socket(socket.AF_UNIX))
            raw.settimeout(20)
            raw.connect(str(path))
            raw.sendall(b'{"command": "st')
            stalled.append(raw)
        with pytest.raises(AdminError, match=f"{CLIENTS} others are asking"):
            client.stats()
        # their time is over, and their places are free again
        assert [raw.recv(100) for raw in stalled] == [b""] * CLIENTS
        eventually(lambda: json.loads(talk(path, b'{"command": "stats"}\n'))["ok"])
        stats = client.stats()
        assert _refused(stats, "late") >= CLIENTS
        assert _refused(stats, "too_many") >= 1
        assert stats["control_refused"] == sum(stats["control_refused_reasons"].values())


def test_no_server_is_a_clear_error(tmp_path: Path):
    missing = tmp_path / "none.sock"
    with pytest.raises(ServerUnreachable, match=r"no server answers at .*none\.sock: No such file"):
        mooring.connect(missing)
    result = command(missing, "status")
    assert result.exit_code == 1
    assert "is it running, with control_socket=" in result.output
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent.sock"))
        with pytest.raises(ServerUnreachable, match="Connection refused"):
            mooring.connect(tmp_path / "silent.sock")
        silent.listen()
        with pytest.raises(ServerUnreachable, match=r"not answered within 0\.2 s"):
            mooring.connect(tmp_path / "silent.sock", timeout=0.2)


@only("process", "process-2", "base-2")
async def test_it_asks_on_over_a_reload_and_the_death_of_worker_0(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "control.sock"
    with serve(mode, path) as server:
        client = mooring.connect(path, timeout=20)
        async with dial(server, "/") as peer:
            client.reload()
            eventually(lambda: client.stats()["tree"]["reloads"] == 1)
            assert client.stats()["generation"] == 2
            if mode["mode"] == "process":
                assert client.push(peer.fd, "still here") is True
                assert await peer.recv() == "still here"
        mark = server.mark()
        os.kill(server.pid_of("worker 0" if mode["mode"] == "process" else "server 0"), signal.SIGKILL)
        server.wait_log("serves in place", since=mark)
        assert client.stats()["tree"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@only("base")
def test_one_process_refuses_a_reload(asked: Serving, path: Path):
    result = command(path, "reload")
    assert result.exit_code == 1
    assert "a single process cannot replace itself" in result.output


def test_stop(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "control.sock"
    with serve(mode, path) as server:
        assert command(path, "stop", "--json").output == "null\n"
        assert server.ended() == 0
        with pytest.raises(ServerUnreachable):
            mooring.connect(path)


def test_a_second_server_leaves_the_first_its_socket(asked: Serving, mode: dict[str, Any], path: Path):
    with Serving(APPLICATION, ready=False, **mode, control_socket=str(path)) as second:
        assert second.ended() == errno.EADDRINUSE
        [line] = [line for line in second.lines if "another server listens there" in line]
        assert f"control_socket='{path}': cannot listen on unix:{path}" in line
        assert f"(pid {asked.pid}); stop it" in line  # of its supervisor: another worker would take the place of one
    assert mooring.connect(path, timeout=20).stats()["tree"]


def test_what_a_dead_server_has_left_is_replaced(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "control.sock"
    with Serving(APPLICATION, **mode, control_socket=str(path)) as first:
        children = first.pids()
        first.signal(signal.SIGKILL)
        first.ended()
        for pid in children:
            eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists())
        assert path.exists()
    with serve(mode, path):
        assert mooring.connect(path, timeout=20).stats()["tree"]


# ---------------------------------------------------------------------------------------------- in coroutines


def test_both_clients_can_do_the_same():
    def calls(kind: type) -> dict[str, str]:
        """Signatures; what is iterated over is so by `async for` in the one and by `for` in the other."""
        made = {
            name: call for name, call in vars(kind).items() if inspect.isfunction(call) and not name.startswith("_")
        }
        return {name: str(inspect.signature(call)).replace("AsyncIterator", "Iterator") for name, call in made.items()}

    assert calls(AsyncControlClient) == calls(ControlClient)
    for name in calls(AsyncControlClient):
        made = getattr(AsyncControlClient, name)
        assert inspect.iscoroutinefunction(made) or inspect.isasyncgenfunction(made)


async def test_it_is_asked_in_coroutines(asked: Serving, mode: dict[str, Any], path: Path):
    client = await mooring.connect_async(path, timeout=20)
    async with crowd(asked, mode, "/", user="ida") as peers, dial(asked, "/", user="jon") as other:
        everybody = [*peers, other]
        for peer in everybody:
            assert await client.push(peer.fd, "to you") is True
            assert await client.push(peer.fd, b"\x00\xff") is True
            assert await peer.take(2) == ["to you", b"\x00\xff"]
        await client.push_user("ida", "to ida")
        await client.publish("all", "to all")
        assert await take(everybody) == ["to ida"] * len(peers) + ["to all"]
        assert await take(peers) == ["to all"] * len(peers)
        assert {one["fd"] for one in await client.connections("ida")} == {peer.fd for peer in peers}
        assert (await client.listing(user="ida", limit=1))["total"] == len(peers)
        assert (await client.stats())["connections"] >= len(everybody)
        assert len(await client.processes()) >= mode["worker_num"]
        found = await client.inspect(other.fd)
        assert found is not None
        assert found["user"] == "jon"
        assert await client.disconnect(other.fd, 4001, "out") is True
        assert await other.ended() == (4001, "out")
        assert await client.disconnect_user("ida", 4002, "all out") == len(peers)
        for peer in peers:
            assert await peer.ended() == (4002, "all out")
        assert await client.push(1 << 62, "nobody") is False
        assert await client.inspect(1 << 62) is None


async def test_many_coroutines_ask_at_the_same_time(asked: Serving, path: Path):
    """More than the server answers at a time."""
    client = await mooring.connect_async(path, timeout=20)
    async with dial(asked, "/", user="kim") as peer:
        numbers = {str(number) for number in range(3 * CLIENTS)}
        assert all(await asyncio.gather(*[client.push(peer.fd, number) for number in numbers]))
        assert set(await peer.take(len(numbers))) == numbers


async def test_a_call_that_is_cancelled_leaves_nothing_behind(tmp_path: Path):
    """A server that never answers: its clients see the end of their call, and so does it."""
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen(1)
        silent.settimeout(20)
        client = AsyncControlClient(path, timeout=20)
        before = open_descriptors()
        asking = [asyncio.create_task(client.stats()) for _ in range(20)]  # more than wait in its queue
        taken = [(await asyncio.to_thread(silent.accept))[0] for _ in range(2)]
        for task in asking:
            task.cancel()
        for result in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError)
        for one in taken:
            one.settimeout(20)
            assert one.recv(100) == b'{"command":"stats"}\n'
            assert one.recv(100) == b""
            one.close()
        assert open_descriptors() <= before
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.stats()
        with pytest.raises(ServerUnreachable, match=r"not answered within 0\.1 s"):
            await mooring.connect_async(path, timeout=0.1)


async def test_errors_in_coroutines(asked: Serving, path: Path, tmp_path: Path):
    client = await mooring.connect_async(path, timeout=20)
    with pytest.raises(AdminError, match="1 to 255 bytes"):
        await client.publish("", "x")
    with pytest.raises(AdminError, match="too long"):
        await client.publish("all", b"x" * LINE_LIMIT)
    with pytest.raises(AdminError, match="limit=-1"):
        await client.connections(limit=-1)
    with pytest.raises(ServerUnreachable, match=r"no server answers at .*none\.sock: No such file"):
        await mooring.connect_async(tmp_path / "none.sock")
    with pytest.raises(ValueError, match="more than 0"):
        await mooring.connect_async(path, timeout=0)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        with pytest.raises(ServerUnreachable, match="Connection refused"):
            await mooring.connect_async(tmp_path / "deaf.sock")


async def test_a_coroutine_is_told_when_the_server_ends_on_it(tmp_path: Path):
    path = tmp_path / "rude.sock"
    client = AsyncControlClient(path, timeout=20)
    with socket.socket(socket.AF_UNIX) as rude:
        rude.bind(str(path))
        rude.listen()
        rude.settimeout(20)
        asking = asyncio.create_task(client.stats())
        (await asyncio.to_thread(rude.accept))[0].close()
        with pytest.raises(ServerUnreachable, match="has not answered"):
            await asking
        asking = asyncio.create_task(client.publish("t", "x" * 1_000_000))  # refused before it was read
        taken = (await asyncio.to_thread(rude.accept))[0]
        taken.sendall(b'{"ok": false, "error": "no"}\n')
        taken.close()
        with pytest.raises(AdminError, match=r"^no$"):
            await asking


async def test_coroutines_ask_on_when_the_server_is_started_again(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "control.sock"
    with serve(mode, path) as server:
        client = await mooring.connect_async(path, timeout=20)
        await client.shutdown()
        assert await asyncio.to_thread(server.ended) == 0
    with pytest.raises(ServerUnreachable):
        await client.stats()
    with serve(mode, path) as server:
        async with dial(server, "/") as peer:
            assert await client.push(peer.fd, "back") is True
            assert await peer.recv() == "back"
