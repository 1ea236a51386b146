"""TLS on a listener, with clients that others wrote: what is spoken, what is refused, and what changes."""

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from support.serving import LIMIT, Serving, eventually

APP = """
import asyncio

@server.on("open")
def opened(server, request):
    if request.path == "/flood":
        for number in range(200):
            server.push(request.fd, f"{number:06}" * 10000)

@server.on("message")
def said(server, frame):
    if frame.data == "close me":
        server.disconnect(frame.fd, 4000, "as you wish")
    else:
        server.push(frame.fd, frame)

@server.on("close")
def left(server, fd, code, reason):
    report("close", code, reason)

@server.on("request")
async def page(request, response):
    if request.path == "/events":
        try:
            await response.event_stream(keep_alive=0).send("hello")
            await asyncio.Event().wait()
        finally:
            report("left the stream")
    if request.path == "/parts":
        await response.write("begun")
        while not os.path.exists(request.query["until"]):
            await asyncio.sleep(0.002)
        response.end("ended")
    elif request.path == "/stats":
        response.json(server.stats())
    elif request.path == "/file":
        response.send_file(request.query["path"])
    else:
        response.end(f"{request.scheme} {len(request.body)}")
"""
AUTHORITY = trustme.CA()
MIB = 1 << 20


def issue(path: Path, *names: str, authority: trustme.CA = AUTHORITY) -> str:
    authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return issue(tmp_path_factory.mktemp("tls") / "cert.pem", "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def secure(mode: dict[str, Any], certificate: str) -> Iterator[Serving]:
    with Serving(APP, ssl_cert_file=certificate, max_message_size=2 * MIB, **mode) as server:
        yield server
        assert server.stop() == 0
        server.wait_log(r"adds up")


def trusting(**changes: Any) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    for name, value in changes.items():
        setattr(context, name, value)
    return context


class Client:
    """A WebSocket of the `websockets` library, without threads: those of its blocking client read and write one SSL
    object at the same time, which loses what is written now and then."""

    def __init__(self, url: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        options = {"ssl": trusting(), "compression": None, "max_size": None, "open_timeout": LIMIT, **options}
        try:
            self.ws = self._run(connect(url, proxy=None, **options))
        except BaseException:
            self._runner.close()
            raise

    def _run(self, waiting: Any) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(LIMIT):
                return await waiting

        return self._runner.run(limited())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.ws.close())
        self._runner.close()

    def send(self, message: str | bytes) -> None:
        self._run(self.ws.send(message))

    def recv(self) -> str | bytes:
        return self._run(self.ws.recv())


def dial(server: Serving, path: str = "/", **options: Any) -> Client:
    return Client(f"wss://localhost:{server.port}{path}", **options)


@contextlib.contextmanager
def tcp(server: Serving) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as sock:
        yield sock


def stats(server: Serving, **options: Any) -> dict[str, Any]:
    client = http.client.HTTPSConnection("localhost", server.port, timeout=LIMIT, context=trusting())
    with contextlib.closing(client):
        client.request("GET", "/stats")
        return json.loads(client.getresponse().read())


def test_a_large_file(secure: Serving, tmp_path: Path):
    """It is encrypted slice by slice: the client reads slowly, and the gateway does not grow."""
    path = tmp_path / "large.bin"
    content = random.Random(8446).randbytes(24 * MIB)
    path.write_bytes(content)
    before = stats(secure)
    client = http.client.HTTPSConnection("localhost", secure.port, timeout=LIMIT, context=trusting())
    with contextlib.closing(client):
        client.request("GET", f"/file?path={path}")
        response = client.getresponse()
        found = response.read(MIB)
        eventually(lambda: stats(secure)["files_open"] == before["files_open"] + 1)
        assert stats(secure)["bytes_queued"] < MIB
        assert found + response.read() == content
        client.request("GET", f"/file?path={path}", headers={"Range": "bytes=1000000-20000000"})
        response = client.getresponse()
        assert response.status == 206
        assert response.read() == content[1_000_000:20_000_001]
        client.request("GET", "/")
        assert client.getresponse().read() == b"https 0"
    with contextlib.closing(http.client.HTTPSConnection("localhost", secure.port, context=trusting())) as leaver:
        leaver.request("GET", f"/file?path={path}")
        leaver.getresponse().read(MIB)
    eventually(lambda: stats(secure)["files_open"] == before["files_open"])
    assert stats(secure)["files_sent"] == before["files_sent"] + 2


def test_a_file_that_becomes_shorter(secure: Serving, tmp_path: Path):
    """The client can tell: there is no close_notify, or less than was promised."""
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(24 * MIB))
    since = secure.mark()
    with contextlib.closing(
        http.client.HTTPSConnection("localhost", secure.port, timeout=LIMIT, context=trusting())
    ) as client:
        client.request("GET", f"/file?path={path}")
        response = client.getresponse()
        os.truncate(path, MIB)
        with pytest.raises((http.client.IncompleteRead, OSError)):
            response.read()
    secure.wait_log("was not sent to its end: it has become shorter", since=since)


def test_every_message_comes_back_whole(secure: Serving):
    rng = random.Random(8446)
    with dial(secure) as ws:
        for size in (0, 1, 125, 126, 16_383, 16_384, 16_385, 65_536, 300_000, MIB):
            message = rng.randbytes(size)
            ws.send(message)
            assert ws.recv() == message
        for number in range(500):
            ws.send(f"number {number}")
        for number in range(500):
            assert ws.recv() == f"number {number}"


def test_a_close_frame_and_close_notify_end_it(secure: Serving):
    with dial(secure) as ws:
        ws.send("close me")
        with pytest.raises(Exception, match="as you wish"):
            ws.recv()
        assert (ws.ws.close_code, ws.ws.close_reason) == (4000, "as you wish")
    secure.wait_log("report close 4000")
    with tcp(secure) as sock, trusting().wrap_socket(sock, server_hostname="localhost") as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b""
        while chunk := tls.recv(65536):  # an end without close_notify would raise here: Python checks it
            received += chunk
        assert received.endswith(b"https 0")


@pytest.mark.parametrize("how", ["FIN", "close_notify and FIN", "close_notify"])
def test_a_client_that_leaves_an_event_stream_is_noticed_at_once(secure: Serving, how: str):
    mark = secure.mark()
    with tcp(secure) as sock:
        tls = trusting().wrap_socket(sock, server_hostname="localhost")
        tls.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while b"data: hello\n\n\r\n" not in received:
            received += tls.recv(65536)
        if how == "FIN":
            os.close(tls.detach())
        elif how == "close_notify":
            # as asyncio leaves: it closes when there is a close_notify of ours, or something that it does not want
            with pytest.raises(ssl.SSLError, match="APPLICATION_DATA_AFTER_CLOSE_NOTIFY"):
                tls.unwrap()
            tls.close()
        else:
            tls.settimeout(0)
            with contextlib.suppress(ssl.SSLError):
                tls.unwrap()
            tls.close()
    secure.wait_log("report left the stream", since=mark)


@pytest.mark.parametrize("size", [0, 1, 30_000, 200_000])
def test_what_comes_while_an_answer_goes_out_in_parts_waits(secure: Serving, tmp_path: Path, size: int):
    """A close_notify is listened for meanwhile; what is no close_notify is not lost by that."""
    until = tmp_path / "until"
    with tcp(secure) as sock, trusting().wrap_socket(sock, server_hostname="localhost") as tls:
        tls.sendall(f"GET /parts?until={until} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while b"begun" not in received:
            received += tls.recv(65536)
        sender = threading.Thread(target=send_more, args=(tls, size))
        sender.start()
        until.touch()
        sender.join(LIMIT)  # and not beside it: two threads may not use one connection of `ssl` at a time
        while received.count(b"https ") < 3:
            received += tls.recv(65536)
        order = re.findall(rb"begun|ended|https \d+", received)
        assert order == [b"begun", b"ended", f"https {size}".encode(), b"https 0", b"https 1"]


def send_more(tls: ssl.SSLSocket, size: int) -> None:
    tls.sendall(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
    tls.sendall(b"x" * size)
    tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for octet in b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx":
        tls.sendall(bytes([octet]))


@pytest.mark.parametrize("ends", ["with it", "later"])
def test_a_close_notify_before_an_answer_in_parts_is_over(secure: Serving, tmp_path: Path, ends: str):
    """The client has nothing more to ask, and still gets the answer; then the connection ends."""
    until = tmp_path / "until"
    with tcp(secure) as sock:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")

        def until_done(act: Callable[[], Any]) -> Any:
            while True:
                try:
                    return act()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))

        until_done(tls.do_handshake)
        tls.write(f"GET /parts?until={until} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        if ends == "later":
            received = b""
            while b"begun" not in received:
                received += until_done(lambda: tls.read(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()  # what it wants to read is not read: OpenSSL takes no more data behind its own close_notify
        sock.sendall(outgoing.read())
        until.touch()
        assert sock.recv(65536)
        while sock.recv(65536):
            pass


def test_requests_are_told_that_it_is_https(secure: Serving):
    client = http.client.HTTPSConnection("localhost", secure.port, timeout=LIMIT, context=trusting())
    with contextlib.closing(client):
        for size in (0, 10, 500_000):
            client.request("POST", "/", body=b"x" * size)
            assert client.getresponse().read() == f"https {size}".encode()


def test_the_origin_is_compared_with_https(secure: Serving):
    with dial(secure, origin=f"https://localhost:{secure.port}") as ws:
        ws.send("mine")
        assert ws.recv() == "mine"
    with pytest.raises(InvalidStatus, match="403"):
        dial(secure, origin=f"http://localhost:{secure.port}")


def test_http_1_1_is_agreed_on_and_old_versions_are_not(secure: Serving):
    context = trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with tcp(secure) as sock, context.wrap_socket(sock, server_hostname="localhost") as tls:
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert tls.version() == "TLSv1.3"
        assert tls.compression() is None
    context = trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
    with tcp(secure) as sock, context.wrap_socket(sock, server_hostname="localhost") as tls:
        assert tls.version() == "TLSv1.2"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(old)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with tcp(secure) as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(sock, server_hostname="localhost")


def test_plain_http_is_told_what_is_spoken_here(secure: Serving):
    with tcp(secure) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"https" in body


def test_what_is_no_tls_is_refused_and_counted(secure: Serving):
    before = stats(secure)["tls_failed"]
    with tcp(secure) as sock:
        sock.sendall(b"\x16\x03\x01\x00\x05hello" * 10)
        with contextlib.suppress(ConnectionError):
            while sock.recv(65536):
                pass
    assert eventually(lambda: stats(secure)["tls_failed"] == before + 1)
    secure.wait_log(r"TLS with 127\.0\.0\.1: ")


def test_who_does_not_finish_the_handshake_is_let_go(secure: Serving):
    with tcp(secure) as silent, tcp(secure) as half:
        half.sendall(b"\x16\x03\x01\x02\x00")  # the head of a record that never comes
        with dial(secure) as ws:  # and nobody else waits for them
            ws.send("meanwhile")
            assert ws.recv() == "meanwhile"
        for sock in (silent, half):
            with contextlib.suppress(ConnectionError):
                assert sock.recv(100) == b""


class Bytewise:
    """A TLS client that sends one octet at a time."""

    def __init__(self, sock: socket.socket, name: str = "localhost") -> None:
        self.sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = trusting().wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def do(self, what: Any) -> Any:
        while True:
            try:
                result = what()
            except ssl.SSLWantReadError:
                result = None
            for octet in self.outgoing.read():
                self.sock.sendall(bytes([octet]))
            if result is not None:
                return result
            self.incoming.write(self.sock.recv(65536))


def test_it_does_not_matter_how_the_bytes_arrive(secure: Serving):
    with tcp(secure) as sock:
        client = Bytewise(sock)
        client.do(lambda: client.session.do_handshake() or True)
        client.do(lambda: client.session.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        assert client.do(lambda: client.session.read(65536)).startswith(b"HTTP/1.1 200")


def test_a_pipeline_of_requests_in_one_record_is_answered_in_order(secure: Serving):
    """The second waits, decrypted, while the first is being answered."""
    with tcp(secure) as sock, trusting().wrap_socket(sock, server_hostname="localhost") as tls:
        requests = [
            f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n}\r\n\r\n".encode() + b"x" * n for n in range(40)
        ]
        tls.sendall(b"".join(requests))
        received = b""
        while received.count(b"https ") < 40:
            received += tls.recv(65536)
        assert [int(size) for size in re.findall(rb"https (\d+)", received)] == list(range(40))


def test_a_client_that_does_not_read_is_closed_with_1008_and_others_go_on(secure: Serving):
    before = stats(secure)["slow_consumers"]
    with dial(secure, "/flood") as slow, dial(secure) as quick:
        quick.send("still here?")
        assert quick.recv() == "still here?"
        assert eventually(lambda: stats(secure)["slow_consumers"] == before + 1)
        # what was on its way arrives whole, then the close frame
        got = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                got.append(slow.recv())
        assert got == [f"{number:06}" * 10000 for number in range(len(got))]
        assert slow.ws.close_code == 1008


def test_another_name_gets_another_certificate(mode: dict[str, Any], certificate: str, tmp_path: Path):
    other = trustme.CA()
    files = issue(tmp_path / "other.pem", "other.example", "*.wild.example", authority=other)
    sni = [f"other.example={files}", f"*.wild.example={files}"]
    with Serving(APP, ssl_cert_file=certificate, ssl_sni=sni, **mode) as server:
        for name, authority in (
            ("localhost", AUTHORITY),
            ("other.example", other),
            ("a.wild.example", other),
        ):
            context = ssl.create_default_context()
            authority.configure_trust(context)
            with tcp(server) as sock, context.wrap_socket(sock, server_hostname=name) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert tls.recv(100).startswith(b"HTTP/1.1 200")


def test_clients_without_a_certificate_are_refused_when_one_is_required(
    mode: dict[str, Any], certificate: str, tmp_path: Path
):
    people = trustme.CA()
    people.cert_pem.write_to_path(tmp_path / "people.pem")
    needs = {"ssl_verify_client": "required", "ssl_client_ca_file": str(tmp_path / "people.pem")}
    with Serving(APP, ssl_cert_file=certificate, **needs, **mode) as server:
        known = trusting()
        people.issue_cert("ada@example.org").configure_cert(known)
        with dial(server, ssl=known) as ws:
            ws.send("me")
            assert ws.recv() == "me"
        stranger = trusting()
        trustme.CA().issue_cert("eve@example.org").configure_cert(stranger)
        for context in (trusting(), stranger):
            with pytest.raises((OSError, ConnectionClosed, InvalidMessage)):
                dial(server, ssl=context)
        server.wait_log("TLS with")


SHOWN = """
def shown(request):
    found = request.client_certificate
    return found and [
        found.common_name, found.alternative_names, found.serial_number, found.fingerprint,
        found.not_before < time.time() < found.not_after, found.issuer == found.subject,
    ]

@server.on("handshake")
async def admit(server, request):
    return Accept(session={"shown": [shown(request)]})

@server.on("open")
def opened(server, request):
    server.push(request.fd, json.dumps([*server.session(request.fd)["shown"], shown(request)]))

@server.on("message")
def said(server, frame): ...

@server.on("request")
def page(request, response):
    response.json(shown(request))
"""


def test_handlers_see_whose_certificate_it_is(mode: dict[str, Any], certificate: str, tmp_path: Path):
    people = trustme.CA()
    people.cert_pem.write_to_path(tmp_path / "people.pem")
    ada = people.issue_cert("ada@example.org", common_name="ada")
    needs = {"ssl_verify_client": "optional", "ssl_client_ca_file": str(tmp_path / "people.pem")}
    with Serving(SHOWN, ssl_cert_file=certificate, **needs, **mode) as server:
        known = trusting()
        ada.configure_cert(known)
        with dial(server, ssl=known) as ws:
            in_handshake, in_open = json.loads(ws.recv())
        name, others, serial, fingerprint, valid_now, self_signed = in_open
        assert in_handshake == in_open
        assert (name, others, valid_now, self_signed) == ("ada", [["email", "ada@example.org"]], True, False)
        der = ssl.PEM_cert_to_DER_cert(ada.cert_chain_pems[0].bytes().decode())
        assert fingerprint == hashlib.sha256(der).hexdigest()
        assert int(serial, 16) > 0
        client = http.client.HTTPSConnection("localhost", server.port, timeout=LIMIT, context=known)
        with contextlib.closing(client):
            for _ in range(2):
                client.request("GET", "/")
                assert json.loads(client.getresponse().read()) == in_open
        with dial(server) as ws:
            assert json.loads(ws.recv()) == [None, None]
        eve = trusting()
        trustme.CA().issue_cert("eve@example.org").configure_cert(eve)
        with pytest.raises((OSError, ConnectionClosed, InvalidMessage)):
            dial(server, ssl=eve)


def serial_of(server: Serving) -> str:
    with tcp(server) as sock, trusting().wrap_socket(sock, server_hostname="localhost") as tls:
        return tls.getpeercert()["serialNumber"]


def test_a_new_certificate_is_used_and_connections_stay(mode: dict[str, Any], tmp_path: Path):
    path = tmp_path / "cert.pem"
    issue(path, "localhost")
    with Serving(APP, ssl_cert_file=str(path), **mode) as server:
        before = serial_of(server)
        with dial(server) as ws:
            mark = server.mark()
            path.with_suffix(".new").write_text("no certificate at all")
            os.replace(path.with_suffix(".new"), path)
            server.wait_log("the old certificate stays in use", since=mark)
            assert serial_of(server) == before
            issue(path.with_suffix(".new"), "localhost")
            os.replace(path.with_suffix(".new"), path)
            processes = 2 if mode.get("gateway_num") == 2 or mode == {"mode": "base", "worker_num": 2} else 1
            server.wait_log("new connections get the certificate", since=mark, count=processes)
            assert eventually(lambda: serial_of(server) != before)
            ws.send("still here")
            assert ws.recv() == "still here"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"ssl_cert_file": "nowhere.pem"}, "nowhere.pem cannot be used: No such file"),
        ({"ssl_cert_file": "EMPTY"}, "not valid PEM"),
        ({"ssl_key_file": "x.pem"}, "needs ssl_cert_file"),
        ({"ssl_cert_file": "CERT", "ssl_key_file": "OTHER"}, "the key is not that of the certificate"),
        ({"ssl_cert_file": "CERT", "ssl_sni": ["example.org"]}, "NAME=CERT"),
        ({"ssl_cert_file": "CERT", "ssl_verify_client": "required"}, "go together"),
        ({"ssl_cert_file": "CERT", "ssl_ciphers": "no such thing"}, "knows no such suites"),
    ],
)
def test_what_cannot_serve_is_said_in_one_line_at_the_start(
    settings: dict[str, Any], why: str, certificate: str, tmp_path: Path
):
    (tmp_path / "empty.pem").write_text("")
    files = {"EMPTY": str(tmp_path / "empty.pem"), "CERT": certificate, "OTHER": issue(tmp_path / "other.pem", "x")}
    told = {name: files.get(value, value) if isinstance(value, str) else value for name, value in settings.items()}
    with Serving(APP, ready=False, **told) as server:
        assert server.ended() != 0
        server.wait_log(why)


def test_time_is_not_lost_by_half_open_handshakes(secure: Serving):
    """A crowd that never finishes keeps nobody waiting."""
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(tcp(secure)).sendall(b"\x16\x03\x01")
        with dial(secure) as ws:
            waits = []
            for number in range(50):
                begin = time.monotonic()
                ws.send(str(number))
                assert ws.recv() == str(number)
                waits.append(time.monotonic() - begin)
            assert sorted(waits)[25] < 1.0
