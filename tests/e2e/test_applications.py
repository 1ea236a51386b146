"""The three applications in examples/, tested as their users would: by mooring.testing, and in a browser."""

import re
import subprocess
import sys
import time

import pytest
from playwright.sync_api import expect

from mooring.testing import NotInTime, Refused, serve
from support.serving import HOME, ROOT

EXAMPLES = ROOT / "examples"
LIMIT = 60.0  # seconds; for machines under load
LINES = 80

expect.set_options(timeout=LIMIT * 1000)


def visit(browser, url):
    """A page of a browser of its own; what it complains of fails the test at its end."""
    page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
    page.set_default_timeout(LIMIT * 1000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(url)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it is fit for a phone"
    return page


def problem(client):
    """What the client is told of its message. News of others may come before: no worker waits for another."""
    while "error" not in (message := client.receive_json()):
        pass
    return message["error"]["reason"]


@pytest.mark.parametrize("name", ["auction.py", "messenger.py", "stream.py"])
def test_it_is_short(name):
    assert len((EXAMPLES / name).read_text().splitlines()) <= LINES


# ---------------------------------------------------------------------------------------------- the auction


def auction(mode="process", **env):
    return serve(EXAMPLES / "auction.py", mode=mode, limit=LIMIT, env={"AUCTION_SILENCE": "3600", **env})


def log_in(visitor, name, password):
    answer = visitor.post("/login", data={"name": name, "password": password})
    assert (answer.status_code, answer.json()) == (200, {"name": name})
    field = answer.headers["set-cookie"]
    assert "HttpOnly" in field
    assert "SameSite=Strict" in field


@pytest.mark.parametrize("mode", ["process", "base"])
def test_an_auction(mode):
    with auction(mode) as running, running.visitor() as ada, running.visitor() as bob:
        assert "<h1>A brass sextant" in ada.get("/").text
        log_in(ada, "ada", "lovelace")
        log_in(bob, "bob", "builder")
        with ada.connect() as one, ada.connect() as tab, bob.connect() as two:
            for client in (one, tab, two):
                start = client.skip_to(people=["ada", "bob"])
                assert start == {"price": 100, "leader": "nobody", "sold": False, "people": ["ada", "bob"]}
            one.send("120")
            for client in (one, tab, two):
                client.skip_to(price=120, leader="ada")
            two.send("120")
            assert problem(two) == "more than 120, please"
            two.send("a lot")
            assert "not JSON" in problem(two)
            two.send('{"bid": 130}')
            assert "Expected `int`" in problem(two)
            two.send(str(10**15))
            assert problem(two) == "more than 120, please"
            two.send("130")
            one.skip_to(price=130, leader="bob")
            tab.close()
            assert one.receive_json()["people"] == ["ada", "bob"], "one of two tabs"
            if mode == "process":
                running.kill_worker(0)
                running.reload()
                one.send("140")
                two.skip_to(price=140, leader="ada")
            one.close()
            two.skip_to(people=["bob"])
        assert running.error_lines == []


def test_who_may_enter_the_hall():
    with auction() as running, running.visitor() as eve:
        for name, password in [("ada", "wrong"), ("eve", ""), ("", "")]:
            answer = eve.post("/login", data={"name": name, "password": password})
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        for cookie in ("", "sid=", "sid=ada", "sid=ada.99999999999.00", "sid=..", "sid=%C3%BC.1.2"):
            with pytest.raises(Refused, match="401: log in first"), eve.connect(headers={"Cookie": cookie}):
                pass
        log_in(eve, "ada", "lovelace")
        with pytest.raises(Refused, match="403"), eve.connect(headers={"Origin": "https://evil.example"}):
            pass
        assert running.error_lines == []


def test_a_lot_is_sold_once():
    with auction(AUCTION_SILENCE="0.3") as running, running.visitor() as ada:
        log_in(ada, "ada", "lovelace")
        with ada.connect() as client:
            client.send("150")
            assert client.skip_to(sold=True)["leader"] == "ada"
            client.send("160")
            assert problem(client) == "it is sold"
            running.reload()
            with ada.connect() as late:
                assert late.skip_to(sold=True, price=150, leader="ada")


def test_an_auction_in_a_browser(browser):
    with auction() as running:
        pages = {}
        for name, password in [("ada", "lovelace"), ("bob", "builder")]:
            page = pages[name] = visit(browser, running.http_url)
            page.get_by_label("Name").fill(name)
            page.get_by_label("Password").fill("wrong")
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("alert")).to_contain_text("wrong name or password")
            page.get_by_label("Password").fill(password)
            page.get_by_role("button", name="Log in").click()
            expect(page.locator("#people")).to_contain_text(name)
        expect(pages["ada"].locator("#people")).to_have_text("ada, bob")
        pages["bob"].get_by_label("Your bid").fill("175")
        pages["bob"].get_by_role("button", name="Bid").click()
        for page in pages.values():
            expect(page.locator("#price")).to_have_text("175, offered by bob")
        running.reload()
        pages["ada"].get_by_label("Your bid").fill("180")
        pages["ada"].get_by_role("button", name="Bid").click()
        for page in pages.values():
            expect(page.locator("#price")).to_have_text("180, offered by ada")
            assert page.complaints == []
            page.context.close()


# ---------------------------------------------------------------------------------------------- the messenger


def messenger(mode="process", **settings):
    return serve(EXAMPLES / "messenger.py", mode=mode, limit=LIMIT, **settings)


@pytest.mark.parametrize("mode", ["process", "base"])
def test_a_messenger(mode):
    with messenger(mode) as running:
        with running.connect("/?name=ada") as ada, running.connect("/?name=ada") as tab:
            with running.connect("/?name=bob") as bob:
                for client in (ada, tab, bob):
                    client.skip_to(type="here", room="lobby", people=["ada", "bob"])
                ada.send_json({"type": "say", "text": "hello"})
                for client in (ada, tab, bob):
                    assert client.skip_to(type="said") == {"type": "said", "name": "ada", "text": "hello"}
                # to one user: the other tab of who writes shows it, and nobody else
                bob.send_json({"type": "enter", "room": "attic"})
                for client in (ada, tab):
                    client.skip_to(type="here", room="lobby", people=["ada"])
                bob.skip_to(type="here", room="attic", people=["bob"])
                bob.send_json({"type": "say", "text": "psst", "to": "ada"})
                for client in (ada, tab, bob):
                    whisper = client.skip_to(type="whisper")
                    assert whisper == {"type": "whisper", "name": "bob", "to": "ada", "text": "psst"}
                bob.send_json({"type": "say", "text": "alone"})
                assert bob.skip_to(type="said")["text"] == "alone"
                ada.send_json({"type": "say", "text": "not in the attic"})
                assert tab.skip_to(type="said")["text"] == "not in the attic", "of the attic it has heard nothing"
                bob.send_json({"type": "say", "text": "psst", "to": "eve"})
                assert problem(bob) == "eve is not here"
                if mode == "process":
                    running.reload()
                    bob.send_json({"type": "enter", "room": "lobby"})
                    bob.skip_to(type="here", room="lobby", people=["ada", "bob"])
            if mode == "process":
                tab.skip_to(type="here", people=["ada"])
        assert running.error_lines == []


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("hello", "not JSON"),
        ('{"type": "shout", "text": "x"}', "Invalid value 'shout'"),
        ('{"type": "say"}', "missing required field `text`"),
        ('{"type": "say", "text": ""}', "length >= 1"),
        ('{"type": "say", "text": 5}', "Expected `str`, got `int`"),
        ('{"type": "enter", "room": "%s"}' % ("x" * 33), "length <= 32"),
        ("[1]", "Expected `object`"),
    ],
)
def test_what_does_not_fit_is_answered(message, found, one_messenger):
    with one_messenger.connect("/?name=ada") as ada:
        ada.skip_to(type="here")
        ada.send(message)
        assert found in problem(ada)
        ada.send_json({"type": "say", "text": "still here"})
        assert ada.skip_to(type="said")["text"] == "still here"


@pytest.fixture(scope="module")
def one_messenger():
    with messenger() as running:
        yield running


def test_a_name_is_needed(one_messenger):
    for name in ("", "%20", "x" * 33):
        with pytest.raises(Refused, match="400"), one_messenger.connect(f"/?name={name}"):
            pass
    assert "<title>messenger" in one_messenger.get("/").text


def test_who_writes_fast_waits_and_loses_nothing():
    with messenger(message_rate=4, message_burst=5) as running, running.connect("/?name=ada") as ada:
        ada.skip_to(type="here")
        begun = time.monotonic()
        for number in range(9):
            ada.send_json({"type": "say", "text": str(number)})
        assert [ada.skip_to(type="said")["text"] for _ in range(9)] == [str(number) for number in range(9)]
        assert time.monotonic() - begun > 0.7, "four of them came at four in a second"


def test_kicked_from_the_command_line(one_messenger):
    def kick(user):
        command = [sys.executable, "-m", "mooring", "kick", "--user", user, "--reason", "be kind"]
        command += ["--socket", one_messenger.control_socket]
        env = {"PYTHONPATH": HOME, "PATH": ""}
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=env)

    with one_messenger.connect("/?name=eve") as eve, one_messenger.connect("/?name=eve") as tab:
        eve.skip_to(people=["eve"])
        done = kick("eve")
        assert done.returncode == 0, done.stderr
        for client in (eve, tab):
            assert (client.close_code, client.close_reason) == (1000, "be kind")
    assert kick("nobody").returncode == 1


def test_a_messenger_in_a_browser(browser):
    with messenger() as running:

        def enter(name):
            page = visit(browser, running.http_url)
            page.get_by_label("Your name").fill(name)
            page.get_by_role("button", name="Join").click()
            expect(page.locator("#people")).to_contain_text(name)
            return page

        ada, eve = enter("ada"), enter("eve")
        expect(ada.locator("#people")).to_have_text("ada, eve")
        ada.get_by_label("Message", exact=True).fill("hello <b>all</b>")
        ada.get_by_role("button", name="Send").click()
        expect(eve.get_by_role("log")).to_contain_text("ada: hello <b>all</b>")
        eve.get_by_label("Room").fill("attic")
        eve.get_by_role("button", name="Enter").click()
        expect(eve.locator("#room")).to_have_text("attic")
        expect(ada.locator("#people")).to_have_text("ada")
        eve.get_by_label("To").fill("ada")
        eve.get_by_label("Message", exact=True).fill("psst")
        eve.get_by_role("button", name="Send").click()
        expect(ada.get_by_role("log")).to_contain_text("eve to ada: psst")
        running.control.disconnect_user("eve", 1000, "be kind")
        expect(eve.get_by_role("log")).to_contain_text("you were sent away: be kind")
        assert ada.complaints == eve.complaints == []
        for page in (ada, eve):
            page.context.close()


# ---------------------------------------------------------------------------------------------- the stream


LONG = "again " * 2000  # what is said to that takes a minute and more: whoever stops it is in time


@pytest.fixture
def model():
    """The model that stream.py asks: its process, and what it says of its clients."""
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "model.py", "0"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    try:
        found = re.search(r"listens on (\S+)", process.stdout.readline())
        yield found[1], process.stdout.readline
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def words(client):
    """The tokens up to the end of an answer, and how it ended."""
    found = []
    while "end" not in (message := client.receive_json()):
        found.append(message["token"])
    return found, message["end"]


@pytest.mark.parametrize("mode", ["process", "base"])
def test_a_stream(mode, model):
    address, says = model
    with serve(EXAMPLES / "stream.py", mode=mode, limit=LIMIT, env={"MODEL": address}) as running:
        with running.connect() as client:
            client.send_json({"prompt": "hello"})
            whole, end = words(client)
            assert end == "done"
            assert "".join(whole).startswith("You have said 'hello'")
            assert says() == "answered\n"
            client.send_json({"prompt": LONG})
            assert client.receive_json() == {"token": "You "}
            client.send_json({"stop": True})
            part, end = words(client)
            assert end == "stopped"
            assert len(part) < 1000
            assert says() == "nobody listens any more\n"
        with running.connect() as confused:
            for wrong in ("x", "5", "null", '{"prompt": 5}'):
                confused.send(wrong)
                assert set(confused.receive_json()) == {"error"}
            confused.send_json({"prompt": "hello"})
            assert words(confused)[0] == whole
            assert says() == "answered\n"
        assert not running.error_lines
        with running.connect() as leaver:
            leaver.send_json({"prompt": LONG})
            leaver.receive()
        assert says() == "nobody listens any more\n", "who leaves has it cancelled"
        with running.events("/?prompt=hello") as events:
            told = list(events)
            assert [event.json()["token"] for event in told[:-1]] == whole
            assert told[-1][:2] == ("done", "end")
        assert says() == "answered\n"
        with running.events(f"/?prompt={LONG[:5000]}") as events:
            events.receive()
        assert says() == "nobody listens any more\n"


def test_a_stream_goes_on_over_a_reload(model):
    address, says = model
    with serve(EXAMPLES / "stream.py", mode="process", limit=LIMIT, env={"MODEL": address}) as running:
        with running.connect() as client:
            client.send_json({"prompt": "hello " * 60})
            first = client.receive_json()["token"]
            running.reload()
            _, end = words(client)
            assert (first, end) == ("You ", "done")
            assert says() == "answered\n"
            client.send_json({"prompt": LONG})
            assert client.receive_json(), "by the new worker"
            with pytest.raises(NotInTime):
                client.skip_to(0.01, end="done")
