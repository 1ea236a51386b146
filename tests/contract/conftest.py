"""Every test here runs for every mode, on servers that are started once per mode."""

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.clients import Asker, all_askers
from contract.modes import MODES
from support.serving import Serving

APPLICATION = Path(__file__).with_name("application.py")
LIMITS = {
    "header_timeout": 3600,
    "keepalive_timeout": 3600,  # the askers of `workers` have nothing to ask while other tests run
    "graceful_timeout": 10,
    "max_message_size": 10_000,
    "max_fragments": 8,
    "request_line_limit": 1024,
    "header_field_limit": 1024,
    "header_limit": 4096,
    "header_count_limit": 32,
    "body_limit": 10_000,
    "session_limit": 512,
    "max_topics": 4,
    "keepalive_requests": 100_000,
    "subprotocols": ["chat.v2", "chat.v1"],
    "allowed_origins": ["https://app.example.org", "http://localhost:3000", "file://", "capacitor://localhost"],
}
SECONDS = 30  # the limit of one asynchronous test
SHARED = {"server", "impatient", "tasked"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that start a server of their own: a third of those here, and nearly all of the time."""
    for item in items:
        if Path(__file__).parent in item.path.parents and not SHARED & set(getattr(item, "fixturenames", ())):
            item.add_marker("own_server")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Coroutine functions are tests too, each with a limit."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}

    async def limited() -> None:
        async with asyncio.timeout(SECONDS):
            await test(**arguments)

    asyncio.run(limited())
    return True


@pytest.fixture(scope="session", params=MODES)
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    return MODES[request.param]


@pytest.fixture(scope="session")
def server(mode: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The server of most tests. When the last of them is over, it must end well and its counts add up."""
    with Serving(APPLICATION, cwd=tmp_path_factory.mktemp("server"), **mode, **LIMITS) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


@pytest.fixture(scope="session")
def workers(server: Serving, mode: dict[str, Any]) -> Iterator[list[Asker]]:
    """One Asker for each worker of `server`."""
    with all_askers(server, mode) as askers:
        yield askers


@pytest.fixture(scope="session")
def folder(server: Serving) -> Path:
    """Where the server's processes run: a file there can be waited for in a handler."""
    return Path(f"/proc/{server.pid}/cwd").resolve()


@pytest.fixture(scope="session")
def impatient(mode: dict[str, Any]) -> Iterator[Serving]:
    """A server whose time limits are short and whose other limits are the defaults. It has no `request` handler."""
    app = """
    @server.on("message")
    def said(server, frame):
        if frame.data == "leave":
            server.disconnect(frame.fd, 4000, "you asked for it")
        server.push(frame.fd, frame.data, frame.opcode)

    @server.on("close")
    def left(server, fd, code, reason):
        report("close", fd, code, reason)

    @server.on("open")
    def opened(server, request):
        server.push(request.fd, json.dumps({"fd": request.fd}))
    """
    limits = {
        "header_timeout": 0.25,
        "body_grace": 0.25,
        "keepalive_timeout": 2,
        "close_timeout": 0.3,
        "keepalive_requests": 3,
    }
    with Serving(app, **mode, **limits) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


@pytest.fixture(scope="session")
def tasked(mode: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with task workers; when it ends, every task is accounted for."""
    limits = {"task_worker_num": 2, "task_queue_limit": 8, "task_queue_bytes": 16 << 20}
    with Serving(APPLICATION, cwd=tmp_path_factory.mktemp("tasked"), **mode, **LIMITS, **limits) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])
        assert "tasks_left" not in running.lines[-2]


@pytest.fixture
def ask(tasked: Serving) -> Iterator[Asker]:
    asker = Asker(tasked)
    yield asker
    asker.raw.socket.close()
