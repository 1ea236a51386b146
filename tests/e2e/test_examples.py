"""The examples do what they say. The chat has its own file, with a browser."""

import os
import re
import signal
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from e2e.peers import client, drained, in_loop, logged
from support.serving import ROOT, Serving


def example(folder: Path, name: str, port: int) -> Serving:
    """A copy of an example, on a free port."""
    text = (ROOT / "examples" / name).read_text()
    assert f'"127.0.0.1", {port}' in text
    script = folder / name
    script.write_text(text.replace(f'"127.0.0.1", {port}', '"127.0.0.1", 0'))
    return Serving(script, cwd=folder)


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
