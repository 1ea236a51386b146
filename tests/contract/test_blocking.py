"""A handler that blocks the loop of its worker is named: while it does, and with the count of those it kept waiting
when it has ended."""

import re
import select
from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import TEXT, Raw
from frames import frame
from support.serving import Serving

APP = """
import asyncio, time, hashlib
from pathlib import Path

TOLD = Path(__file__).with_name("told")  # that it blocks; while the machine has no CPU to spare nobody is blamed

class Rooms:
    def slow(self, seconds):
        report("blocking")
        while not TOLD.exists(): time.sleep(seconds)  # HERE

@server.on("message")
def said(server, frame):
    if frame.data == "def":
        Rooms().slow(0.9)
    if frame.data == "timer":
        server.after(0, tick)
    if frame.data == "async":
        return later()
    if frame.data == "many":
        time.sleep(0.15)
    if frame.data == "interpreter":
        hold()
    if frame.data == "fail":
        report("blocking")
        while not TOLD.exists(): time.sleep(0.9)
        raise ValueError
    if frame.data == "debugger":
        debug()
    if frame.data == "to_thread":
        return asyncio.to_thread(time.sleep, 0.9)
    server.push(frame.fd, frame.data)

def tick():
    report("blocking")
    while not TOLD.exists(): time.sleep(0.9)
    report("ticked")

async def later():
    await asyncio.sleep(0.01)
    report("blocking")
    while not TOLD.exists(): time.sleep(0.9)

def hold():
    report("blocking")
    end = time.monotonic() + 0.9
    data = bytes(1 << 20)
    sum(1 for _ in iter(lambda: time.monotonic() < end or not TOLD.exists(), False))

def debug():
    scope = {"__name__": "bdb", "time": time}
    exec("def interaction(): time.sleep(0.9)", scope)
    scope["interaction"]()

@server.on("error")
def failed(server, fd, failure):
    while not TOLD.with_name("told both").exists(): time.sleep(0.9)

@server.on("request")
def page(request, response):
    report("blocking")
    time.sleep(0.9)
    response.end("slow")

@server.on("task")
def task(server, task):
    time.sleep(0.9)
    return 1

@server.on("open")
async def opened(server, request):
    if request.path == "/task":
        await server.task("x", timeout=20)
    server.push(request.fd, "open")
"""
LIMIT = 0.4


@pytest.fixture(scope="module")
def app(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, blocked_after=LIMIT, task_worker_num=1, **{**mode, "worker_num": 1}) as running:
        yield running
        assert running.stop() == 0


def say(raw: Raw, text: str) -> None:
    raw.send(frame(TEXT, text.encode()))


def opened(app: Serving, path: str = "/") -> Raw:
    raw = Raw(app)
    assert raw.upgrade(path).status == 101
    assert raw.text() == "open"
    return raw


@pytest.mark.parametrize(
    ("what", "name", "line"),
    [
        ("def", "said", "time.sleep(seconds)  # HERE"),
        ("timer", "tick", "    while not TOLD.exists(): time.sleep(0.9)\n    report"),
        ("async", "later", "    while not TOLD.exists(): time.sleep(0.9)\n\ndef hold"),
        ("interpreter", "said", "    sum(1 for"),
    ],
)
def test_it_is_named_and_who_waited_is_counted(app: Serving, what: str, name: str, line: str):
    mark = app.mark()
    text = app.script.read_text()
    told = app.script.with_name("told")
    told.unlink(missing_ok=True)
    with opened(app) as raw, opened(app) as other, opened(app) as third:
        say(raw, what)
        app.wait_log("^report blocking", since=mark)
        say(other, "behind")
        say(other, "behind")
        say(third, "behind")
        try:
            began = app.wait_log(f"{name} \\(.*\\) blocks the loop", since=mark).string
            assert not select.select([other.socket, third.socket], [], [], 0)[0], "it is said while it blocks"
        finally:
            told.touch()
        number = text[: text.index(f"def {name}(")].count("\n") + (name != "said")  # with its decorator
        place = text[: text.index(line)].count("\n") + 1
        assert re.search(f":{name} \\(\\S+:{number}\\) blocks the loop: .* been served for \\d\\.\\d s", began)
        assert f"stands at {app.script}:{place}" in began
        ended = app.wait_log(f"{name} \\(.*\\) blocked the loop for", since=mark).string
        found = re.search(r"for (\d+\.\d) s; 3 events of 2 connections waited for it", ended)
        assert found
        assert float(found[1]) >= LIMIT
        assert [other.text(), other.text(), third.text()] == ["behind"] * 3


def test_two_in_one_turn_are_both_told_to_the_end(app: Serving):
    mark = app.mark()
    told = {"said": app.script.with_name("told"), "failed": app.script.with_name("told both")}
    for file in told.values():
        file.unlink(missing_ok=True)
    with opened(app) as raw, opened(app) as other:
        say(raw, "fail")
        app.wait_log("^report blocking", since=mark)
        say(other, "behind")
        for name, file in told.items():
            try:
                app.wait_log(f"{name} \\(.*\\) blocks the loop", since=mark)
            finally:
                file.touch()
        assert other.text() == "behind"
    for name in told:
        ended = app.wait_log(f"{name} \\(.*\\) blocked the loop for", since=mark).string
        found = re.search(r"for (\d+\.\d) s; \d events? of \d connections? waited for it", ended)
        assert found
        assert float(found[1]) >= 0.8


@pytest.mark.parametrize("what", ["debugger", "to_thread", "task"])
def test_who_may_is_not_named(app: Serving, what: str):
    mark = app.mark()
    with opened(app, "/task" if what == "task" else "/") as raw:
        if what != "task":
            say(raw, what)
        say(raw, "behind")
        while raw.text() != "behind":
            pass
    assert not [text for text in app.lines[mark:] if " the loop" in text]
