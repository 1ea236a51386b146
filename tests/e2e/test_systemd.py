"""What systemd is told, on a datagram socket of the test's own: started, reloading, stopping, alive."""

import os
import signal
import socket
import time

import pytest

from e2e.peers import app
from support.serving import LIMIT, Serving

MODES = pytest.mark.parametrize(
    "mode",
    [
        {"mode": "process", "worker_num": 2},
        {"mode": "base", "worker_num": 2},
        {"mode": "base", "worker_num": 1},
    ],
    ids=["process", "base", "alone"],
)
APP = """
@server.on("message")
def said(server, frame):
    pass

@server.on("worker_start")
def started(server, worker_id):
    report("environment", worker_id, [name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))])

@server.on("request")
def page(request, response):
    if request.path == "/stuck":
        time.sleep(60)
    response.end("here")
"""


class Manager:
    """A service manager's socket. `abstract`: without a file, as systemd gives it to user services."""

    def __init__(self, folder, *, abstract=False):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(LIMIT)
        name = str(folder / "notify")
        self.socket.bind("\0" + name if abstract else name)
        self.environment = {"NOTIFY_SOCKET": "@" + name if abstract else name}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def told(self, wanted):
        """The next message with this variable, as a dict; others before it are passed over."""
        while True:
            message = dict(line.split("=", 1) for line in self.socket.recv(4096).decode().split("\n"))
            if wanted in message:
                return message

    def signs_of_life(self, seconds):
        """How many come in that time."""
        count = 0
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                count += b"WATCHDOG=1" in self.socket.recv(4096)
            except TimeoutError:
                break
        self.socket.settimeout(LIMIT)
        return count

    def forget(self):
        """What was told up to now."""
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(4096)
        except BlockingIOError:
            self.socket.settimeout(LIMIT)


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
@MODES
def test_ready_when_it_serves_and_stopping_when_it_stops(tmp_path, mode, abstract):
    with (
        Manager(tmp_path, abstract=abstract) as manager,
        Serving(APP, ready=False, env=manager.environment, **mode) as server,
    ):
        ready = manager.told("READY")
        assert ready["READY"] == "1"
        assert ready["STATUS"].startswith("serving")
        with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        server.signal(signal.SIGTERM)
        stopping = manager.told("STOPPING")
        assert stopping["STOPPING"] == "1"
        assert stopping["STATUS"].startswith("stopping")
        assert server.ended() == 0
        told = server.reports("environment")
        assert len(told) == mode["worker_num"]
        assert all(line.endswith(" []") for line in told), "nobody else may speak in its name"


@MODES
def test_a_reload_has_a_beginning_with_its_time_and_an_end(tmp_path, mode):
    """As Type=notify-reload wants it: a time not before that of the signal, then ready again."""
    with Manager(tmp_path) as manager, Serving(APP, env=manager.environment, **mode) as server:
        manager.told("READY")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        server.signal(signal.SIGHUP)
        reloading = manager.told("RELOADING")
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert manager.told("READY")["STATUS"].startswith("serving")
        assert server.stop() == 0


def test_a_reload_that_fails_is_over_too_and_the_status_says_so(tmp_path):
    with Manager(tmp_path) as manager, Serving(APP, env=manager.environment, worker_num=1) as server:
        manager.told("READY")
        text = server.script.read_text()
        server.script.write_text(text + "\nthis is no Python\n")
        server.signal(signal.SIGHUP)
        manager.told("RELOADING")
        assert "the last reload failed" in manager.told("READY")["STATUS"]
        server.script.write_text(text)
        server.signal(signal.SIGHUP)
        manager.told("RELOADING")
        assert "failed" not in manager.told("READY")["STATUS"]
        assert server.stop() == 0


def test_the_status_says_how_many_processes_serve(tmp_path):
    code = app("while os.path.exists('held back'): time.sleep(0.01)", APP)
    with Manager(tmp_path) as manager, Serving(code, env=manager.environment, worker_num=2) as server:
        assert manager.told("STATUS")["STATUS"] == "serving: 1 of 1 gateways, 2 of 2 workers"
        held = server.script.with_name("held back")
        held.touch()
        os.kill(server.pid_of("worker 1"), signal.SIGKILL)
        assert manager.told("STATUS")["STATUS"] == "serving: 1 of 1 gateways, 1 of 2 workers"
        held.unlink()
        assert manager.told("STATUS")["STATUS"] == "serving: 1 of 1 gateways, 2 of 2 workers"
        assert server.stop() == 0


def test_a_start_that_fails(tmp_path):
    with (
        Manager(tmp_path) as manager,
        Serving(
            app("if '_process' in sys.orig_argv: sys.exit(3)", APP), ready=False, env=manager.environment
        ) as server,
    ):
        assert manager.told("STATUS")["STATUS"].startswith("the start failed: ")
        assert server.ended() == 1


@MODES
def test_signs_of_life_as_often_as_wanted(tmp_path, mode):
    with Manager(tmp_path) as manager:
        asked = {"WATCHDOG_USEC": "400000"}
        with Serving(APP, env=manager.environment | asked, **mode) as server:
            for _ in range(5):
                manager.told("WATCHDOG")
            assert server.stop() == 0


@pytest.mark.parametrize("asked", [{}, {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}], ids=["nobody", "another"])
def test_no_signs_of_life_that_are_not_asked_of_us(tmp_path, asked):
    with Manager(tmp_path) as manager, Serving(APP, env=manager.environment | asked, worker_num=1) as server:
        manager.told("READY")
        assert manager.signs_of_life(0.5) == 0
        assert server.stop() == 0


def test_a_gateway_that_stands_still_ends_the_signs_of_life(tmp_path):
    """They come back when it turns again. A worker that stands still is the supervisor's business."""
    with Manager(tmp_path) as manager:
        environment = manager.environment | {"WATCHDOG_USEC": "1000000"}
        settings = {"gateway_hang_timeout": 0, "worker_hang_timeout": 0, "worker_num": 1}
        with Serving(APP, env=environment, **settings) as server:
            worker = server.pid_of("worker 0")
            os.kill(worker, signal.SIGSTOP)
            manager.forget()
            assert manager.signs_of_life(4.0) >= 2
            os.kill(worker, signal.SIGCONT)
            gateway = server.pid_of("gateway 0")
            os.kill(gateway, signal.SIGSTOP)
            manager.signs_of_life(3.5)  # it may have moved a moment ago
            assert manager.signs_of_life(2.0) == 0
            os.kill(gateway, signal.SIGCONT)
            manager.told("WATCHDOG")
            assert server.stop() == 0


def test_a_single_process_whose_loop_stands_still_gives_none(tmp_path):
    with Manager(tmp_path) as manager:
        environment = manager.environment | {"WATCHDOG_USEC": "400000"}
        with Serving(APP, env=environment, mode="base", worker_num=1, graceful_timeout=0.1) as server:
            manager.told("WATCHDOG")
            with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
                client.sendall(b"GET /stuck HTTP/1.1\r\nHost: localhost\r\n\r\n")
                manager.signs_of_life(0.5)
                assert manager.signs_of_life(1.5) == 0
            server.stop()


@MODES
def test_a_manager_that_does_not_read_or_is_gone_is_no_reason_to_stand_still(tmp_path, mode):
    with Manager(tmp_path) as manager:
        environment = manager.environment | {"WATCHDOG_USEC": "100000"}
        with Serving(APP, env=environment, **mode) as server:
            manager.told("READY")
            manager.socket.close()
            server.wait_log("the service manager was not told WATCHDOG=1")
            assert server.stop() == 0
            assert len([line for line in server.lines if "the service manager was not told" in line]) == 1


def test_a_name_that_is_no_address_is_one_line(tmp_path):
    with Serving(APP, env={"NOTIFY_SOCKET": "vsock:2:1234"}, worker_num=1) as server:
        assert len([line for line in server.lines if "neither a path nor an abstract name" in line]) == 1
        assert server.stop() == 0
