"""The examples do what they say. The chat has its own file, with a browser."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from e2e.peers import client, drained, in_loop, logged
from support.serving import HOME, ROOT, Serving


def example(folder: Path, name: str, port: int, **environment: str) -> Serving:
    """A copy of an example, on a free port."""
    text = (ROOT / "examples" / name).read_text()
    assert f'"127.0.0.1", {port}' in text
    script = folder / name
    script.write_text(text.replace(f'"127.0.0.1", {port}', '"127.0.0.1", 0'))
    return Serving(script, cwd=folder, env=environment)


@in_loop()
async def hello(server: Serving) -> None:
    async with client(server) as one, client(server) as two:
        await one.send("ahoy")
        assert await one.recv() == "sent"
        heard = re.fullmatch(r"worker (\d+) heard 'ahoy'", await two.recv())
        assert int(heard[1]) in server.titles()
        mark = server.mark()
        os.kill(int(heard[1]), signal.SIGKILL)
        await one.send("again")
        assert await one.recv() == "sent"
        again = re.fullmatch(r"worker (\d+) heard 'again'", await two.recv())
        assert again[1] != heard[1]
        await logged(server, "serves in place", since=mark)


def test_hello(tmp_path):
    with example(tmp_path, "hello.py", 9501) as server:
        hello(server)
        assert server.stop() == 0
        drained(server)


def post(server: Serving, path: str, name: str, password: str) -> tuple[str, str]:
    """Body and cookie of the answer."""
    form = urllib.parse.urlencode({"name": name, "password": password}).encode()
    with urllib.request.urlopen(server.http + path, form, timeout=10) as answer:
        return answer.read().decode().strip(), answer.headers.get("Set-Cookie", "").partition(";")[0]


def test_auth(tmp_path):
    with example(tmp_path, "auth.py", 9503) as server:
        token, cookie = post(server, "/token", "ada", "lovelace")
        assert not cookie
        said, cookie = post(server, "/login", "ada", "lovelace")
        assert said == "welcome"
        ways = [
            ("/", {"additional_headers": {"Authorization": f"Bearer {token}"}}),
            ("/", {"subprotocols": ["bearer", token]}),
            (f"/?token={token}", {}),
            ("/", {"additional_headers": {"Cookie": cookie}}),
        ]
        for path, options in ways * 2:  # of both workers
            with connect(server.url + path, proxy=None, **options) as ws:
                ws.send("hello")
                assert ws.recv(10) == "ada: hello"
                assert ws.subprotocol == ("bearer" if "subprotocols" in options else None)
                assert ("Set-Cookie" in ws.response.headers) == ("Cookie" in options.get("additional_headers", {}))
        name, end, signature = token.split(".")
        forged = [
            f"ada.{int(end) + 1}.{signature}",
            f"eve.{end}.{signature}",
            f"{name}.{end}.{'0' * 64}",
            f"{name}.{end}",
            "",
            ".",
            "%C3%BC.1.2",
        ]
        for wrong in forged:
            with pytest.raises(InvalidStatus) as refused, connect(f"{server.url}/?token={wrong}", proxy=None):
                pass
            assert refused.value.response.status_code == 401
            assert refused.value.response.headers["WWW-Authenticate"] == "Bearer"
        for who in [("ada", "wrong"), ("eve", ""), ("", "")]:
            with pytest.raises(urllib.error.HTTPError, match="403"):
                post(server, "/token", *who)
        with pytest.raises(InvalidStatus, match="403"):  # the cookie of a visitor is no use to another site's page
            connect(server.url, proxy=None, origin="https://evil.example", additional_headers={"Cookie": cookie})
        assert server.stop() == 0
        drained(server)
        assert "ERROR" not in "".join(server.lines)


@pytest.fixture
def model() -> Iterator[Serving]:
    """The fake model of the streams."""
    command = (sys.executable, str(ROOT / "examples" / "model.py"), "0")
    with Serving("", start=False, ready=False, argv=command) as running:
        running.wait_log("the model listens on")
        yield running


def test_stream(tmp_path: Path, model: Serving):
    address = model.wait_log(r"listens on (\S+)")[1]
    with example(tmp_path, "stream.py", 9505, MODEL=address) as server:

        def ask(ws: ClientConnection, **wanted: object) -> None:
            ws.send(json.dumps(wanted))

        def told(ws: ClientConnection, what: str) -> str:
            while what not in (message := json.loads(ws.recv(20))):
                pass
            return message[what]

        with connect(server.url, proxy=None) as ws:
            ask(ws, prompt="hello")
            text = "".join(json.loads(ws.recv(20))["token"] for _ in range(4))
            assert text == "You have said 'hello', "
            assert told(ws, "end") == "done"
            for wanted in ({"stop": True}, {"prompt": "next"}):
                mark = model.mark()
                ask(ws, prompt="hello")
                told(ws, "token")
                ask(ws, **wanted)
                assert told(ws, "end") == "stopped"
                model.wait_log("nobody listens any more", since=mark)
            assert told(ws, "end") == "done"
            # a reload in the middle is not noticed
            ask(ws, prompt="over a reload")
            told(ws, "token")
            server.signal(signal.SIGHUP)
            assert told(ws, "end") == "done"
            server.wait_log("reload: done")
            # the end of a worker is
            ask(ws, prompt="over a death")
            told(ws, "token")
            for number in (0, 1):
                os.kill(server.pid_of(f"worker {number}"), signal.SIGKILL)
            assert told(ws, "end") == "lost, ask again"
            mark = model.mark()
            ask(ws, prompt="without me")
            told(ws, "token")
        model.wait_log("nobody listens any more", since=mark)
        with urllib.request.urlopen(f"{server.http}/?prompt=hello", timeout=20) as answer:
            assert json.loads(answer.readline()[6:]) == {"token": "You "}
            server.signal(signal.SIGHUP)
            assert answer.read().decode().endswith("\n\nevent: end\ndata: done\n\n")
        mark = model.mark()
        with urllib.request.urlopen(f"{server.http}/?prompt=hello", timeout=20) as answer:
            assert json.loads(answer.readline()[6:]) == {"token": "You "}
        model.wait_log("nobody listens any more", since=mark)
        server.wait_log("reload: done", count=2)
        assert server.stop() == 0
        drained(server)
        assert not [line for line in server.lines if "Traceback" in line]


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Serving]:
    """The chat with a control socket at ./chat.sock, as its text says it is started."""
    for name in ("chat.py", "chat.html"):
        (tmp_path / name).write_text((ROOT / "examples" / name).read_text())
    options = "--port 0 --gateways 1 --workers 2 --control-socket chat.sock"
    command = (sys.executable, "-m", "mooring", "run", "chat:server", *options.split())
    with Serving(tmp_path / "chat.py", argv=command, cwd=tmp_path) as server:
        yield server
        assert server.stop() == 0
        drained(server)


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": HOME, "MOORING_SOCKET": "chat.sock"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=30
    )


def test_notify(chat: Serving, tmp_path: Path):
    def notify(path: str, user: str, *text: str) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, str(ROOT / "examples" / "notify.py"), path, user, *text)

    with (
        connect(f"{chat.url}/?name=ada", proxy=None) as ada,
        connect(f"{chat.url}/?name=ada&room=other", proxy=None) as again,
        connect(f"{chat.url}/?name=bob&room=third", proxy=None) as bob,
    ):
        for ws in (ada, again, bob):  # each is in a room of its own, and bound
            assert json.loads(ws.recv(10))["type"] == "joined"
        done = notify("chat.sock", "ada", "the build is green")
        assert (done.returncode, done.stdout, done.stderr) == (0, "sent to 2 connections\n", "")
        for ws in (ada, again):
            while (heard := json.loads(ws.recv(10)))["type"] != "said":
                pass
            assert (heard["name"], heard["text"]) == ("notify", "the build is green")
        bob.send("hello")
        assert json.loads(bob.recv(10))["text"] == "hello", "the other one hears nothing of it"
        done = notify("chat.sock", "eve", "hello")
        assert (done.returncode, done.stdout) == (1, "eve is not there\n")
        done = notify("nowhere.sock", "ada", "hello")
        assert done.returncode == 2
        assert "is it running, with control_socket=" in done.stderr
        assert notify("chat.sock", "ada").returncode == 1, "it says how it is called"


def shape(line: str) -> str:
    """Without what differs from run to run: numbers with their units, and how much room they take."""
    line = re.sub(r"\S*chat\.sock", "chat.sock", line)
    return " ".join(re.sub(r"\b\d[\d,.:hms]*(ms|%| B| [KMG]iB)?|(?<=\s)-(?=\s|$)", "#", line).split())


def test_the_manual_shows_what_the_commands_print(chat: Serving, tmp_path: Path):
    text = (ROOT / "docs" / "control.md").read_text()
    shown = re.findall(r"```\n\$ (mooring [^\n]*)\n(.*?)```", text, re.S)
    assert [command.split()[1] for command, _ in shown] == ["status", "connections", "top"]
    with connect(f"{chat.url}/?name=ada", proxy=None) as ada:
        assert json.loads(ada.recv(10))["name"] == "ada", "she is in before bob, and hears of both"
        with connect(f"{chat.url}/?name=bob", proxy=None) as bob:
            assert json.loads(bob.recv(10))["name"] == "bob"
            for command, output in shown:
                done = run(tmp_path, "-m", *command.split())
                assert done.returncode == 0, done.stderr
                printed, expected = done.stdout.splitlines(), output.splitlines()
                assert [shape(line) for line in printed] == [shape(line) for line in expected]
