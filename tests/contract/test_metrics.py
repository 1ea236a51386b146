"""/metrics, /health and /ready in every mode: every process is there, and nobody who is busy is waited for."""

import errno
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from contract.clients import TEXT, Raw, get, websocket
from contract.modes import only
from frames import frame
from mooring import counters
from mooring.monitor.metrics import exported
from support.descriptors import open_files
from support.serving import Serving, eventually

APPLICATION = """
import asyncio, json, os, time

server.topic("kept:*", history_size=1)

@server.on("open")
def opened(server, request):
    server.push(request.fd, json.dumps({"fd": request.fd}))

@server.on("message")
async def said(server, frame):
    if frame.data == "suspend":
        await asyncio.sleep(0.5)
    server.push(frame.fd, frame.data)

@server.on("request")
async def page(request, response):
    if request.path == "/fail":
        raise RuntimeError("as it was told to")
    if request.path == "/block":
        time.sleep(2)
    if request.path == "/suspend":
        await asyncio.sleep(2)
    response.json(server.stats() if request.path == "/stats" else os.getpid())
"""

Families = dict[str, dict[tuple[str, ...], float]]


class Watcher:
    """Asks the listener of a server for its pages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, page: str, limit: float = 10.0) -> tuple[int, str]:
        """Status and body."""
        talk = http.client.HTTPConnection("watched", timeout=limit)
        talk.sock = socket.socket(socket.AF_UNIX)
        talk.sock.settimeout(limit)
        talk.sock.connect(str(self.path))
        talk.request("GET", page)
        answer = talk.getresponse()
        text = answer.read().decode()
        talk.close()
        return answer.status, text

    def ready(self) -> tuple[int, str]:
        """Status, and what it says of itself."""
        status, text = self.get("/ready")
        return status, json.loads(text)["status"]

    def values(self, limit: float = 10.0) -> Families:
        """Every sample: name -> (role, number, more) -> value."""
        status, text = self.get("/metrics", limit)
        assert status == 200
        found: Families = {}
        for family in parse(text):
            for sample in family.samples:
                labels = dict(sample.labels)
                key = (labels.pop("role"), labels.pop("number"), *labels.values())
                found.setdefault(sample.name, {})[key] = sample.value
        return found

    def total(self, name: str) -> float:
        """Of all processes."""
        return sum(self.values().get(name, {}).values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def watched(mode: dict[str, Any], folder: Path) -> Iterator[tuple[Serving, Watcher]]:
    path = folder / "metrics"
    with Serving(APPLICATION, **mode, metrics_listen=f"unix:{path}", worker_hang_timeout=60) as server:
        yield server, Watcher(path)


def test_every_process_and_every_counter(watched: tuple[Serving, Watcher], mode: dict[str, Any]):
    server, watcher = watched
    with websocket(server) as (raw, _), Raw(server, get("/fail")) as failed:
        assert failed.answer().status == 500
        raw.send(frame(TEXT, b"hello"))
        assert raw.text() == "hello"

        def counted() -> Families | None:
            found = watcher.values()
            errors = sum(found.get("mooring_errors_reported_total", {}).values())
            sent = sum(found["mooring_messages_sent_total"].values())
            return found if (errors, sent) == (1, 2) else None

        found: Any = eventually(counted)
    if mode["mode"] == "process":
        expected = {("supervisor", "0"), ("monitor", "0"), ("engine", "0")}
        expected |= {("gateway", str(n)) for n in range(mode["gateway_num"])}
        expected |= {("worker", str(n)) for n in range(mode["worker_num"])}
    else:
        expected = {("server", str(n)) for n in range(mode["worker_num"])}
        expected |= {("supervisor", "0"), ("monitor", "0"), ("engine", "0")} if mode["worker_num"] > 1 else set()
    assert set(found["mooring_process_up"]) == expected
    assert set(found["mooring_process_up"].values()) == {1}
    assert set(found["mooring_process_memory_bytes"]) == expected
    assert all(value > 1 << 20 for value in found["mooring_process_proportional_memory_bytes"].values())
    assert sum(found["mooring_websockets"].values()) == 1
    bases = {name.removesuffix("_total").removesuffix("_count") for name in found}
    dispatcher = {row.metric for row in counters.rows(counters.Part.DISPATCHER)}
    rare = {row.metric for row in exported() if row.label == "reason"}
    missing = {row.metric for row in exported()} - bases - dispatcher - rare
    assert not missing


def test_it_adds_up_to_what_stats_says(watched: tuple[Serving, Watcher]):
    server, watcher = watched
    with websocket(server) as (raw, _):
        for number in range(5):
            raw.send(frame(TEXT, b"%d" % number))
            assert raw.text() == str(number)
    with Raw(server, get("/stats")) as talk:
        stats = talk.answer().json()
    for name in ("messages_received", "websockets_opened", "accepted"):
        assert stats[name] > 0
        eventually(lambda name=name: watcher.total(f"mooring_{name}_total") == stats[name], what=name)


def test_how_long_handlers_and_what_waits_for_them_take(watched: tuple[Serving, Watcher], mode: dict[str, Any]):
    """One client's message is suspended for half a second, another one waits for it, and a third fails."""
    server, watcher = watched
    with websocket(server) as (raw, _):
        raw.send(frame(TEXT, b"suspend") + frame(TEXT, b"fast"))
        assert [raw.text(), raw.text()] == ["suspend", "fast"]
    with Raw(server, get("/fail")) as failed:
        assert failed.answer().status == 500

    def by_event(name: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for (_, _, event, *_more), value in watcher.values().get(name, {}).items():
            found[event] = found.get(event, 0) + value
        return found

    expected = {"open": 1, "message": 2, "close": 1, "request": 1}
    eventually(lambda: by_event("mooring_handler_seconds_count").items() >= expected.items())
    assert by_event("mooring_queue_seconds_count").items() >= expected.items()
    # how much longer the rest takes is this machine's matter
    assert 0.5 <= by_event("mooring_handler_seconds_sum")["message"] < 300
    assert 0.49 <= by_event("mooring_queue_seconds_sum")["message"] < 300
    buckets = watcher.values()["mooring_handler_seconds_bucket"]
    messages = {
        bound: sum(n for key, n in buckets.items() if key[2:] == ("message", bound)) for bound in ("0.25", "+Inf")
    }
    assert messages["+Inf"] == 2
    assert messages["0.25"] <= 1


def test_how_long_tasks_take(mode: dict[str, Any], folder: Path):
    """Also one that awaits, and one that fails."""
    app = """
    import asyncio

    @server.on("task")
    async def work(server, task):
        await asyncio.sleep(task.data)
        return 1 / int(task.data < 0.5)

    @server.on("request")
    async def asked(request, response):
        try:
            result = await server.task(float(request.query["for"]))
        except Exception as error:
            result = str(error)
        response.json(result)
    """
    path = folder / "metrics"
    with Serving(app, **mode, task_worker_num=1, metrics_listen=f"unix:{path}") as server:
        for seconds in ("0", "0", "0.5"):
            with Raw(server, get(f"/?for={seconds}", "Connection: close")) as raw:
                assert raw.answer().json() == (1 if seconds == "0" else "ZeroDivisionError: division by zero")
        key = ("task worker", "0", "task")

        def counted() -> Families | None:
            found = Watcher(path).values()
            return found if found.get("mooring_handler_seconds_count", {}).get(key) == 3 else None

        found: Any = eventually(counted)
        assert 0.5 <= found["mooring_handler_seconds_sum"][key] < 300
        assert found["mooring_handler_seconds_bucket"][*key, "0.25"] <= 2
        assert server.stop() == 0


def test_what_waits_for_a_loop_that_stands_still_has_waited(watched: tuple[Serving, Watcher], mode: dict[str, Any]):
    """As its gateway has seen it: in process mode that is another process."""
    if mode["mode"] == "base":
        return
    server, watcher = watched
    with ExitStack() as clients:
        pid = server.pid_of("worker 0")
        os.kill(pid, signal.SIGSTOP)
        asked = [clients.enter_context(Raw(server, get("/"))) for _ in range(2 * mode["worker_num"])]
        eventually(lambda: watcher.total("mooring_in_flight"))
        began = watcher.total("mooring_queue_seconds_sum")
        os.kill(pid, signal.SIGCONT)
        assert {client.answer().status for client in asked} == {200}
        eventually(lambda: watcher.total("mooring_queue_seconds_sum") > began + 0.2)
        assert watcher.total("mooring_queue_seconds_sum") < began + 300


def test_nobody_waits_for_handlers_that_block(watched: tuple[Serving, Watcher], mode: dict[str, Any]):
    """Each worker has one, and in base mode each gateway with it."""
    server, watcher = watched
    with ExitStack() as clients:
        busy = [clients.enter_context(Raw(server, get("/block"))) for _ in range(2 * mode["worker_num"])]
        eventually(lambda: watcher.total("mooring_in_flight") or mode["mode"] == "base")
        for _ in range(3):
            for page in ("/ready", "/health", "/metrics"):
                assert watcher.get(page, 2)[0] == 200
        for client in busy:
            assert client.answer().status == 200
    eventually(lambda: watcher.ready() == (200, "ready"))


def test_who_stands_still_is_named(watched: tuple[Serving, Watcher], mode: dict[str, Any]):
    """Nobody is asked, so nobody is waited for; what it has counted is still told."""
    server, watcher = watched
    role = "worker" if mode["mode"] == "process" else "server"
    with Raw(server, get("/")) as talk:
        pid = talk.answer().json()
    before = watcher.values()["mooring_events_handled_total"]
    if pid == server.pid:
        return  # nobody else is there who could answer
    os.kill(pid, signal.SIGSTOP)
    try:

        def named() -> Any:
            assert watcher.values(2)["mooring_events_handled_total"].keys() == before.keys()
            body = json.loads(watcher.get("/ready", 2)[1])
            return body if body.get("missing") else None

        body: Any = eventually(named, 15)
        assert body["status"] == "degraded"
        assert len(body["missing"]) == 1
        assert body["missing"][0].startswith(f"{role} ")
        assert watcher.get("/health")[0] == 200
        up = watcher.values()["mooring_process_up"]
        assert [f"{key[0]} {key[1]}" for key, value in up.items() if not value] == body["missing"]
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: watcher.ready() == (200, "ready"))


def test_a_server_that_stops_is_not_ready_but_lives(watched: tuple[Serving, Watcher]):
    """To the end: a client is still being answered."""
    server, watcher = watched
    eventually(lambda: watcher.ready() == (200, "ready"))
    with Raw(server, get("/suspend")) as client:
        eventually(lambda: watcher.total("mooring_in_flight") == 1)
        server.process.terminate()
        eventually(lambda: watcher.ready() == (503, "draining"))
        assert watcher.get("/health")[0] == 200
        assert client.answer().status == 200
    assert server.ended() == 0
    assert not watcher.path.exists()


@only("base-2", "process", "process-2")
def test_a_reload_makes_nobody_unready_and_no_counter_falls(watched: tuple[Serving, Watcher]):
    server, watcher = watched
    for _ in range(8):
        with Raw(server, get("/")) as talk:
            assert talk.answer().status == 200
    before: Any = eventually(lambda: watcher.values() if watcher.total("mooring_events_handled_total") == 8 else None)
    os.kill(server.pid, signal.SIGHUP)
    statuses, least = set(), 8.0

    def over() -> bool:
        nonlocal least
        statuses.add(watcher.ready())
        found = watcher.values()
        handled = sum(found["mooring_events_handled_total"].values())
        assert handled >= least
        least = handled
        return sum(found["mooring_reloads_total"].values()) == 1

    eventually(over, 30)
    assert {status for status, _ in statuses} == {200}
    after = watcher.values()
    assert set(after["mooring_process_up"]) == set(before["mooring_process_up"])


@only("process")
def test_a_monitor_that_dies_is_started_again(watched: tuple[Serving, Watcher]):
    server, watcher = watched
    os.kill(server.pid_of("monitor 0"), signal.SIGKILL)
    eventually(lambda: watcher.values().get("mooring_process_restarts_total", {}).get(("monitor", "0")) == 1)
    assert watcher.ready() == (200, "ready")


@only("base", "process")
def test_an_address_that_is_taken_ends_the_start(mode: dict[str, Any]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with Serving(APPLICATION, **mode, metrics_listen=where, ready=False) as server:
            assert server.ended() == errno.EADDRINUSE
            assert server.wait_log(rf"metrics_listen='{where}': cannot listen on {where}")


@only("base", "process")
def test_without_the_setting_nothing_is_there(mode: dict[str, Any]):
    with Serving(APPLICATION, **mode) as server:
        assert not [line for line in server.lines if "metrics" in line]
        for pid in server.pids():
            assert not [file for file in open_files(pid) if "scoreboard" in file]
        assert not [title for title in server.titles().values() if "monitor" in title]


@only("base", "process")
def test_its_socket_goes_though_a_handler_never_ends(mode: dict[str, Any], tmp_path: Path):
    app = """
@server.on("request")
def page(request, response):
    report("blocks")
    while True:
        time.sleep(60)
"""
    path = tmp_path / "metrics"
    with Serving(app, **mode, metrics_listen=f"unix:{path}", graceful_timeout=0.2) as server:
        with Raw(server, get("/")):
            server.wait_log("report blocks")
            assert path.is_socket()
            server.signal(signal.SIGTERM)
            server.ended()
        assert not path.exists()
