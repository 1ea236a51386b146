"""The how-to pages: their examples do what the page says; what their tables name is there, on both sides."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import fastapi
import pytest
import socketio
from fastapi.routing import APIRoute
from playwright.sync_api import sync_playwright
from websockets.sync.client import connect

from mooring.config import HOME
from support.pages import Page
from support.serving import LIMIT, Serving, eventually


def run(page: Page, name: str, folder, **options) -> Serving:
    page.write(folder)
    return Serving("", argv=(sys.executable, name), cwd=folder, **options)


def get(server: Serving, path: str = "/") -> str:
    with urllib.request.urlopen(server.http + path, timeout=LIMIT) as answer:
        return answer.read().decode()


# ---------------------------------------------------------------- debugging, logging


def test_debugging(tmp_path):
    page = Page("debugging.md")
    with run(page, "slow.py", tmp_path) as server:
        assert get(server) == "hello\n"
        server.wait_log('"GET / HTTP/1.1" 200')
        asked = re.findall(r"`mooring (status|connections|inspect FD) --socket control.sock`", page.text)
        assert asked == ["status", "connections", "inspect FD"]
        with connect(server.url, open_timeout=LIMIT) as client:
            for command in ("status", "connections"):
                done = ask(tmp_path, command)
                assert done.returncode == 0, done.stderr
            fd = json.loads(ask(tmp_path, "connections", "--json").stdout)["connections"][0]["fd"]
            assert str(fd) in ask(tmp_path, "inspect", str(fd)).stdout
            client.send("20")
            role = re.fullmatch(r'pkill -USR2 -f "mooring: (worker 0)"', page.commands()[0])[1]
            shown = page.blocks("text")[0].strip().replace("/home/ada/slow.py", "slow.py")
            line = shown.removeprefix('File "slow.py", ')

            def seen() -> bool:  # the message may still be on its way
                os.kill(server.pid_of(role), signal.SIGUSR2)
                return any(one.endswith(line) for one in server.lines)

            eventually(seen, what=line)
            assert "a handler blocks it" in ask(tmp_path, "status", "--timeout", "0.1").stderr
            assert '"or a handler blocks it"' in page.text


def ask(folder, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mooring", *words, "--socket", "control.sock"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT)


def test_everything_in_one_process(tmp_path):
    page = Page("debugging.md")
    page.write(tmp_path)
    path = tmp_path / "slow.py"
    path.write_text(path.read_text().replace("worker_num=1", 'mode="base", worker_num=1'))
    assert 'mode="base", worker_num=1' in page.text
    assert "`python -m cProfile slow.py`" in page.text
    with Serving("", argv=(sys.executable, "-m", "cProfile", "slow.py"), cwd=tmp_path) as server:
        assert get(server) == "hello\n"
        assert len(server.titles()) == 1
        assert server.stop(signal.SIGINT) == 0
        assert any("slow.py" in line and "(page)" in line for line in server.lines)  # of the profile


def test_logging(tmp_path):
    page = Page("logging.md")
    with run(page, "app.py", tmp_path) as server:
        get(server, "/x")
        with connect(server.url, open_timeout=LIMIT) as client:
            client.send("hi")
            server.wait_log("a message of 2 characters")
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.lines if line.startswith("{")]
    for shown in (json.loads(line) for line in page.blocks("json")[0].splitlines()):
        assert any(alike(shown, line) for line in lines), shown


def alike(one: dict, two: dict) -> bool:
    words = ("level", "logger")
    return one.keys() == two.keys() and all(one[word] == two[word] for word in words)


# ---------------------------------------------------------------- coming from elsewhere


def test_from_swoole(tmp_path):
    with run(Page("from-swoole.md"), "swoole_like.py", tmp_path) as server:
        assert get(server) == "hello\n"
        with (
            connect(f"{server.url}/?name=Ada", open_timeout=LIMIT) as ada,
            connect(server.url, open_timeout=LIMIT) as bob,
        ):
            assert ada.recv(LIMIT) == "hello Ada"
            assert bob.recv(LIMIT) == "hello "
            bob.send("all")
            assert ada.recv(LIMIT) == bob.recv(LIMIT) == "all"
        server.wait_log(r"\d+ has left: 1000")
        assert server.stop() == 0


def test_from_socketio_the_events(tmp_path):
    with run(Page("from-socketio.md"), "moves.py", tmp_path) as server:
        with connect(server.url, open_timeout=LIMIT) as one, connect(server.url, open_timeout=LIMIT) as two:
            for client in (one, two):
                client.send('{"type": "join", "room": "red"}')
                assert json.loads(client.recv(LIMIT)) == {"type": "joined", "room": "red"}
            one.send('{"type": "move", "x": 1, "y": 2}')
            assert json.loads(two.recv(LIMIT)) == {"type": "moved", "x": 1, "y": 2}
            two.send('{"type": "move", "x": 3, "y": 4}')  # the sender of the other has not heard of its own
            assert json.loads(one.recv(LIMIT)) == {"type": "moved", "x": 3, "y": 4}
        assert server.stop() == 0


def test_from_socketio_the_client(tmp_path):
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    page = Page("from-socketio.md")
    with run(page, "moves.py", tmp_path) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page()
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(server.http)  # 426, but of the right origin
        script = page.files["client.js"].replace("ws://127.0.0.1:9501", server.url)
        script = script.replace("const chat", "var chat").replace(
            "moved: (", "joined: () => console.log('in'),\n  moved: ("
        )
        for times in (1, 2):
            with tab.expect_console_message(lambda message: message.text == "in", timeout=LIMIT * 1000):
                if times == 1:
                    tab.add_script_tag(content=script)
                else:
                    os.kill(server.pid_of("gateway 0"), signal.SIGKILL)
            with connect(server.url, open_timeout=LIMIT) as other:
                other.send('{"type": "join", "room": "red"}')
                other.recv(LIMIT)
                with tab.expect_console_message(lambda message: message.text == "moved 5 6", timeout=LIMIT * 1000):
                    other.send('{"type": "move", "x": 5, "y": 6}')
        browser.close()


def test_topics_with_a_history(tmp_path):
    """A page that loses its gateway, its worker and its connection shows each line once, in order."""
    page = Page("history.md")
    with run(page, "feed.py", tmp_path) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        lines = tab.locator("#feed li")

        def publish(text: str) -> dict[str, object]:
            asked = urllib.request.Request(server.http + "/news", data=text.encode())
            with urllib.request.urlopen(asked, timeout=LIMIT) as answer:
                return json.loads(answer.read())

        assert publish("0")["offset"] == 1
        tab.goto(server.http)
        lines.nth(0).wait_for(timeout=LIMIT * 1000)
        publish("1")
        for number, role in ((2, "worker 0"), (4, "gateway 0"), (6, "gateway 0")):
            mark = server.mark()
            os.kill(server.pid_of(role), signal.SIGKILL)
            server.wait_log("serves in place of", since=mark)
            for text in (number, number + 1):
                publish(str(text))
        lines.nth(7).wait_for(timeout=LIMIT * 1000)
        assert lines.all_text_contents() == [str(number) for number in range(8)]
        mark = server.mark()
        os.kill(server.pid_of("engine 0"), signal.SIGKILL)
        server.wait_log("serves in place of", since=mark)
        lines.nth(8).wait_for(timeout=LIMIT * 1000)
        publish("again")
        lines.nth(9).wait_for(timeout=LIMIT * 1000)
        assert lines.all_text_contents()[8:] == ["(something is missing here: unknown_epoch)", "again"]
        browser.close()


def test_beside_fastapi(tmp_path, monkeypatch):
    page = Page("from-fastapi.md")
    with run(page, "sockets.py", tmp_path) as server:
        monkeypatch.chdir(tmp_path)
        told: dict = {}
        exec(compile(page.files["shop.py"], "shop.py", "exec"), told)
        assert isinstance(told["app"], fastapi.FastAPI)
        route = next(one for one in told["app"].routes if isinstance(one, APIRoute))
        with connect(server.url, open_timeout=LIMIT) as client:
            client.send("?")
            assert client.recv(LIMIT) == "ask the shop"
            assert asyncio.run(route.endpoint(7)) == {"told": "everybody"}
            assert client.recv(LIMIT) == "order 7"
        assert server.stop() == 0


# ---------------------------------------------------------------- their tables


def cells(page: Page, heads: str) -> list[list[str]]:
    """The rows of the table whose first head is that."""
    table = page.text[page.text.index(f"\n| {heads} |") :].lstrip("\n").partition("\n\n")[0]
    return [re.split(r"(?<!\\) \| ", row.strip("| ")) for row in table.splitlines()[2:]]


def test_what_is_said_of_python_socketio_is_there():
    rows = cells(Page("from-socketio.md"), "python-socketio")
    named = {name for there, _here in rows for name in re.findall(r"sio\.([a-z_]+)", there)}
    assert {"emit", "enter_room", "leave_room" if "leave_room" in named else "on"} <= named
    missing = {name for name in named if not hasattr(socketio.AsyncServer(async_mode="asgi"), name)}
    assert not missing
    for name in ("ASGIApp", "AsyncRedisManager", "RedisManager"):
        assert hasattr(socketio, name)


def test_what_is_said_of_fastapi_is_there():
    rows = cells(Page("from-fastapi.md"), "FastAPI, Starlette, uvicorn")
    named = {name for there, _here in rows for name in re.findall(r"websocket\.([a-z_]+)", there)}
    assert {"accept", "receive_text", "send_text", "close"} <= named
    assert not {name for name in named if not hasattr(fastapi.WebSocket, name)}


@pytest.mark.parametrize("heads", ["Swoole"])
def test_the_settings_named_beside_swooles_are_there(heads):
    text = Page("from-swoole.md").text
    for row in re.findall(
        r"^\| (.*) \|$", text[text.index("## Settings") : text.index("## What behaves")], re.MULTILINE
    )[2:]:
        there, here = row.split(" | ")
        names = set(re.findall(r"`([a-z_]+)", there if here.startswith("the same") else here))
        names |= set(re.findall(r"`([a-z_]+)", here))
        assert names <= set(HOME), row
