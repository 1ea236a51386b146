"""Handshakes: field lines behind a good request line, judged by several policies."""

from collections.abc import Iterator
from itertools import product

import h11
from websockets.exceptions import InvalidHeaderFormat
from websockets.headers import parse_extension

from mooring._core.deflate import Deflate
from mooring._core.http import HttpCodec
from mooring._core.http_request import HttpError, ParsedRequest
from mooring.gateway.extensions import Compression, negotiate, parse
from mooring.gateway.forwarded import TrustedProxies
from mooring.gateway.handshake import Accepted, Policy, answer, judge

LINE = b"GET /chat?x=y HTTP/1.1\r\n"
FIELDS = (
    b"Host: example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
COMPRESSIONS = [
    Compression(*some) for some in product((8, 9, 15), (8, 15), (False, True), (False, True)) if some[:3] != (8, 8, 1)
]
POLICIES = [
    Policy(),
    Policy(
        ("chat", "v2"), True, ("https://example.com", "http://[::1]:8080"), Compression(15, 15, True, True), "https"
    ),
    Policy((), False, ("*",), Compression(9, 9)),
]
PROXIES = TrustedProxies(["10.0.0.0/8", "::1/128", "unix"])
OFFERS = [
    b"permessage-deflate; client_max_window_bits",
    b'permessage-deflate; server_max_window_bits="10"; client_max_window_bits=9, permessage-deflate',
    b"x-webkit-deflate-frame, permessage-deflate;server_no_context_takeover ; client_no_context_takeover",
]


def seeds() -> Iterator[bytes]:
    yield FIELDS
    for offer in OFFERS:
        yield FIELDS + b"Sec-WebSocket-Extensions: " + offer + b"\r\n"
    for origin in (b"http://example.org", b"https://example.com:443", b"null", b"http://[::1]:8080"):
        yield FIELDS + b"Origin: " + origin + b"\r\nSec-WebSocket-Protocol: a, v2,, chat\r\n"
    yield FIELDS + b"X-Forwarded-For: 1.2.3.4:80, [::1]:9, ::ffff:10.0.0.1\r\nX-Forwarded-Proto: wss,http\r\n"


def one(data: bytes) -> None:
    codec = HttpCodec()
    codec.receive(LINE + data + b"\r\n")
    try:
        request = codec.next_event()
    except HttpError:
        return
    if not isinstance(request, ParsedRequest):
        return
    for peer in ("10.1.2.3", "::1", "", "203.0.113.7"):
        address, scheme = PROXIES.client(peer, "http", request.headers)
        assert scheme in ("http", "https")
        assert peer in ("10.1.2.3", "::1", "") or (address, scheme) == (peer, "http")
    for policy in POLICIES:
        for ask in (False, True):
            verdict = judge(request, policy, ask_origin=ask)
            if isinstance(verdict, Accepted):
                check_accepted(request, verdict, policy, ask)
            else:
                assert 400 <= verdict.status < 500
                assert verdict.reason
                status(answer(verdict.status, verdict.reason, verdict.headers), verdict.status)
    check_extensions([value for name, value in request.headers if name == "sec-websocket-extensions"])


def check_accepted(request: ParsedRequest, verdict: Accepted, policy: Policy, ask: bool) -> None:
    values = dict(request.headers)
    assert request.upgrade
    assert values["sec-websocket-version"] == "13"
    assert ask or not verdict.foreign
    assert verdict.subprotocol is None or verdict.subprotocol in policy.subprotocols
    headers = status(verdict.response, 101)
    assert {"upgrade", "connection", "sec-websocket-accept"} <= headers.keys()
    if verdict.compression is not None:
        assert headers["sec-websocket-extensions"] == verdict.compression.answer


def status(response: bytes, expected: int) -> dict[str, str]:
    """What another client reads of it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a"), ("Upgrade", "websocket")]))
    client.send(h11.EndOfMessage())
    client.receive_data(response)
    event = client.next_event()
    assert isinstance(event, h11.InformationalResponse | h11.Response), event
    assert event.status_code == expected
    return {name.decode(): value.decode() for name, value in event.headers}


def check_extensions(values: list[str]) -> None:
    ours = parse(values)
    if ours is None:
        return
    try:
        theirs = [one for value in values if value.strip(" \t,") for one in parse_extension(value.strip(" \t,"))]
    except InvalidHeaderFormat as error:
        raise AssertionError(f"laxer than websockets: {values}") from error
    lowered = [(name.lower(), [(key.lower(), value) for key, value in parameters]) for name, parameters in theirs]
    assert ours == lowered
    for wish in COMPRESSIONS:
        agreed = negotiate(ours, wish)
        if agreed is None:
            continue
        assert agreed.server_bits <= wish.server_bits
        assert agreed.client_bits <= 15
        assert agreed.server_takeover <= wish.server_takeover
        again = parse([agreed.answer])
        assert again is not None
        assert again[0][0] == "permessage-deflate"
        Deflate(agreed.server_bits, agreed.client_bits, agreed.server_takeover, agreed.client_takeover, limit=1000)
