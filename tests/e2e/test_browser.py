"""The chat, as its visitors see it: a real browser on a copy of the chat, whose code is edited and killed."""

import os
import re
import shutil
import signal
import sys

import pytest
from playwright.sync_api import Page, expect

from e2e.peers import drained
from support.serving import LIMIT, ROOT, Serving

expect.set_options(timeout=LIMIT * 1000)

# Notes whenever the shown time goes back, which is what a lost connection does to it.
WATCH_UPTIME = """
() => {
  const seconds = () => document.getElementById("uptime").textContent.split(":").reduce((sum, n) => sum * 60 + +n, 0);
  window.shown = 0;
  window.resets = [];
  setInterval(() => {
    if (seconds() < window.shown) window.resets.push([window.shown, seconds()]);
    window.shown = seconds();
  }, 20);
}
"""


@pytest.fixture
def chat(tmp_path):
    """The chat on a copy of the examples, watched."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    command = ("-m", "mooring", "run", "examples.chat:server", "--watch", "examples", "--port", "0")
    with Serving("", start=False, argv=(sys.executable, *command), cwd=tmp_path) as server:
        yield server
        assert server.stop() == 0
        drained(server)


class Visitor:
    """A browser of their own, with everything it asked for and complained of."""

    def __init__(self, browser, server: Serving, name: str, room: str = "lobby") -> None:
        self.context = browser.new_context(viewport={"width": 1100, "height": 760})
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.sockets: list[str] = []
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.sockets.append(socket.url))
        self.page.goto(server.http + "/")
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_label("Room").fill(room)
        self.page.get_by_role("button", name="Join").click()
        expect(self.page.locator("#status")).to_have_text("open")
        expect(self.page.locator("#pid")).to_have_text(re.compile(r"^\d+$"))
        self.page.evaluate(WATCH_UPTIME)

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def say(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def sees(self, text: str) -> None:
        expect(self.page.locator("#log")).to_contain_text(text)

    @property
    def pid(self) -> int:
        return int(self.page.locator("#pid").inner_text())

    def was_not_disturbed(self, server: Serving) -> None:
        assert self.complaints == []
        assert len(self.sockets) == 1, "it connected again"
        assert [url for url in self.requests if not url.startswith((server.http + "/", "data:"))] == []
        assert self.page.evaluate("window.resets") == []
        expect(self.page.locator("#reconnects")).to_have_text("0")


@pytest.fixture
def anna_and_otto(browser, chat):
    anna, otto = Visitor(browser, chat, "Anna"), Visitor(browser, chat, "Otto")
    yield anna, otto
    anna.was_not_disturbed(chat)
    otto.was_not_disturbed(chat)
    anna.context.close()
    otto.context.close()


def test_two_people_talk(browser, chat, anna_and_otto):
    anna, otto = anna_and_otto
    for visitor in anna_and_otto:
        expect(visitor.page.locator("#people li")).to_have_text(["Anna", "Otto"])
        expect(visitor.page.locator("#count")).to_have_text("2")
        expect(visitor.page.locator("#title")).to_have_text("lobby")
        assert visitor.pid in chat.titles()
    expect(anna.page.locator("#me")).to_have_text("Anna")
    anna.sees("Otto joined")
    anna.say("Ahoy, Otto!")
    otto.sees("Ahoy, Otto!")
    otto.say("<img src=x onerror=alert(1)> ✓")
    for visitor in anna_and_otto:
        expect(visitor.page.locator("#log .said")).to_have_count(2)
        expect(visitor.page.locator("#log .said .what")).to_have_text(["Ahoy, Otto!", "<img src=x onerror=alert(1)> ✓"])
        assert visitor.page.locator("#log img").count() == 0
    expect(anna.page.locator("#log .mine .what")).to_have_text(["Ahoy, Otto!"])
    expect(otto.page.locator("#log .mine .who")).to_have_text(["Otto"])
    assert re.search(r"worker \d+", anna.page.locator("#log .said .about").first.inner_text())

    # somebody in another room is not heard, and is not among those who are here
    eva = Visitor(browser, chat, "Eva", room="elsewhere")
    eva.say("Is nobody here?")
    eva.sees("Is nobody here?")
    expect(eva.page.locator("#people li")).to_have_text(["Eva"])
    eva.was_not_disturbed(chat)
    eva.context.close()
    third = Visitor(browser, chat, "Zoe")
    anna.sees("Zoe joined")
    third.page.get_by_role("button", name="Leave").click()
    expect(third.page.locator("#welcome")).to_be_visible()
    anna.sees("Zoe left")
    expect(anna.page.locator("#people li")).to_have_text(["Anna", "Otto"])
    third.context.close()
    assert "Is nobody here?" not in anna.page.locator("#log").inner_text()


def test_the_worker_is_killed(chat, anna_and_otto):
    anna, otto = anna_and_otto
    for victim, other in ((anna, otto), (otto, anna), (anna, otto)):
        mark = chat.mark()
        victim.say(f"at {mark}")  # what it shows may be the pid of one that was killed before
        victim.sees(f"at {mark}")
        pid = victim.pid
        os.kill(pid, signal.SIGKILL)
        victim.sees(f"worker {pid} → ")  # what it asks by itself every two seconds is answered by another one
        victim.say(f"after {pid}")
        other.sees(f"after {pid}")
        assert victim.pid != pid
        assert victim.pid in chat.titles()
        chat.wait_log("serves in place", since=mark)
    expect(anna.page.locator("#people li")).to_have_text(["Anna", "Otto"])
    assert "lost" not in anna.page.locator("#log").inner_text().lower()


def test_the_code_is_edited(chat, anna_and_otto, tmp_path):
    anna, otto = anna_and_otto
    script = tmp_path / "examples" / "chat.py"
    code = script.read_text()
    expect(anna.page.locator("#motto")).to_contain_text("nobody is disconnected")
    pids = {anna.pid, otto.pid}
    script.write_text(re.sub(r'^MOTTO = ".*"$', 'MOTTO = "Fair winds!"', code, flags=re.M))
    for visitor in anna_and_otto:
        expect(visitor.page.locator("#motto")).to_have_text("Fair winds!")
    chat.wait_log("reload: done")
    assert not pids & set(chat.titles())

    # a mistake is no catastrophe
    script.write_text("MOTTO = (\n")
    chat.wait_log("reload failed: ")
    anna.say("still here")
    otto.sees("still here")
    script.write_text(code.replace("MOTTO = ", 'MOTTO = "Corrected. " + '))
    for visitor in anna_and_otto:
        expect(visitor.page.locator("#motto")).to_contain_text("Corrected. ")
    expect(otto.page.locator("#people li")).to_have_text(["Anna", "Otto"])


def test_the_server_is_restarted(browser, tmp_path):
    """The one thing that does end connections: the page says so, and comes back by itself."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")

    def serve(port: int) -> Serving:
        command = ("-m", "mooring", "run", "examples.chat:server", "--port", str(port))
        return Serving("", start=False, argv=(sys.executable, *command), cwd=tmp_path)

    with serve(0) as server:
        port = server.port
        anna = Visitor(browser, server, "Anna")
        assert server.stop() == 0
        expect(anna.page.locator("#status")).to_have_attribute("data-state", "lost")
        anna.sees("Connection lost (1001, the server is shutting down)")
    with serve(port):
        expect(anna.page.locator("#reconnects")).to_have_text("1")
        anna.sees("connected again")
        anna.say("I am back")
        anna.sees("I am back")
        expect(anna.page.locator("#people li")).to_have_text(["Anna"])
        anna.context.close()


def test_a_phone_sees_it_too(browser, chat):
    """Nothing is wider than a small screen, and the field to write in is on it."""
    context = browser.new_context(viewport={"width": 360, "height": 640}, color_scheme="dark")
    page = context.new_page()
    page.goto(chat.http + "/")
    page.get_by_label("Your name").fill("A name as long as one may be 123")
    page.get_by_role("button", name="Join").click()
    expect(page.locator("#status")).to_have_text("open")
    page.get_by_label("Message", exact=True).fill("W" * 300)
    page.keyboard.press("Enter")
    expect(page.locator("#log .said")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    expect(page.locator("#text")).to_be_in_viewport()
    expect(page.locator("#send")).to_be_in_viewport()
    context.close()
