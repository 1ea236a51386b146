"""C18: HTTP/2 is not spoken, so none of its floods exists; here is how those fare who try it all the same."""

import contextlib
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from contract.clients import Raw, get
from security.conftest import MODES
from security.watch import watched
from support.serving import LIMIT, Serving

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
# HEADERS and RST_STREAM for one stream after the other: the rapid reset (CVE-2023-44487)
RESETS = b"".join(
    b"\0\0\3\1\5" + stream.to_bytes(4, "big") + b"\x82\x84\x86" + b"\0\0\4\3\0" + stream.to_bytes(4, "big") + bytes(4)
    for stream in range(1, 2001, 2)
)
CONTINUATIONS = b"\0\0\1\1\1\0\0\0\1\x82" + b"\0\0\1\x09\0\0\0\0\1\x82" * 10_000  # a head without an end


@pytest.mark.parametrize("flood", [b"", RESETS, CONTINUATIONS], ids=["nothing", "resets", "continuations"])
def test_c18_prior_knowledge_is_refused_at_once(server: Serving, flood: bytes):
    with watched(server):
        for _ in range(50):
            with Raw(server) as raw:
                with contextlib.suppress(ConnectionError):  # it need not read all of this
                    raw.send(PREFACE + SETTINGS + flood)
                with contextlib.suppress(ConnectionError):
                    assert raw.rest().startswith(b"HTTP/1.1 505 ")


def test_c18_an_upgrade_to_h2c_is_overlooked(server: Serving):
    """RFC 9110 section 7.8: a server may ignore it, and answers in the version that was asked in."""
    fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
    with Raw(server, get("/", *fields)) as raw:
        answer = raw.answer()
        assert answer.status == 200
        assert "upgrade" not in answer.headers


@pytest.mark.parametrize("mode", MODES)
def test_c18_tls_agrees_on_http_1_1_only(mode: str, tmp_path: Path):
    authority = trustme.CA()
    certificate = tmp_path / "cert.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    app = """
    @server.on("message")
    def said(server, frame): ...
    """
    with Serving(app, **MODES[mode], ssl_cert_file=str(certificate)) as server:
        for offered, agreed in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None)):
            context = ssl.create_default_context()
            authority.configure_trust(context)
            context.set_alpn_protocols(offered)
            with (
                socket.create_connection(("127.0.0.1", server.port), LIMIT) as sock,
                context.wrap_socket(sock, server_hostname="localhost") as tls,
            ):
                assert tls.selected_alpn_protocol() == agreed
