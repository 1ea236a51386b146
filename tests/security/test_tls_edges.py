"""How TLS connections end: a peer can tell a refusal, a fault, an end in order, and an answer that was cut."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from contract.clients import Raw, get
from mooring import connect
from security.conftest import APP, MODES
from security.watch import MIB, becomes_idle, gateway_of
from support.serving import LIMIT, Serving, eventually

ALERT = 0x15  # the type of a record, RFC 8446 section 5.1
AUTHORITY = trustme.CA()
LARGE = """
@server.on("request")
def asked(request, response):
    if request.path == "/stats":
        return response.end(json.dumps(server.stats()))
    response.header("Connection", "close")
    response.end(b"x" * (8 << 20))
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module", params=MODES)
def secure(request: pytest.FixtureRequest, certificate: str) -> Iterator[Serving]:
    limits = {"keepalive_timeout": 1, "header_timeout": 1, "max_connections": 64}
    with Serving(APP, ssl_cert_file=certificate, **limits, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0


class Client:
    """An HTTP client whose end of the stream is strict: without close_notify it is an error."""

    def __init__(self, server: Serving, receive_buffer: int = 0) -> None:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        self.raw = Raw(server, receive_buffer=receive_buffer)
        self.socket = context.wrap_socket(self.raw.socket, server_hostname="localhost", suppress_ragged_eofs=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *failure: object) -> None:
        self.socket.close()

    def ask(self, path: str) -> bytes:
        self.socket.sendall(get(path))
        received = b""
        while b"\r\n\r\n" not in received or not received.partition(b"\r\n\r\n")[2]:
            received += self.socket.recv(65536)
        return received


def read_all(stream: ssl.SSLSocket) -> None:
    while stream.recv(65536):
        pass


def hello(version: ssl.TLSVersion) -> bytes:
    """What a client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    outgoing = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_an_alert_is_not_lost_to_what_the_peer_goes_on_sending(secure: Serving):
    """A reset, which closing with unread input is, would overtake it."""
    for _ in range(5):
        with Raw(secure) as raw:
            with contextlib.suppress(ConnectionError):
                raw.send(hello(ssl.TLSVersion.TLSv1_1) + b"\x16\x03\x01\x40\x00" * 50_000)
            assert raw.rest()[0] == ALERT
    with Client(secure) as client:
        client.ask("/")
        with contextlib.suppress(ConnectionError):
            client.raw.socket = socket.socket(fileno=client.socket.detach())
            client.raw.socket.settimeout(LIMIT)
            client.raw.send(b"\x17\x03\x03\x00\x20" + bytes(32) + b"\x17\x03\x03\x40\x00" * 50_000)
        with contextlib.closing(client.raw.socket):
            assert client.raw.rest()[0] in (ALERT, 0x17)  # in TLS 1.3 it is encrypted, like everything else
    secure.wait_log("TLS with 127.0.0.1: the stream is broken")
    becomes_idle(gateway_of(secure))


def test_a_connection_that_is_idle_ends_with_close_notify(secure: Serving):
    with Client(secure) as client:
        assert client.ask("/").endswith(b"hello")
        assert client.socket.recv(100) == b""


def test_a_client_that_has_not_asked_ends_with_close_notify(secure: Serving):
    with Client(secure) as client:
        assert client.socket.recv(100) == b""


@pytest.mark.parametrize("mode", MODES)
def test_a_full_server_says_nothing_in_plain_text(mode: str, certificate: str, tmp_path: Path):
    """What is no TLS would only confuse who speaks TLS; it is counted and logged."""
    path = tmp_path / "control.sock"
    with (
        Serving(APP, ssl_cert_file=certificate, max_connections=16, control_socket=str(path), **MODES[mode]) as server,
        contextlib.ExitStack() as stack,
    ):
        crowd = [stack.enter_context(Raw(server)) for _ in range(40)]
        eventually(lambda: connect(path, timeout=LIMIT).stats()["connections_refused"] >= 24)
        refused = 0
        for raw in crowd:
            raw.socket.settimeout(0.05)  # who was refused has been, and the others are told nothing
            with contextlib.suppress(TimeoutError):
                with contextlib.suppress(ConnectionResetError):
                    assert raw.rest() == b""
                refused += 1
        assert refused >= 24
        server.wait_log("all 16 connections are taken: new clients get no answer")


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_that_was_cut_has_no_close_notify(mode: str, certificate: str):
    """It would say that this was all of it."""
    limits = {"write_limit": 64 * MIB, "write_timeout": 0.5, "write_min_rate": 1 << 30}
    app = '@server.on("message")\ndef said(server, frame): ...\n' + LARGE
    with Serving(app, ssl_cert_file=certificate, **limits, **MODES[mode]) as server:
        with Client(server, receive_buffer=4096) as client:
            client.ask("/")
            server.wait_log("slow consumer: it took less than")
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                read_all(client.socket)
        assert server.stop() == 0
