"""One process that stands still, or has very much to do, keeps the clients of the others waiting a moment at most."""

from contextlib import ExitStack
from typing import Any

import pytest

from contract.clients import TEXT, Raw
from frames import frame
from security.watch import KEY
from support.serving import Serving

BURST = """
@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")
    server.push(request.fd, str(os.getpid()))

@server.on("message")
def said(server, frame):
    if frame.data == "burst":
        for number in range(20000):
            server.publish("all", "%05d" % number)
    else:
        server.push(frame.fd, frame.data)
"""


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param({"mode": "process", "worker_num": 2}, id="process"),
        pytest.param({"mode": "process", "worker_num": 2, "gateway_num": 2}, id="gateways"),
        pytest.param({"mode": "base", "worker_num": 2}, id="base"),
    ],
)
def test_a_burst_of_publishes_holds_nobody_up(mode: dict[str, Any]):
    """What another worker sends comes between those of a burst; the first of these does not wait for the last."""

    def client() -> tuple[Raw, str]:
        raw = stack.enter_context(Raw(server))
        assert raw.upgrade("/").status == 101
        return raw, raw.text()

    with Serving(BURST, **mode) as server, ExitStack() as stack:
        clients = [client() for _ in range(200)]
        boss, pid = clients[0]
        listener = next(raw for raw, other in clients if other != pid)
        boss.send(frame(TEXT, b"burst", key=KEY))
        numbers, between = 0, 0
        while numbers < 20000:
            text = listener.text()
            if text == "echo":
                between += 1
                continue
            assert text == f"{numbers:05d}"
            if numbers % 100 == 0:
                listener.send(frame(TEXT, b"echo", key=KEY))
            numbers += 1
        assert between > 1, "nothing was answered before the burst was over"
