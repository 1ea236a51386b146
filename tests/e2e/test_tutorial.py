"""The tutorial, done as a reader would do it: its files are written, its commands run, what it shows has to come."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from playwright.sync_api import expect
from websockets.sync.client import connect

from support.pages import Page, shape
from support.serving import LIMIT, ROOT, Serving

CHAPTERS = sorted((ROOT / "docs" / "tutorial").glob("*.md"))

expect.set_options(timeout=LIMIT * 1000)


def chapter(number: int) -> Page:
    return Page(f"tutorial/{CHAPTERS[number - 1].name}")


def test_its_chapters_follow_one_another():
    for number, path in enumerate(CHAPTERS, 1):
        text = path.read_text()
        assert path.name.startswith(f"{number}-")
        assert text.startswith(f"# {number}. ")
        if path != CHAPTERS[-1]:
            assert f"({CHAPTERS[number].name}).\n" in text[text.rindex("Next:") :]


def visitor(browser, server, name, there="has joined"):
    """A window in which somebody has given a name, and which shows that they are there."""
    page = browser.new_context().new_page()
    page.on("dialog", lambda dialog: dialog.accept(name))
    page.goto(server.http)
    expect(page.locator("body")).to_contain_text(re.compile(rf"{name}.*{there}" if there != name else name))
    return page


def say(page, text):
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def shapes(server):
    return {shape(line) for line in server.lines}


def same_log(page, server):
    """Each line of a log that the page shows has come, but for times, process ids and ports."""
    shown = [line for block in ("text", "console") for text in page.blocks(block) for line in text.splitlines()]
    lines = [shape(line) for line in shown if re.match(r"20\d\d-", line)]
    assert lines
    assert not set(lines) - shapes(server)


def test_a_first_server(tmp_path):
    page = chapter(1)
    page.write(tmp_path)
    command = "python hello.py"
    with Serving("", argv=(sys.executable, *command.split()[1:]), cwd=tmp_path) as server:
        with urllib.request.urlopen(server.http, timeout=LIMIT) as answer:
            assert page.printed("curl http://127.0.0.1:9501/") == answer.read().decode().splitlines()
        talk = "python -m websockets ws://127.0.0.1:9501/"
        shown = page.printed(talk)
        client = subprocess.Popen(
            [sys.executable, "-m", "websockets", server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        typed = shown[1].removeprefix("> ")
        client.stdin.write(typed + "\n")
        client.stdin.flush()
        heard = ""
        while shown[2] not in heard:
            line = client.stdout.readline()
            assert line, heard
            heard += line
        assert shape(shown[0]).startswith("Connected to ws://N")
        client.communicate(timeout=LIMIT)
        shown = [shape(line) for line in page.printed("pgrep -a -f mooring:")]
        assert {shape(f"{pid} {title}") for pid, title in server.titles().items()} == set(shown)
        assert server.stop(signal.SIGINT) == 0
        same_log(page, server)


def test_a_chat(tmp_path, browser):
    page = chapter(2)
    page.write(tmp_path)
    assert "python chat.py" in page.commands()
    with Serving("", argv=(sys.executable, "chat.py"), cwd=tmp_path) as server:
        ada, bob = visitor(browser, server, "Ada"), visitor(browser, server, "Bob")
        expect(ada.locator("#log")).to_contain_text("Bob has joined")
        say(bob, "<b>hello</b>")
        expect(ada.locator("li").last).to_have_text("Bob: <b>hello</b>")
        expect(bob.locator("li").last).to_have_text("Bob: <b>hello</b>")
        bob.close()
        expect(ada.locator("li").last).to_have_text("Bob has left")
        with pytest.raises(urllib.request.HTTPError, match="404"):
            urllib.request.urlopen(f"{server.http}/favicon.ico", timeout=LIMIT)
        assert server.stop() == 0


def test_change_it_while_people_talk(tmp_path, browser):
    chapter(2).write(tmp_path)
    page = chapter(3)
    command = "mooring run chat:server --watch ."
    assert command in page.commands()
    changed, broken = page.blocks("python")[:2]
    argv = (sys.executable, "-m", "mooring", *command.split()[1:], "--port", "0", "--workers", "2")
    with Serving("", argv=argv, cwd=tmp_path) as server:
        ada, bob = visitor(browser, server, "Ada"), visitor(browser, server, "Bob")
        expect(ada.locator("#log")).to_contain_text("Bob has joined")
        path = tmp_path / "chat.py"
        good = re.sub(r"^ .*\{name\}: .*\n", lambda _line: changed, path.read_text(), flags=re.MULTILINE)
        assert good != path.read_text()

        def save(text, then):
            mark = server.mark()
            path.write_text(text)
            server.wait_log(then, since=mark)

        save(good, "reload: done")
        say(bob, "hello")
        expect(ada.locator("li").last).to_have_text("Bob says: hello")
        assert "`def said(server, frame`" in page.text
        save(good.replace("def said(server, frame)", "def said(server, frame"), "reload failed")
        assert "SyntaxError: " in "\n".join(server.lines)
        save(good, "reload: done")
        mark = server.mark()
        os.kill(server.pid_of("worker 0"), signal.SIGKILL)
        server.wait_log("serves in place", since=mark)
        say(ada, "still there?")
        expect(bob.locator("li").last).to_have_text("Ada says: still there?")
        same_log(page, server)
        save(
            good[: good.index('@server.on("message")')] + broken + good[good.index('\n\n@server.on("close")') :],
            "reload: done",
        )
        say(bob, "ouch")
        expect(bob.locator("li").last).to_have_text("(the connection has ended)")
        server.wait_log("ZeroDivisionError")
        expect(ada.locator("li").last).to_have_text("Bob has left")
        assert server.stop() == 0


def test_rooms(tmp_path, browser):
    page = chapter(4)
    page.write(tmp_path)
    with Serving("", argv=(sys.executable, "chat.py"), cwd=tmp_path) as server:
        ada, bob = visitor(browser, server, "Ada"), visitor(browser, server, "Bob")
        expect(ada.locator("li").last).to_have_text("Bob has joined lobby")
        bob.get_by_label("Message").press_sequentially("he")
        expect(ada.locator("#typing")).to_have_text("Bob is typing ...")
        say(bob, "hello")
        expect(ada.locator("li").last).to_have_text("Bob: hello")
        expect(ada.locator("#typing")).to_have_text("")
        say(bob, "/join garden")
        expect(ada.locator("li").last).to_have_text("Bob has left")
        expect(bob.locator("li").last).to_have_text("Bob has joined garden")
        say(ada, "alone?")
        expect(ada.locator("li").last).to_have_text("Ada: alone?")
        say(ada, "/join garden")
        expect(bob.locator("li").last).to_have_text("Ada has joined garden")
        expect(bob.locator("#log")).not_to_contain_text("alone?")
        say(bob, "")
        expect(bob.locator("li").last).to_contain_text("Expected `str` of length >= 1")
        (talk,) = (command for command in page.commands() if "websockets" in command)
        _connected, *lines = page.printed(talk)
        with connect(f"{server.url}/?name=Eve", open_timeout=LIMIT) as eve:
            for line in lines:
                if line.startswith(">"):
                    eve.send(line[2:])
                else:
                    assert eve.recv(LIMIT) == line[2:]
        assert server.stop() == 0


def test_who_is_there(tmp_path, browser):
    page = chapter(5)
    page.write(tmp_path)
    with Serving("", argv=(sys.executable, "chat.py"), cwd=tmp_path) as server:
        windows = {}
        for window, name in (("one", "Ada"), ("two", "Ada"), ("bob", "Bob")):
            windows[window] = visitor(browser, server, name, there=name)
        for window in windows.values():
            expect(window.locator("#here")).to_have_text("lobby: Ada, Bob")
        with connect(f"{server.url}/?name=", open_timeout=LIMIT) as nameless:
            assert json.loads(nameless.recv(LIMIT))["names"] == ["Ada", "Bob", "anonymous"]
        expect(windows["bob"].locator("#here")).to_have_text("lobby: Ada, Bob")
        say(windows["bob"], "@Ada hello")
        for window in ("one", "two"):
            expect(windows[window].locator("li").last).to_have_text("Bob whispers: hello")
        say(windows["bob"], "@Eve hello")
        expect(windows["bob"].locator("li").last).to_have_text("(Eve is not here)")
        mark = server.mark()
        os.kill(server.pid_of("worker 0"), signal.SIGKILL)
        server.wait_log("serves in place", since=mark)
        windows["one"].close()
        say(windows["two"], "still here")  # behind the end of the other
        expect(windows["bob"].locator("li").last).to_have_text("Ada: still here")
        expect(windows["bob"].locator("#here")).to_have_text("lobby: Ada, Bob")
        windows["two"].close()
        expect(windows["bob"].locator("#here")).to_have_text("lobby: Bob")
        assert server.stop() == 0


@pytest.mark.long
def test_its_tests_pass_and_can_fail(tmp_path):
    chapter(5).write(tmp_path)
    page = chapter(6)
    page.write(tmp_path)
    command = "python -m pytest -q test_chat.py"
    argv = [sys.executable, *command.split()[1:], "-p", "no:cacheprovider"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout
    assert [shape(line) for line in page.printed(command)] == [shape(line) for line in done.stdout.splitlines()]
    path = tmp_path / "chat.py"
    for broken in ("server.bind(request.fd, name)", "leave(server, frame.fd)"):
        good = path.read_text()
        path.write_text(good.replace(broken, "pass"))
        failed = subprocess.run([*argv, "-k", "tabs"], cwd=tmp_path, capture_output=True, text=True, timeout=90)
        assert failed.returncode == 1, (broken, failed.stdout)
        path.write_text(good)
