"""The opening handshake: every demand of RFC 6455 section 4.2.1, the refusal it earns, and who may come from where."""

import base64
import time
from typing import Any

import h11
import pytest
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from mooring._core.http import HttpCodec
from mooring._core.http_request import HttpError, ParsedRequest
from mooring.gateway.extensions import Compression
from mooring.gateway.handshake import Accepted, Policy, Refused, answer, judge

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIELDS = {
    "host": "example.org",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def request(method: str = "GET", minor: int = 1, **changes: str | list[str] | None) -> ParsedRequest:
    """A good handshake but for the changes: another value, several, or None for none. "_" stands for "-"."""
    fields: dict[str, Any] = {**FIELDS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    headers = []
    for name, value in fields.items():
        for one in [value] if isinstance(value, str) else value or []:
            headers.append((name, one))
    return ParsedRequest(method, "/", minor, headers, b"", True, True)


def accepted(policy: Policy | None = None, **changes: Any) -> Accepted:
    verdict = judge(request(**changes), policy or Policy())
    assert isinstance(verdict, Accepted), verdict
    return verdict


def refused(policy: Policy | None = None, **changes: Any) -> Refused:
    verdict = judge(request(**changes), policy or Policy())
    assert isinstance(verdict, Refused), verdict
    answer(verdict.status, verdict.reason, verdict.headers)  # it can be sent
    return verdict


# ------------------------------------------------------------------ accepted


def test_the_example_of_the_rfc() -> None:
    verdict = accepted()
    head, _, rest = verdict.response.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert set(lines[1:]) == {"Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {ACCEPT}"}
    assert rest == b""
    assert verdict.subprotocol is None


@pytest.mark.parametrize("offered", [[], ["chat"], ["x", "chat.v2", "chat"]])
def test_websockets_takes_our_answer(offered: list[str]) -> None:
    """From its bytes to our 101 and back; what it sends behind its request is not lost."""
    client = ClientProtocol(
        parse_uri("ws://example.org/path?query"), subprotocols=[Subprotocol(name) for name in offered] or None
    )
    client.send_request(client.connect())
    codec = HttpCodec()
    codec.receive(b"".join(client.data_to_send()) + b"\x81\x80abcd")
    got = codec.next_event()
    assert isinstance(got, ParsedRequest)
    assert got.upgrade
    verdict = judge(got, Policy(subprotocols=("chat", "chat.v2")))
    assert isinstance(verdict, Accepted)
    assert codec.take_rest() == b"\x81\x80abcd"
    client.receive_data(verdict.response)
    assert client.handshake_exc is None
    assert client.state is State.OPEN
    assert client.subprotocol == verdict.subprotocol == {0: None, 1: "chat", 3: "chat.v2"}[len(offered)]


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": "WebSocket"},
        {"upgrade": "foo/1, WEBSOCKET"},
        {"upgrade": ["foo", "websocket"]},
        {"connection": "upgrade"},
        {"connection": "keep-alive, Upgrade"},
        {"connection": "keep-alive,\tupgrade , x"},
        {"connection": ["keep-alive", "Upgrade"]},
        {"sec_websocket_extensions": "permessage-deflate; client_max_window_bits"},  # not ours: declined in silence
        {"sec_websocket_extensions": "x; y=" + "z" * 1000},
        {"cookie": "a=b", "authorization": "Basic x", "user_agent": "y"},
        {"sec_websocket_key": base64.b64encode(bytes(16)).decode()},
        {"sec_websocket_key": base64.b64encode(b"\xff" * 16).decode()},
        {"host": "[::1]:9501"},
    ],
)
def test_accepted(changes: Any) -> None:
    verdict = accepted(**changes)
    assert b"Sec-WebSocket-Extensions" not in verdict.response
    assert verdict.response.count(b"\r\n\r\n") == 1


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "DELETE", "PATCH"])
def test_method(method: str) -> None:
    verdict = refused(method=method)
    assert verdict.status == 405
    assert dict(verdict.headers) == {"Allow": "GET"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"minor": 0}, "HTTP/1.1"),
        ({"host": None}, "Host"),
        ({"host": ["a", "a"]}, "Host"),
        ({"upgrade": None}, "Upgrade"),
        ({"upgrade": ""}, "Upgrade"),
        ({"upgrade": "h2c"}, "Upgrade"),
        ({"upgrade": "websocket2"}, "Upgrade"),
        ({"upgrade": "web socket"}, "Upgrade"),
        ({"upgrade": "websocket/13"}, "Upgrade"),
        ({"connection": None}, "Connection"),
        ({"connection": ""}, "Connection"),
        ({"connection": "keep-alive"}, "Connection"),
        ({"connection": "close"}, "Connection"),
        ({"connection": "upgraded"}, "Connection"),
        ({"sec_websocket_version": None}, "Version"),
        ({"sec_websocket_version": ["13", "13"]}, "Version"),
        ({"sec_websocket_key": None}, "Key"),
        ({"sec_websocket_key": ""}, "Key"),
        ({"sec_websocket_key": [KEY, KEY]}, "Key"),
        ({"sec_websocket_key": KEY[:-1]}, "Key"),
        ({"sec_websocket_key": KEY + "="}, "Key"),
        ({"sec_websocket_key": KEY + "\n"}, "Key"),
        ({"sec_websocket_key": " " + KEY}, "Key"),
        ({"sec_websocket_key": f"{KEY},{KEY}"}, "Key"),
        ({"sec_websocket_key": KEY.replace("G", "-")}, "Key"),
        ({"sec_websocket_key": "é" * 22 + "=="}, "Key"),
        ({"sec_websocket_key": base64.b64encode(bytes(15)).decode()}, "Key"),
        ({"sec_websocket_key": base64.b64encode(bytes(17)).decode()}, "Key"),
        ({"sec_websocket_key": base64.b64encode(bytes(18)).decode()}, "Key"),
        ({"sec_websocket_protocol": "a b"}, "Protocol"),
        ({"sec_websocket_protocol": "chat, chat"}, "Protocol"),
        ({"sec_websocket_protocol": ["chat", "chat"]}, "Protocol"),
        ({"sec_websocket_protocol": "chat;x"}, "Protocol"),
        ({"sec_websocket_protocol": 'chat, "x"'}, "Protocol"),
        ({"sec_websocket_protocol": "chät"}, "Protocol"),
    ],
)
def test_bad_request(changes: Any, reason: str) -> None:
    verdict = refused(Policy(subprotocols=("chat",)), **changes)
    assert verdict.status == 400
    assert reason in verdict.reason


VERSIONS = ["0", "7", "8", "12", "14", "25", "013", "13.0", "+13", "x", "", "13, 8", "²", "13\t"]


@pytest.mark.parametrize("version", VERSIONS)
def test_version(version: str) -> None:
    """Section 4.2.2 and 4.4: 426, and which version would do. Even when the key is one of another version."""
    for key in (KEY, "another version may have another key", None):
        verdict = refused(sec_websocket_version=version, sec_websocket_key=key)
        assert verdict.status == 426
        assert dict(verdict.headers) == {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


# ------------------------------------------------------------------ sub-protocols


@pytest.mark.parametrize(
    ("known", "offered", "chosen"),
    [
        ((), "chat", None),
        (("chat",), None, None),
        (("chat",), "chat", "chat"),
        (("chat",), "other", None),
        (("chat", "graph"), "graph, chat", "graph"),  # the client's order
        (("chat", "graph"), ["x", "chat", "graph"], "chat"),
        (("chat",), "CHAT", None),  # case matters (section 11.3.4)
        (("chat",), " ,x,, chat ,", "chat"),
        (("v1.example.org", "a!#$%&'*+-.^_`|~"), "a!#$%&'*+-.^_`|~", "a!#$%&'*+-.^_`|~"),
    ],
)
def test_subprotocol(known: tuple[str, ...], offered: Any, chosen: str | None) -> None:
    verdict = accepted(Policy(subprotocols=known), sec_websocket_protocol=offered)
    assert verdict.subprotocol == chosen
    line = f"Sec-WebSocket-Protocol: {chosen}\r\n".encode()
    assert (line in verdict.response) if chosen else (b"Protocol:" not in verdict.response)


@pytest.mark.parametrize("field", ["", " , ", ["", ""]])
def test_a_list_of_nothing_is_no_list(field: Any) -> None:
    """Some libraries send one for an empty list; RFC 9110 section 5.6.1.2 has empty elements mean nothing."""
    fields = {"sec_websocket_protocol": field, "sec_websocket_extensions": field}
    verdict = accepted(Policy(subprotocols=("chat",), compression=Compression()), **fields)
    assert (verdict.subprotocol, verdict.offers, verdict.compression) == (None, False, None)


@pytest.mark.parametrize("field", ["permessage-deflate,", ", ,permessage-deflate", ["", "permessage-deflate"]])
def test_empty_elements_between_extensions(field: Any) -> None:
    assert accepted(Policy(compression=Compression()), sec_websocket_extensions=field).compression is not None


@pytest.mark.parametrize("name", ["", "a b", "a,b", "é", "a\r\nX: y", '"a"', "a/b"])
def test_policy_refuses_subprotocols(name: str) -> None:
    with pytest.raises(ValueError, match="token"):
        Policy(subprotocols=("chat", name))


# ------------------------------------------------------------------ origins


@pytest.mark.parametrize(
    ("host", "origin", "good"),
    [
        ("example.org", None, True),  # no browser
        ("example.org", "http://example.org", True),
        ("example.org", "http://example.org:80", True),
        ("example.org:80", "http://example.org", True),
        ("example.org:9501", "http://example.org:9501", True),
        ("EXAMPLE.org", "http://example.ORG", True),
        ("[::1]:9501", "http://[::1]:9501", True),
        ("127.0.0.1:9501", "http://127.0.0.1:9501", True),
        ("example.org", "https://example.org", False),  # another scheme
        # what is no page and says the URL of the WebSocket: ws is http, wss https
        ("example.org", "ws://example.org", True),
        ("example.org:80", "WS://Example.org", True),
        ("example.org", "ws://example.org:80", True),
        ("example.org", "ws://example.org/chat?a=b", True),
        ("example.org:9501", "ws://example.org:9501", True),
        ("[::1]:9501", "ws://[0:0::1]:9501", True),
        ("example.org", "wss://example.org", False),
        ("example.org", "wss://example.org:80", False),
        ("example.org", "ws://example.org:443", False),
        ("example.org", "ws://example.org.evil", False),
        ("example.org", "ws://example.org@evil", False),
        ("example.org", "ws://evil/example.org", False),
        ("example.org", "wsx://example.org", False),
        ("example.org", "file://", False),
        ("example.org", "file://example.org", False),
        ("example.org", "app://example.org", False),
        ("", "http://", False),
        # to browsers it is another one (but see `allowed_hosts`)
        ("example.org.", "http://example.org.", True),
        ("example.org.", "http://example.org", False),
        ("example.org", "http://example.org:8080", False),  # another port
        ("example.org:9501", "http://example.org", False),
        ("example.org", "http://example.org:0", False),
        ("example.org", "http://example.org:99999", False),
        ("example.org", "http://www.example.org", False),  # another host
        ("www.example.org", "http://example.org", False),
        ("example.org", "http://example.org.evil", False),
        ("example.org", "http://evil-example.org", False),
        ("example.org", "http://example.org.", False),
        ("example.org", "http://example.org@evil", False),
        ("example.org", "http://evil/example.org", False),
        ("example.org", "http://evil#example.org", False),
        ("example.org", "http://example.org/", False),  # an origin has no path
        ("example.org", "http://example.org,http://evil", False),
        ("example.org", "http://example.org http://evil", False),
        ("example.org", "http://", False),
        ("example.org", "example.org", False),
        ("example.org", "//example.org", False),
        ("example.org", "null", False),
        ("example.org", "", False),
        ("example.org", "*", False),
        ("example.org", "http://ex\xe4mple.org", False),
        ("example.org", ["http://example.org", "http://example.org"], False),
        ("example.org", ["http://example.org", "http://evil"], False),
        ("example.org", ["http://evil", "http://example.org"], False),
    ],
)
def test_same_origin(host: str, origin: Any, good: bool) -> None:
    if good:
        accepted(host=host, origin=origin)
    else:
        verdict = refused(host=host, origin=origin)
        assert verdict.status == 403
        assert "allowed_origins" in verdict.reason


def test_same_origin_of_https() -> None:
    policy = Policy(scheme="https")
    accepted(policy, origin="https://example.org")
    accepted(policy, host="example.org:443", origin="https://example.org")
    accepted(policy, origin="https://example.org:443")
    for origin in ("wss://example.org", "wss://example.org:443"):
        accepted(policy, origin=origin)
    for origin in ("http://example.org", "https://example.org:80", "http://example.org:443", "ws://example.org"):
        assert refused(policy, origin=origin).status == 403
    assert refused(policy, origin="ws://example.org:443").status == 403


def test_allowed_origins() -> None:
    policy = Policy(allowed_origins=("https://app.example.org", "http://[::1]:3000", "HTTP://Dev.example.org:8080"))
    for origin in (
        "https://app.example.org",
        "https://app.example.org:443",
        "HTTPS://APP.example.org",
        "http://[::1]:3000",
        "http://dev.example.org:8080",
        "http://example.org",  # our own, still
    ):
        accepted(policy, origin=origin)
    for origin in (
        "http://app.example.org",
        "https://app.example.org:8443",
        "https://evil.app.example.org",
        "https://app.example.org.evil",
        "http://[::1]",
        "http://dev.example.org",
        "null",
    ):
        assert refused(policy, origin=origin).status == 403


@pytest.mark.parametrize(
    ("allowed", "sent"),
    [
        ("null", "null"),
        ("file://", "file://"),
        ("file://", "file:///android_asset/index.html"),
        ("http://", "http://"),  # libwebsockets over TLS
        ("app://.", "app://."),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
        ("vscode-webview://1abc", "VSCODE-WEBVIEW://1ABC"),
        ("https://app.example.org", "wss://app.example.org"),
        ("wss://app.example.org", "https://app.example.org:443"),
        ("ws://app.example.org:8080", "http://app.example.org:8080"),
    ],
)
def test_origins_of_what_is_no_page(allowed: str, sent: str) -> None:
    assert refused(origin=sent).status == 403
    accepted(Policy(allowed_origins=(allowed,)), origin=sent)
    for other in (
        "http://other",
        "null",
        "file://",
        "http://",
        "app://x",
        "wss://other",
        "https://app.example.org:8443",
    ):
        if other not in (sent, allowed):
            assert refused(Policy(allowed_origins=(allowed,)), origin=other).status == 403


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (
            "wss://example.com:8443",
            ["'wss://example.com:8443'", "http://example.org", "allowed_origins=['https://example.com:8443']"],
        ),
        ("file:///", ["allowed_origins=['file://']"]),
        ("null", ["allowed_origins=['null']"]),
        ("https://example.org", ["trusted_proxies", "X-Forwarded-Proto"]),
        ("localhost", ["'localhost'", "`origin` handler"]),
        (["http://a", "http://b"], ["more than one"]),
    ],
)
def test_what_the_log_is_told_of_a_refused_origin(origin: Any, words: list[str]) -> None:
    advice = refused(origin=origin).advice
    for word in words:
        assert word in advice


@pytest.mark.parametrize("policy", [Policy(allowed_origins=("*",)), Policy(check_origin=False)])
def test_any_origin(policy: Policy) -> None:
    for origin in ("http://evil", "null", "", "anything"):
        accepted(policy, origin=origin)
    assert refused(policy, origin=["http://a", "http://a"]).status == 403  # somebody added one


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "example.org",
        "//",
        "https://:80",
        "https://[::1",
        "https://[:::]",
        "https://a/",
        "https://a b",
        "https://a:b",
        "https://a:99999",
        "https://*.a",
    ],
)
def test_policy_refuses_origins(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Policy(allowed_origins=("https://good.example.org", origin))


def test_origin_is_judged_only_for_a_handshake() -> None:
    """What is wrong with the handshake is said first; nobody learns from a 403 which origins there are."""
    assert refused(origin="http://evil", sec_websocket_key="x").status == 400
    assert refused(origin="http://evil", sec_websocket_version="8").status == 426


# ------------------------------------------------------------------ from bytes


def raw(*lines: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode("latin-1")


def test_a_get_without_upgrade_is_no_handshake() -> None:
    codec = HttpCodec()
    codec.receive(raw("Host: a", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"))
    got = codec.next_event()
    assert isinstance(got, ParsedRequest)
    assert not got.upgrade


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Host: a", "Upgrade: websocket", "Content-Length: 1"], 400),
        (["Host: a", "Upgrade: websocket", "Transfer-Encoding: chunked"], 400),
        (["Upgrade: websocket"], 400),
        (["Host: a", "Host: a", "Upgrade: websocket"], 400),
        (["Host: a", "Upgrade : websocket"], 400),
        (["Host: a", "Upgrade: websocket\r\n , foo"], 400),
    ],
)
def test_what_the_codec_refuses_before(lines: list[str], status: int) -> None:
    codec = HttpCodec()
    codec.receive(raw(*lines))
    with pytest.raises(HttpError) as error:
        codec.next_event()
    assert error.value.status == status


# ------------------------------------------------------------------ the answer


def read(data: bytes, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    head = connection.next_event()
    assert isinstance(head, h11.Response), head
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    return head.status_code, {name.decode(): value.decode() for name, value in head.headers}, body


def test_answer() -> None:
    status, fields, body = read(answer(400, "no Höst"))
    assert (status, body) == (400, "400 Bad Request: no Höst\n".encode())
    assert fields["connection"] == "close"
    assert fields["content-length"] == str(len(body))
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert {"date", "server"} <= set(fields)
    assert read(answer(503, "later", (("Retry-After", "1"),)))[1]["retry-after"] == "1"


def test_answer_to_a_wrong_version() -> None:
    verdict = refused(sec_websocket_version="8")
    status, fields, _ = read(answer(verdict.status, verdict.reason, verdict.headers))
    assert status == 426
    assert fields["upgrade"] == "websocket"
    assert fields["sec-websocket-version"] == "13"
    assert [option.strip() for option in fields["connection"].split(",")] == ["Upgrade", "close"]


def test_answer_to_head() -> None:
    full = answer(405, "no")
    head = answer(405, "no", head_only=True)
    assert full.startswith(head)
    assert head.endswith(b"\r\n\r\n")
    assert read(head, "HEAD")[2] == b""


def test_answer_can_not_be_split() -> None:
    with pytest.raises(ValueError):
        answer(400, "x", (("X", "a\r\nY: b"),))
    assert read(answer(400, "a\r\nX: y"))[2] == b"400 Bad Request: a\r\nX: y\n"  # the body may


# Work must be linear in the bytes. Quadratic work would grow 16-fold here, linear work 4-fold.


@pytest.mark.parametrize(
    "name", ["upgrade", "connection", "sec-websocket-protocol", "origin", "host", "sec-websocket-key"]
)
@pytest.mark.parametrize("piece", [",", "a;", '"\\x"', " ", "a,", "a."])
def test_linear_time(name: str, piece: str) -> None:
    def seconds(n: int) -> float:
        best = float("inf")
        extra = {"origin": "http://example.org"} if name == "host" else {}
        given = request(**{**extra, name.replace("-", "_"): piece * n})
        for _ in range(3):
            start = time.process_time()
            judge(given, Policy(subprotocols=("b",)))
            best = min(best, time.process_time() - start)
        return best

    assert seconds(80_000) < 9 * seconds(20_000) + 0.02
