"""The smallest example does what the README says of it. The chat has its own file, with a browser."""

import os
import re
import signal
from pathlib import Path

from e2e.peers import client, drained, in_loop, logged
from support.serving import ROOT, Serving


def hello_server(folder: Path) -> Serving:
    """A copy of the smallest example, on a free port."""
    text = (ROOT / "examples" / "hello.py").read_text()
    assert "9501" in text
    script = folder / "hello.py"
    script.write_text(text.replace("9501", "0"))
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
    with hello_server(tmp_path) as server:
        hello(server)
        assert server.stop() == 0
        drained(server)
