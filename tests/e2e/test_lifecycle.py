"""What the application is told of its processes: before_reload, after_reload, worker_exit, stats()["tree"]."""

import json
import signal

import pytest

from contract.modes import MODES
from e2e.peers import app, client, in_loop, logged
from support.serving import Serving

# KIND stands for `def` or `async def`.
TOLD = """
if os.path.exists("broken"):
    raise RuntimeError("on purpose")
told = open("told").read() if os.path.exists("told") else "nothing"

@server.on("worker_start")
KIND worker_start(server, worker_id):
    report("loaded", os.getpid(), worker_id, told)

@server.on("before_reload")
KIND before_reload(server, reason):
    PAUSE
    with open("told", "w") as file:
        file.write("told")
    report("before_reload", os.getpid(), server.worker_id, reason)

@server.on("after_reload")
KIND after_reload(server, succeeded, reason):
    report("after_reload", os.getpid(), server.worker_id, succeeded, reason)

@server.on("worker_exit")
KIND worker_exit(server, worker_id, reason):
    PAUSE
    report("worker_exit", os.getpid(), worker_id, reason)

@server.on("worker_stop")
KIND worker_stop(server, worker_id):
    report("worker_stop", os.getpid(), worker_id)

@server.on("message")
async def said(server, frame):
    if frame.data == "slow":
        report("slow begins")
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
        report("slow ends", os.getpid())
    server.push(frame.fd, f"{frame.data} {os.getpid()}")
"""


def application(kind: str, pause: str = "") -> str:
    default = "await asyncio.sleep(0.3)" if kind == "async def" else "time.sleep(0.3)"
    return app("import asyncio", TOLD.replace("KIND", kind).replace("PAUSE", pause or default))


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("mode", ["process", "base"])
def test_a_reload_is_told_before_and_after(kind: str, mode: str):
    with Serving(application(kind), mode=mode, worker_num=2, graceful_timeout=10) as server:
        role = "worker" if mode == "process" else "server"
        old = [server.pid_of(f"{role} {number}") for number in (0, 1)]
        server.signal(signal.SIGHUP)
        server.wait_log("^report after_reload")
        new = [server.pid_of(f"{role} {number}") for number in (0, 1)]
        assert server.reports("before_reload") == [f"{old[0]} 0 SIGHUP"]
        assert server.reports("after_reload") == [f"{new[0]} 0 True SIGHUP"]
        # what the handler did was done when the new code was loaded
        assert sorted(server.reports("loaded")) == sorted(
            [f"{pid} {n} nothing" for n, pid in enumerate(old)] + [f"{pid} {n} told" for n, pid in enumerate(new)]
        )
        assert sorted(server.reports("worker_exit")) == sorted(f"{pid} {n} reload: SIGHUP" for n, pid in enumerate(old))
        assert server.stop() == 0


def test_a_reload_that_fails_is_told_to_the_old_code():
    with Serving(application("def"), worker_num=1) as server:
        old = server.pid_of("worker 0")
        server.script.with_name("broken").touch()
        server.signal(signal.SIGHUP)
        server.wait_log("^report after_reload")
        assert server.reports("before_reload") == [f"{old} 0 SIGHUP"]
        [told] = server.reports("after_reload")
        assert told.startswith(f"{old} 0 False worker 0 (pid ")
        assert told.endswith("ended with exit code 1 before it was ready")
        assert server.reports("worker_exit") == []
        assert server.stop() == 0


@in_loop(60)
async def test_a_worker_that_leaves_is_told_behind_its_last_message_and_why():
    with Serving(application("async def"), worker_num=1, max_request=1, max_request_grace=0) as server:
        old = server.pid_of("worker 0")
        async with client(server) as ws:
            await ws.send("slow")
            await logged(server, "^report slow begins")
            # it is to be replaced after this message; its successor serves when the message goes on
            await logged(server, "replacing worker 0 .*: generation 2 serves")
            assert server.reports("worker_exit") == []
            server.script.with_name("go on").touch()
            assert await ws.recv() == f"slow {old}"
        why = "it has had max_request=1 messages and requests, or a few more"
        await logged(server, rf"^report worker_exit {old} 0 replaced: {why}")
        await logged(server, "replacing worker .*: done")
        own = [line for line in server.lines if f" {old}" in line and line.startswith("report ")]
        assert [line.split()[1] for line in own] == ["loaded", "slow", "worker_exit", "worker_stop"]
        assert server.reports("before_reload") == []
        new = server.pid_of("worker 0")
        assert server.stop() == 0
        assert server.reports("worker_exit")[-1] == f"{new} 0 shutdown: SIGTERM"


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_stop_is_told_to_each_worker(mode: dict[str, object]):
    with Serving(application("def", "pass"), **mode) as server:
        assert server.stop(signal.SIGINT) == 0
        exits = [line.split(maxsplit=1) for line in server.reports("worker_exit")]
        assert sorted(rest for _, rest in exits) == [f"{n} shutdown: SIGINT" for n in range(mode["worker_num"])]
        said = [line for line in server.lines if line.startswith(("report worker_exit", "report worker_stop"))]
        for pid, _ in exits:
            assert [line.split()[1] for line in said if line.split()[2] == pid] == ["worker_exit", "worker_stop"]


def test_nobody_waits_for_ever_for_a_handler():
    pause = "await asyncio.sleep(600)"
    with Serving(application("async def", pause), worker_num=1, event_timeout=0.3) as server:
        server.signal(signal.SIGHUP)
        server.wait_log("the 'before_reload' handler in worker 0 .* did not end within 0.3 s")
        server.wait_log("the 'worker_exit' handler did not end within event_timeout=0.3 s")
        server.wait_log("reload: done")
        assert server.stop() == 0
        assert len(server.reports("worker_stop")) == 2


def test_a_handler_that_raises_stops_nothing():
    with Serving(application("def", "raise ValueError('broken hook')"), worker_num=1) as server:
        server.signal(signal.SIGHUP)
        server.wait_log("the 'before_reload' handler failed")
        server.wait_log("the 'worker_exit' handler failed")
        server.wait_log("^report after_reload .* True")
        assert server.stop() == 0


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_worker_knows_the_tree_from_its_first_event(mode):
    code = """
    @server.on("message")
    def said(server, frame): ...

    @server.on("start")
    def started(server):
        report("tree", json.dumps(server.stats()["tree"]))
    """
    with Serving(app(code), **mode) as server:
        server.wait_log("^report tree")
        tree = json.loads(server.reports("tree")[0])
        assert (tree["workers_wanted"], tree["restarts"]) == (mode["worker_num"], 0)
        assert server.stop() == 0
