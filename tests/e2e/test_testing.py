"""mooring.testing.serve and the plugin: whole servers, started, disturbed and stopped as a user's tests do it."""

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mooring import Server
from mooring.testing import Closed, NotInTime, Refused, ServerFailed, serve
from mooring.testing.application import name_of
from support.serving import HOME, ROOT

LIMIT = 60.0  # seconds; for machines under load
MODES = ["process", "base"]

server = Server("127.0.0.1", 9502, worker_num=2)


@server.on("message")
def said(server: Server, frame) -> None:
    server.push(frame.fd, f"{server.worker_id} {server.worker_pid} {frame.data}")


@server.on("request")
def page(request, response) -> None:
    if request.path == "/events":
        response.header("Content-Type", "text/event-stream")
        response.end("data: one\n\nevent: sum\nid: 7\ndata: 1\ndata: 2\n\n: silence\n\ndata: 3\n\n")
    else:
        response.end("hello")


def made() -> Server:
    return server


SCRIPT = """
import os
from mooring import Server
server = Server("127.0.0.1", 9502)
other = server.listen("127.0.0.1", 9503)
@server.on("message")
def said(server, frame):
    server.push(frame.fd, f"{os.getcwd()} {os.environ.get('WHO')} {server.get_client_info(frame.fd).listener}")
server.start()
"""


@pytest.mark.parametrize("mode", MODES)
def test_clients_outlive_what_can_be_outlived(mode):
    with serve(server, mode=mode, limit=LIMIT) as running:
        assert running.get("/").text == "hello"
        with running.connect("/") as client:
            client.send("a")
            number, pid, text = client.receive().split()
            assert text == "a"
            assert int(pid) == running.worker_pid(int(number))
            running.kill_worker(int(number))
            assert running.worker_pid(int(number)) != int(pid)
            if mode == "process":
                client.send("b")
                assert client.receive().split()[2] == "b"
            else:
                with pytest.raises(Closed, match="1006") as closed:
                    client.receive()
                assert closed.value.code == client.close_code == 1006
        running.reload()
        with running.connect("/") as client:
            client.send("c")
            assert client.receive().endswith(" c")
            if mode == "process":
                running.reload()
                client.send("d")
                assert client.receive().endswith(" d")
            info = running.control.inspect(client.fd)
            assert info["fd"] == client.fd
        running.wait_stats(in_flight=0)
        with pytest.raises(NotInTime, match=r"the counters are \{'in_flight': 0\}, and not \{'in_flight': 5\}"):
            running.wait_stats(0.01, in_flight=5)
        processes = {one["pid"] for one in running.control.processes()}
    assert "adds up" in running.log
    assert not [pid for pid in processes if Path(f"/proc/{pid}").exists()], "nothing is left of it"


def test_events():
    with serve(server, mode="base", worker_num=1, limit=LIMIT) as running:
        with running.events("/events") as events:
            assert events.receive().data == "one"
            assert events.receive()[:] == ("1\n2", "sum", "7")
            assert [event.json() for event in events] == [3]
            with pytest.raises(Closed, match="the answer has ended"):
                events.receive()
        with pytest.raises(AssertionError, match="no event stream, but 200"), running.events("/"):
            pass


def test_a_single_process_has_no_successor():
    with serve(made, mode="base", worker_num=1, limit=LIMIT) as running:
        with pytest.raises(Exception, match="one process, and nobody would start it again"):
            running.kill_worker()
        with pytest.raises(ServerFailed, match="cannot replace itself"):
            running.reload()
        with pytest.raises(LookupError, match="no worker 7"):
            running.worker_pid(7)


def test_a_script_that_starts_when_it_is_imported(tmp_path):
    script = tmp_path / "app.py"
    script.write_text(SCRIPT)
    with serve(script, limit=LIMIT, cwd=tmp_path, env={"WHO": "ada"}) as running:
        assert len(set(running.ports)) == 2
        assert not {9502, 9503} & set(running.ports), "fixed ports may be taken"
        with running.connect("/") as client:
            client.send("")
            assert client.receive() == f"{tmp_path} ada 0"
            script.write_text(SCRIPT.replace('"{os', '"new {os').replace('f"{', 'f"new {'))
            running.reload()
            client.send("")
            assert client.receive() == f"new {tmp_path} ada 0"
            script.write_text("raise LookupError('broken')")
            with pytest.raises(ServerFailed, match=r"the reload was not carried out(?s:.*)LookupError: broken"):
                running.reload()
            client.send("")
            assert client.receive() == f"new {tmp_path} ada 0"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("raise LookupError('on purpose')", "LookupError: on purpose"),
        ("x = 1", "0 servers at its top level"),
        ("from mooring import Server\nserver = Server()\n", "no handler for 'message'"),
        ("import os; os._exit(7)", "exit code 7"),
    ],
)
def test_what_does_not_start_shows_its_log(tmp_path, text, found):
    (tmp_path / "app.py").write_text(text)
    with pytest.raises(ServerFailed, match=rf"app.py did not start: the server has ended(?s:.*){found}"):
        serve(tmp_path / "app.py", limit=LIMIT).start()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("app:srever", "module 'app' has no 'srever'; did you mean app:server"),
        ("paa:server", "there is no module 'paa' on"),
    ],
)
def test_a_name_that_leads_to_nothing(tmp_path, monkeypatch, name, words):
    (tmp_path / "app.py").write_text("from mooring import Server\nserver = Server()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ServerFailed, match=words) as caught:
        serve(name, limit=LIMIT).start()
    assert "Traceback" not in str(caught.value)


def test_what_the_application_prints_is_not_taken_for_the_server(tmp_path):
    text = "from mooring import Server\nprint('ready, listening on 127.0.0.1:1', flush=True)\nserver = Server()\n"
    (tmp_path / "app.py").write_text(f"{text}server.on('request', lambda request, response: response.end('hello'))\n")
    for mode in ({"mode": "process"}, {"mode": "base", "worker_num": 1}):
        with serve(tmp_path / "app.py", limit=LIMIT, **mode) as running:
            assert running.get("/").text == "hello"


def test_a_script_that_serves_itself_when_it_is_imported(tmp_path):
    """Without the refusal each server would start a further one, without an end."""
    (tmp_path / "app.py").write_text(
        "import os\nfrom mooring import Server\nfrom mooring.testing import serve\nserver = Server()\n"
        "server.on('request', lambda request, response: response.end('hello'))\n"
        "assert not os.path.exists('third')\n"
        "open('third' if os.path.exists('second') else 'second', 'w').close()\n"
        "with serve(server) as running:\n    print(running.get('/').text)\n"
    )
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, timeout=2 * LIMIT, check=False
    )
    assert done.returncode == 1
    assert "put the call into a test, or under `if __name__ == '__main__':`" in done.stderr
    assert "AssertionError" not in done.stderr


def test_a_server_that_dies_is_told_of():
    with pytest.raises(ServerFailed, match="exit code -9"):  # noqa: PT012
        with serve(server, limit=LIMIT) as running, running.connect("/") as client:
            os.kill(running.pid, signal.SIGKILL)
            with pytest.raises(Closed, match=r"the supervisor is gone|the server is shutting down"):
                client.receive()
            with pytest.raises(ServerFailed, match="no line with 'never': the server has ended"):
                running.wait_log("never")


def test_an_exit_code_fails_the_test(tmp_path):
    (tmp_path / "app.py").write_text(
        "import atexit, os\nfrom mooring import Server\n"
        "server = Server(mode='base', worker_num=1)\nserver.on('message', lambda server, frame: None)\n"
        "atexit.register(os._exit, 3)\n"
    )
    with pytest.raises(ServerFailed, match="has ended with exit code 3"):
        with serve(f"{tmp_path}/app.py", limit=LIMIT):
            pass


def test_the_error_of_a_test_has_the_log():
    with pytest.raises(ZeroDivisionError) as failed:  # noqa: PT012
        with serve(server, limit=LIMIT) as running, running.connect("/") as client:
            with pytest.raises(NotInTime, match=r"no message within 0.05 s(?s:.*)processes serve"):
                client.receive(0.05)
            1 / 0  # noqa: B018
    assert any("processes serve" in note for note in failed.value.__notes__)


ABANDONS = """
import os, sys
from mooring.testing import serve
running = serve(sys.argv[1], limit=60)
running.start()
print(running.pid, flush=True)
sys.stdin.read()
os._exit(0)
"""


def test_a_test_that_is_killed_leaves_no_server():
    with subprocess.Popen(
        [sys.executable, "-c", ABANDONS, str(ROOT / "examples" / "hello.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as abandons:
        pid = int(abandons.stdout.readline())
        ended = os.pidfd_open(pid)
        try:
            abandons.kill()
            assert select.select([ended], [], [], LIMIT)[0], "the server goes on without anybody"
        finally:
            os.close(ended)


def test_what_a_test_need_not_think_of(tmp_path):
    """Queries that must be escaped, certificates that are not here, errors that nobody asked for."""
    (tmp_path / "app.py").write_text(
        """
from mooring import Server
server = Server(ssl_cert_file="nowhere.pem", port=443)
@server.on("message")
def said(server, frame):
    server.push(frame.fd, server.session(frame.fd)["raise" if frame.data == "raise" else "name"])
@server.on("open")
def opened(server, request):
    server.session(request.fd)["name"] = request.query["name"]
"""
    )
    with serve(tmp_path / "app.py", mode="base", worker_num=1, limit=LIMIT) as running:
        for client in (running.connect("/?name=zo\u00eb b"), running.connect(params={"name": "zo\u00eb b"})):
            with client as opened:
                opened.send("")
                assert opened.receive() == "zo\u00eb b"
                assert running.error_lines == []
        with running.connect("/?name=ada") as client:
            client.send("raise")
            assert client.close_code == 1011
        assert "'message' handler failed" in running.error_lines[0]
    with pytest.raises(ValueError, match="without TLS"):
        serve(tmp_path / "app.py", ssl_cert_file="x")


def test_coroutines():
    async def main() -> None:
        async with serve(server, mode="process", limit=LIMIT) as running:
            assert (await running.get("/")).text == "hello"
            async with running.connect("/") as client:
                await client.send("a")
                number = int((await client.receive()).split()[0])
                await running.kill_worker(number)
                await client.send("b")
                assert (await client.receive()).endswith(" b")
                await running.reload()
                await running.wait_log("reload: done")
                await client.send_json([1])
                assert (await client.receive()).endswith(" [1]")
                assert (await running.stats())["in_flight"] == 0
                assert running.running.control.disconnect(client.fd, 4001, "bye")
                assert await client.wait_closed() == 4001
                with pytest.raises(Closed):
                    await client.receive()
            with pytest.raises(Refused, match=r"400|404|426") as refused:
                async with running.connect("/", headers={"Sec-WebSocket-Version": "7"}):
                    pass
            assert refused.value.status >= 400

    asyncio.run(main())


def test_what_no_other_process_can_import_is_refused():
    with pytest.raises(ValueError, match=r"stands in no module(?s:.*)in_process\(\)"):
        serve(Server())
    with pytest.raises(ValueError, match="stands inside another function"):
        serve(lambda: server)
    with pytest.raises(ValueError, match="write 'module:attribute'"):
        serve("chat")
    with pytest.raises(ValueError, match=r"a module has dots: examples\.chat"):
        serve("./examples/chat:server")
    with pytest.raises(ValueError, match="there is no file"):
        serve("nowhere/chat.py")
    with pytest.raises(ValueError, match="is no application"):
        serve(5)
    with pytest.raises(ValueError, match="log_file can't be set here"):
        serve(server, log_file="x")
    with pytest.raises(ServerFailed, match="unknown option 'worker_nmu'"):
        serve(server, worker_nmu=2, limit=LIMIT).start()
    assert name_of(said.__globals__["server"]).attribute == "server"


TESTS = """
import pytest
from mooring import Server
server = Server()

@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)

@pytest.mark.parametrize("mode", ["process", "base"])
def test_served(serve, mode):
    running = serve(server, mode=mode, limit=60)
    with running.connect("/") as client:
        client.send("hello")
        assert client.receive() == "hello"

def test_here(in_process):
    running = in_process(server, limit=60)
    with running.connect("/") as client:
        client.send("hello")
        assert client.receive() == "hello"
        assert running.pushed == [(client.fd, "hello")]

def test_that_fails(serve):
    running = serve(server, limit=60)
    assert running.get("/").status_code == 200
"""


def test_the_plugin(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["mooring.testing.plugin"]\n')
    (tmp_path / "test_app.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": HOME},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert re.search(r"-+ mooring log of .*test_app.py:server -+\n(?s:.*)processes serve", done.stdout)


def test_what_the_manual_shows(tmp_path):
    """Each block of docs/testing.md that begins with the name of a file is a part of that file."""
    text = (ROOT / "docs" / "testing.md").read_text()
    files: dict[str, str] = {}
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL):
        files[name] = files.get(name, "") + code + "\n"
    assert {"chat.py", "conftest.py", "test_chat.py", "test_whole.py", "test_fixtures.py"} <= set(files)
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    count = sum(code.count("def test_") for code in files.values()) + 1  # one runs in both modes
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": HOME},
        capture_output=True,
        text=True,
        timeout=115,
    )
    assert f"{count} passed" in done.stdout, done.stdout + done.stderr


def test_importing_it_loads_no_client():
    code = "import sys, mooring.testing; print([m for m in ('httpx', 'websockets', 'pytest') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_missing_client_says_what_to_install():
    code = """
import sys
sys.modules["websockets"] = None
from mooring.testing.clients import websockets_module
try:
    websockets_module()
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'mooring-server[testing]'" in done.stdout, done.stderr
