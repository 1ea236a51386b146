"""How a server is started, and every way in which a start can go wrong."""

import errno
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from contract.clients import Asker, Raised, Raw, get
from contract.modes import only
from mooring import ConfigError, Server, StateError
from mooring.net.holder import program
from support.serving import HOME, LIMIT, Serving

HELLO = """
import sys
from mooring import Server
import sibling

server = Server("127.0.0.1", 0)

@server.on("message")
def said(server, frame):
    server.push(frame.fd, f"{frame.data} {sibling.NAME} {sys.argv[1:]}")
"""
START = """
if __name__ == "__main__":
    server.set(mode=sys.argv[1], worker_num=int(sys.argv[2]))
    server.start()
"""


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))


def answers(server: Serving, expected: str) -> None:
    with connect(server.url, proxy=None) as ws:
        ws.send("hello")
        assert ws.recv(LIMIT) == expected
    assert server.stop() == 0
    assert not [line for line in server.lines if "Traceback" in line]


# ---------------------------------------------------------------------------------------------- ways to start


@only("base", "base-2", "process")
def test_a_script(mode: dict[str, Any], tmp_path: Path):
    """`python folder/app.py a b`, from another directory; it finds the modules beside it."""
    write(tmp_path / "code", app=HELLO + START, sibling="NAME = 'brother'")
    words = [mode["mode"], str(mode["worker_num"])]
    argv = (sys.executable, "code/app.py", *words, "a b")
    with Serving(Path("unused"), argv=argv, cwd=tmp_path) as server:
        answers(server, f"hello brother {[*words, 'a b']}")


@only("base", "base-2", "process")
def test_a_module(mode: dict[str, Any], tmp_path: Path):
    """`python -m package.app`: relative imports work in workers too."""
    app = HELLO.replace("import sibling", "from . import sibling") + START
    write(tmp_path / "package", __init__="", app=app, sibling="NAME = __name__")
    words = [mode["mode"], str(mode["worker_num"])]
    with Serving(Path("unused"), argv=(sys.executable, "-m", "package.app", *words), cwd=tmp_path) as server:
        answers(server, f"hello package.sibling {words}")


@only("base", "base-2", "process")
def test_a_package(mode: dict[str, Any], tmp_path: Path):
    """`python -m package`, which has a __main__."""
    main = HELLO.replace("import sibling", "from . import sibling") + START
    write(tmp_path / "package", __init__="", __main__=main, sibling="NAME = __name__")
    words = [mode["mode"], str(mode["worker_num"])]
    with Serving(Path("unused"), argv=(sys.executable, "-m", "package", *words), cwd=tmp_path) as server:
        answers(server, f"hello package.sibling {words}")


@only("base", "process")
@pytest.mark.parametrize("command", [["mooring"], [sys.executable, "-m", "mooring"]], ids=["mooring", "python -m"])
def test_the_command(mode: dict[str, Any], tmp_path: Path, command: list[str]):
    """`mooring run module:server` and its options, which are stronger than what the application has set."""
    app = HELLO.replace('Server("127.0.0.1", 0)', 'Server("127.0.0.1", 1, worker_num=7, gateway_num=3)')
    write(tmp_path, chat=app + START, sibling="NAME = 'brother'")
    options = ["--port", "0", "--mode", mode["mode"], "--workers", str(mode["worker_num"])]
    options += ["--gateways", str(mode.get("gateway_num", 1)), "--log-level", "info"]
    program = [str(Path(sys.executable).with_name("mooring"))] if command == ["mooring"] else command
    with Serving(Path("unused"), argv=(*program, "run", "chat:server", *options), cwd=tmp_path) as server:
        processes = 0
        if mode["mode"] == "process":
            processes = mode["gateway_num"] + mode["worker_num"]
        elif mode["worker_num"] > 1:
            processes = mode["worker_num"]
        assert len(server.pids()) == processes
        answers(server, f"hello brother {['run', 'chat:server', *options]}")


@only("base", "process")
def test_the_settings_in_force(mode: dict[str, Any], tmp_path: Path):
    """What `server.settings` says in a handler is what the server runs with, wherever it was said."""
    app = """
    from mooring import Server
    server = Server("127.0.0.1", 1, max_topics=5)

    @server.on("message")
    def said(server, frame):
        found = server.settings
        server.push(frame.fd, f"{found.listen.port} {found.process.mode} {found.websocket.max_topics}")
    """
    write(tmp_path, chat=app)
    options = ["--port", "0", "--mode", mode["mode"], "--workers", str(mode["worker_num"])]
    argv = (sys.executable, "-m", "mooring", "run", "chat:server", *options)
    with Serving(Path("unused"), argv=argv, cwd=tmp_path) as server:
        answers(server, f"0 {mode['mode']} 5")


def test_names_of_processes(mode: dict[str, Any], server: Serving):
    """`ps` tells who is who."""
    titles = sorted(server.titles().values())
    if mode["mode"] == "process":
        roles = [f"gateway {n}" for n in range(mode["gateway_num"])] + [
            f"worker {n}" for n in range(mode["worker_num"])
        ]
        assert titles == sorted(f"mooring: {role}" for role in ["supervisor", *roles])
    elif mode["worker_num"] > 1:
        assert titles == sorted(f"mooring: {role}" for role in ["supervisor", "server 0", "server 1"])
    else:
        assert titles == ["mooring: server 0"]


# ---------------------------------------------------------------------------------------------- starts that fail


def failed(app: str, mode: dict[str, Any], code: int = 1, **options: Any) -> str:
    """The log of a start that must end with this exit code."""
    with Serving(app, ready=False, **options, **mode) as server:
        assert server.ended() == code
        assert not any("ready" in line and "INFO" in line for line in server.lines)
        return "\n".join(server.lines)


MESSAGE = """
@server.on("message")
def said(server, frame): ...
"""


@only("base", "process")
def test_no_message_handler(mode: dict[str, Any]):
    log = failed("", mode)
    assert "ConfigError: no handler for 'message' (of WebSockets), and none for 'request'" in log
    assert '@server.on("message")' in log


@only("base", "process")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("server.set(worker_nmu=2)", "unknown option 'worker_nmu': did you mean 'worker_num'?"),
        ("server.set(worker_num=0)", "worker_num=0"),
        ("server.on('mesage', print)", "did you mean 'message'?"),
        ("server.on('message', lambda frame: 0)", "message(server, frame)"),
        ("server.on('message', lambda server, frame: 0)", "two handlers for 'message', said ("),
        ("server.on(said)", "write @server.on('message') above it"),
        ("server.on('connect', print)", "did you mean 'open'?"),
        ("server.set(workers=2)", "did you mean 'worker_num'?"),
        ("server.set(host='127.0.0.1:9501')", "write host='127.0.0.1', port=9501"),
        ("[server.on('task', print), server.start()]", "set task_worker_num to 1 or more"),
        (
            "exec('async def main(): server.start()'); __import__('asyncio').run(main())",
            "start() was called in a cor",
        ),
    ],
)
def test_mistakes_in_the_setup(mode: dict[str, Any], line: str, said: str):
    """Found when they are made, with the line at fault in the traceback."""
    log = failed(MESSAGE + line, mode)
    assert "ConfigError: " in log
    assert said in log
    assert line in log


@only("base", "process")
def test_f19_a_port_that_is_taken(mode: dict[str, Any]):
    """One clear line, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        log = failed(f"server.set(port={port})" + MESSAGE, mode, errno.EADDRINUSE)
    assert "Traceback" not in log
    assert " ERROR " in log
    assert str(port) in log
    assert f"in use by {program(os.getpid())}" in log


@only("base", "process")
def test_a_host_that_is_not_ours(mode: dict[str, Any]):
    log = failed("server.set(host='192.0.2.1')" + MESSAGE, mode)
    assert "Traceback" not in log
    assert "192.0.2.1" in log


@only("base", "process")
def test_an_application_that_cannot_be_imported(mode: dict[str, Any], tmp_path: Path):
    """At the first look: its own traceback and nothing else."""
    log = failed("import no_such_module_anywhere" + MESSAGE, mode)
    assert "ModuleNotFoundError: No module named 'no_such_module_anywhere'" in log
    assert "import no_such_module_anywhere" in log


@only("base", "base-2", "process")
def test_an_application_that_cannot_be_imported_in_a_worker(mode: dict[str, Any], tmp_path: Path):
    """The first process could, the others can't: the start fails, with the worker's traceback in the log."""
    app = """
    if os.path.exists("imported"):
        raise RuntimeError("not twice")
    open("imported", "w").close()
    """
    if mode["mode"] == "base" and mode["worker_num"] == 1:
        with Serving(textwrap.dedent(app) + MESSAGE, cwd=tmp_path, **mode) as server:  # it is imported once
            assert server.stop() == 0
        return
    log = failed(textwrap.dedent(app) + MESSAGE, mode, cwd=tmp_path)
    assert "RuntimeError: not twice" in log
    assert "the start failed" in log


@only("base", "process")
def test_a_module_without_a_server(mode: dict[str, Any], tmp_path: Path):
    write(tmp_path, chat="x = 5")
    argv = (sys.executable, "-m", "mooring", "run", "chat:server", "--mode", mode["mode"])
    with Serving(Path("unused"), argv=argv, cwd=tmp_path, ready=False) as server:
        assert server.ended() == 1
        log = "\n".join(server.lines)
    assert "chat" in log
    assert "'server'" in log
    assert "Traceback" not in log


@only("base-2", "process")
@pytest.mark.parametrize("arguments", [["-c"], ["-i", "-q"], ["-"]], ids=["-c", "-i", "standard input"])
def test_an_interactive_session(mode: dict[str, Any], arguments: list[str]):
    """No other process could run what was typed."""
    text = f"from mooring import Server\nserver = Server('127.0.0.1', 0, mode={mode['mode']!r}, worker_num=2)\n"
    text += "server.on('message', lambda server, frame: None)\nserver.start()\n"
    command = [sys.executable, *arguments, *([text] if arguments == ["-c"] else [])]
    environment = {"PYTHONPATH": HOME}
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=LIMIT, env=environment)
    assert "ConfigError: start() was called outside of a file" in done.stderr
    assert "script" in done.stderr


# ---------------------------------------------------------------------------------------------- at the wrong time


@pytest.mark.parametrize(
    "call",
    [
        lambda server: server.push(1, "x"),
        lambda server: server.disconnect(1),
        lambda server: server.close(1),
        lambda server: server.exists(1),
        lambda server: server.is_established(1),
        lambda server: server.get_client_info(1),
        lambda server: server.session(1),
        lambda server: server.connections,
        lambda server: server.subscribe(1, "x"),
        lambda server: server.unsubscribe(1, "x"),
        lambda server: server.publish("x", "y"),
        lambda server: server.reload(),
        lambda server: server.shutdown(),
        lambda server: server.stats(),
        lambda server: server.worker_id,
    ],
)
def test_calls_before_the_start(call: Callable[[Server], Any]):
    with pytest.raises(StateError, match="after start"):
        call(Server("127.0.0.1", 0))


def test_mistakes_are_found_before_the_start():
    server = Server("127.0.0.1", 0)
    with pytest.raises(ConfigError, match="did you mean 'port'"):
        server.set(prot=1)
    with pytest.raises(ConfigError, match="port=70000"):
        Server("127.0.0.1", 70_000)
    assert server.settings.listen.port == 0
    with pytest.raises(ConfigError, match="did you mean 'open'"):
        server.on("opened", print)


@pytest.mark.parametrize("call", ["set(port=1)", "start()", "on('message', print)", "on('open')"])
def test_calls_after_the_start(server: Serving, workers: list[Asker], call: str):
    """In a handler they could have no effect, so they are refused; and the server goes on."""
    for asker in workers:
        with pytest.raises(Raised, match="StateError"):
            asker(f"server.{call}")
    with Raw(server, get("/")) as raw:
        assert raw.answer().body == b"hello"
