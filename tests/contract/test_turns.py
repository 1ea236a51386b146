"""What one client sends at once, however much there is to do for it, does not hold up the others."""

import re
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from contract.clients import TEXT, Raw, get, handshake
from contract.modes import only
from frames import frame
from support.serving import Serving

COUNT = 1000  # of things that are sent at once; each takes 8 ms
APP = """
import os
import time

handled = 0

def handle():
    global handled
    time.sleep(0.008)
    handled += 1

@server.on("message")
def said(server, frame):
    if frame.data != "how many?":
        handle()
    server.push(frame.fd, str(handled))

@server.on("request")
def asked(request, response):
    global handled
    if request.path == "/deferred":
        handled = 0
        response.json(server.stats()["deferred"])
    else:
        handle()
        response.end("slow")

server.listen("127.0.0.1", 0, ssl_cert_file=os.environ["CERTIFICATE"])
"""
AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def slow(mode: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    path = tmp_path_factory.mktemp("turns") / "cert.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    with Serving(APP, **mode, env={"CERTIFICATE": str(path)}, in_flight_messages=2000) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def deferred(server: Serving) -> int:
    """How often something was too much for one turn by now."""
    with Raw(server, get("/deferred")) as raw:
        return int(raw.answer().body)


def many_messages(server: Serving) -> Raw:
    raw = Raw(server)
    raw.upgrade("/", behind=frame(TEXT, b"x") * COUNT)
    raw.text()  # what the first turn has to say
    return raw


def many_requests(server: Serving) -> Raw:
    raw = Raw(server, get("/") * COUNT)
    raw.until(b"slow")
    return raw


def many_records(server: Serving) -> Raw:
    """TLS, a record for each byte."""
    port = int(re.findall(r"127\.0\.0\.1:(\d+)", server.wait_log("listening on .*").group())[1])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl._create_unverified_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    raw = Raw(server, port=port)
    waits = True
    while waits:
        try:
            session.do_handshake()
            waits = False
        except ssl.SSLWantReadError:
            raw.send(outgoing.read())
            incoming.write(raw.socket.recv(65536))
    session.write(handshake("/"))
    for byte in frame(TEXT, b"x") * (COUNT // 2):
        session.write(bytes([byte]))
    raw.send(outgoing.read())
    said = b""
    while b"\x81\x01" not in said:  # the first message was handled
        try:
            said += session.read()
        except ssl.SSLWantReadError:
            incoming.write(raw.socket.recv(65536))
    return raw


@only("base")  # else no handler runs in the process that reads
@pytest.mark.parametrize("attack", [many_messages, many_requests, many_records])
def test_others_come_between(slow: Serving, attack: Callable[[Serving], Raw]):
    before = deferred(slow)
    attacker = attack(slow)
    with Raw(slow) as other:
        assert other.upgrade("/").status == 101
        other.send(frame(TEXT, b"how many?"))
        count = int(other.text())
        attacker.reset()
    assert 0 < count < COUNT // 3
    assert deferred(slow) > before
