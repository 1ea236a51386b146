"""What the application has left when its server stops keeps no process for longer than it may take."""

import signal

import pytest

from e2e.peers import app
from support.serving import Serving

LEFT = {
    "thread": "threading.Thread(target=time.sleep, args=(600,), name='forever').start()",
    "child": "multiprocessing.get_context('fork').Process(target=stay).start()",
    "executor": "ThreadPoolExecutor(1).submit(time.sleep, 600)",
    "processes": "ProcessPoolExecutor(1, multiprocessing.get_context('fork')).submit(stay)",
    "default executor": "asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)",
    "atexit": "atexit.register(time.sleep, 600)",
    "thread of C": "atexit.register(ctypes.PyDLL(None).sleep, 600)",  # it keeps the interpreter's lock
}
APP = """
import asyncio, atexit, ctypes, multiprocessing, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

def stay():
    "As long as its parent, and with nothing that anybody waits for."
    parent = os.getppid()
    os.closerange(0, 1024)
    while os.getppid() == parent:
        time.sleep(0.05)
    os._exit(0)

@server.on("message")
def said(server, frame): pass

@server.on("worker_start")
async def started(server, number):
    LEFT
"""
MODES = {
    "alone": {"mode": "base", "worker_num": 1},
    "base": {"mode": "base", "worker_num": 2},
    "process": {"worker_num": 1},
}


def leaving(what: str) -> str:
    return app(APP.replace("LEFT", LEFT[what]))


@pytest.mark.parametrize(
    ("what", "mode"),
    [*((what, "alone") for what in LEFT), ("thread", "base"), ("child", "base"), ("thread", "process")],
)
def test_a_stop_ends(what, mode):
    with Serving(leaving(what), **MODES[mode], graceful_timeout=0.5) as server:
        assert server.stop() == 0
        server.wait_log(r"drained: .*adds up")
        if (what, mode) == ("thread", "alone"):
            server.wait_log(r"threads of the application \(forever\) did not end in time")


def test_a_stop_ends_though_the_application_has_taken_its_signal():
    """In one process; in a worker SIGTERM is taken back likewise, and elsewhere nothing of the application's runs."""
    code = app("""
    import asyncio, signal

    @server.on("message")
    def said(server, frame): pass

    @server.on("worker_start")
    async def started(server, number):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            asyncio.get_running_loop().add_signal_handler(number, print)
    """)
    with Serving(code, **MODES["alone"]) as server:
        assert server.stop() == 0


@pytest.mark.parametrize("mode", ["base", "process"])
def test_a_reload_ends(mode):
    """An old process that does not end is killed when its time is over, and the next one takes its turn."""
    with Serving(leaving("thread"), **MODES[mode], graceful_timeout=0.5) as server:
        server.signal(signal.SIGHUP)
        server.wait_log("reload: done")
        assert server.stop() == 0


@pytest.mark.parametrize("mode", ["alone", "process"])
def test_a_start_that_fails_ends(mode):
    code = leaving("thread") + '    raise ValueError("on purpose")\n'
    with Serving(code, ready=False, **MODES[mode]) as server:
        assert server.ended() == 1
        server.wait_log("ValueError: on purpose")


def test_a_process_whose_function_has_returned_ends():
    """Nobody has told it to, so nobody else ends it."""
    code = app("""
    import threading

    @server.on("message")
    def said(server, frame): pass

    def own(server):
        threading.Thread(target=time.sleep, args=(600,), name="forever", daemon=False).start()

    server.add_process(own)
    """)
    with Serving(code, worker_num=1, graceful_timeout=0.5) as server:
        server.wait_log(r"threads of the application \(forever\) did not end in time")
        server.wait_log(r"process 0 \(pid \d+\) ended with exit code 0: restarting it")
        assert server.stop() == 0
