"""Who the client is behind proxies; and who only says so."""

import time

import pytest

from mooring._core.http_request import ParsedRequest
from mooring.gateway.forwarded import TrustedProxies
from mooring.gateway.handshake import Accepted, Policy, Refused, judge

PROXY = "10.0.0.1"
TRUSTED = TrustedProxies(["10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1"])


def client(*fors: str, peer: str = PROXY, protos: tuple[str, ...] = (), trusted: TrustedProxies = TRUSTED) -> str:
    headers = [("host", "a"), *(("x-forwarded-for", value) for value in fors)]
    headers += [("x-forwarded-proto", value) for value in protos]
    ip, scheme = trusted.client(peer, "http", headers)
    return f"{scheme} {ip}" if protos else ip


@pytest.mark.parametrize(
    ("fors", "ip"),
    [
        ((), PROXY),
        (("192.0.2.1",), "192.0.2.1"),
        (("192.0.2.1, 192.0.2.2",), "192.0.2.2"),
        (("192.0.2.1", "192.0.2.2"), "192.0.2.2"),
        (("192.0.2.1, 10.0.0.2",), "192.0.2.1"),
        (("192.0.2.1, 10.0.0.2 ,10.0.0.3\t",), "192.0.2.1"),
        (("6.6.6.6, 192.0.2.1, 10.0.0.2",), "192.0.2.1"),
        (("192.0.2.1", "10.0.0.2"), "192.0.2.1"),
        (("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        (("192.0.2.1" + ", 10.0.0.2" * 31,), "192.0.2.1"),
        (("192.0.2.1" + ", 10.0.0.2" * 32,), PROXY),
        (("2001:db8::1",), "2001:db8::1"),
        (("2001:DB8:0::0001",), "2001:db8::1"),
        (("2001:db8::1, 2001:db8:ffff::7",), "2001:db8::1"),
        (("192.0.2.1:4711",), "192.0.2.1"),
        (("[2001:db8::1]:4711",), "2001:db8::1"),
        (("[2001:db8::1]",), "2001:db8::1"),
        (("192.0.2.1, ::ffff:10.0.0.2",), "192.0.2.1"),
        (("::ffff:192.0.2.1",), "192.0.2.1"),
        (("garbage, 192.0.2.1",), "192.0.2.1"),  # what a client wrote must not hide it
        (("garbage, 192.0.2.1, 10.0.0.2",), "192.0.2.1"),
        # empty elements don't count
        (("192.0.2.1,",), "192.0.2.1"),
        (("192.0.2.1, ", ""), "192.0.2.1"),
        (("192.0.2.1 ,, 10.0.0.2",), "192.0.2.1"),
        ((" ,,192.0.2.1,\t,", ",", "10.0.0.2"), "192.0.2.1"),
        (("6.6.6.6,, 192.0.2.1,",), "192.0.2.1"),
    ],
)
def test_the_right_most_address_that_is_no_proxy(fors: tuple[str, ...], ip: str) -> None:
    assert client(*fors) == ip


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        ", ,\t,",
        "192.0.2.1, garbage,",
        "192.0.2.1, garbage",
        "192.0.2.1, garbage, 10.0.0.2",
        "unknown",
        "_hidden",
        "192.0.2",
        "192.0.2.256",
        "0300.0.2.1",
        "192.0.2.1/32",
        "192.0.2.1:",
        "192.0.2.1:port",
        "192.0.2.1:123456",
        "192.0.2.1:\u0661",
        "[192.0.2.1",
        "fe80::1%eth0",
        "fe80::1%\x1b[31m",
        "[::1]x",
        "192.0.2.1 192.0.2.2",
        '"192.0.2.1"',
        "a" * 8000,
        ":" * 8000,
    ],
)
def test_what_is_malformed_is_ignored(text: str) -> None:
    assert client(text) == PROXY
    assert client(text, protos=("https",)) == f"https {PROXY}"


@pytest.mark.parametrize("peer", ["192.0.2.9", "11.0.0.1", "2001:db8::1", "::ffff:192.0.2.9", "", "127.0.0.2"])
def test_who_is_not_trusted_is_not_believed(peer: str) -> None:
    assert client("192.0.2.1", peer=peer, protos=("https",)) == f"http {peer}"


@pytest.mark.parametrize("peer", ["127.0.0.1", "::ffff:10.9.9.9", "2001:db8:ffff::2"])
def test_who_is(peer: str) -> None:
    assert client("192.0.2.1", peer=peer, protos=("https",)) == "https 192.0.2.1"


def test_nobody_is_trusted_by_default() -> None:
    assert client("192.0.2.1", protos=("https",), trusted=TrustedProxies(())) == f"http {PROXY}"


@pytest.mark.parametrize(
    ("forwarded", "without", "with_unix"),
    [
        ("192.0.2.1, unix:", "", "192.0.2.1"),
        ("192.0.2.1, UNIX:, 10.0.0.2", "", "192.0.2.1"),
        ("192.0.2.1, unix:, unix:", "", "192.0.2.1"),
        ("192.0.2.1, unix:/run/nginx.sock", "", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, unix:", "", "192.0.2.1"),
        ("unix:", "", ""),
        ("unix:, 10.0.0.2", "", ""),
        ("unix:, 192.0.2.1", "192.0.2.1", "192.0.2.1"),  # the client's own word
        ("192.0.2.1, unix", PROXY, PROXY),
    ],
)
def test_a_hop_over_a_unix_socket(forwarded: str, without: str, with_unix: str) -> None:
    """`unix:` of nginx is a proxy exactly if "unix" is trusted; else it is the client, which has no address."""
    assert client(forwarded) == without
    assert client(forwarded, trusted=TrustedProxies(["10.0.0.0/8", "unix"])) == with_unix


def test_the_scheme_behind_a_hop_over_a_unix_socket() -> None:
    both = TrustedProxies(["10.0.0.0/8", "unix"])
    assert client("192.0.2.1, unix:", protos=("https, http",), trusted=both) == "https 192.0.2.1"
    assert client("192.0.2.1, unix:", protos=("https, http",)) == "http "


@pytest.mark.parametrize(
    ("fors", "protos", "scheme"),
    [
        (("192.0.2.1",), ("https",), "https"),
        (("192.0.2.1",), ("HTTPS",), "https"),
        (("192.0.2.1",), ("http",), "http"),
        (("192.0.2.1",), ("wss",), "https"),
        ((), ("https",), "https"),
        (("192.0.2.1",), ("https, http",), "http"),  # the left one is the client's own word
        (("192.0.2.1",), ("https", "http"), "http"),
        (("192.0.2.1, 10.0.0.2",), ("https, http",), "https"),
        (("192.0.2.1, 10.0.0.2",), ("https",), "https"),
        (("6.6.6.6, 192.0.2.1, 10.0.0.2",), ("http, https, http",), "https"),
        (("192.0.2.1,, 10.0.0.2,",), (",https,, http",), "https"),
        (("192.0.2.1",), ("ftp",), "http"),
        (("192.0.2.1",), ("",), "http"),
        (("192.0.2.1",), ("https\x00",), "http"),
    ],
)
def test_scheme(fors: tuple[str, ...], protos: tuple[str, ...], scheme: str) -> None:
    assert client(*fors, protos=protos).split()[0] == scheme


def test_linear_time() -> None:
    start = time.process_time()
    client(",".join(["10.0.0.2"] * 2000), protos=(",".join(["https"] * 2000),))
    client("," * 16_000)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "accepted"),
    [
        ("https://example.org", "example.org", "https", True),
        ("http://example.org", "example.org", "https", False),
        ("https://example.org", "example.org", "http", False),
        ("https://example.org", "example.org", None, False),
        ("http://example.org", "example.org", None, True),
        ("https://example.org:8443", "example.org:8443", "https", True),
        ("https://example.org:80", "example.org", "https", False),
    ],
)
def test_the_check_of_origins_goes_by_the_scheme(origin: str, host: str, scheme: str | None, accepted: bool) -> None:
    headers = [
        ("host", host),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("origin", origin),
    ]
    verdict = judge(ParsedRequest("GET", "/", 1, headers, upgrade=True), Policy(), scheme)
    assert isinstance(verdict, Accepted if accepted else Refused)


def test_a_client_of_a_unix_socket_is_a_proxy_when_the_settings_say_so():
    headers = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")]
    assert TrustedProxies(["unix"]).client("", "http", headers) == ("203.0.113.9", "https")
    assert TrustedProxies(["unix"]).client("10.0.0.1", "http", headers) == ("10.0.0.1", "http")
    assert TrustedProxies(["10.0.0.0/8"]).client("", "http", headers) == ("", "http")
    assert TrustedProxies(["10.0.0.0/8", "unix"]).client("10.0.0.1", "http", headers) == ("203.0.113.9", "https")


def test_who_is_trusted():
    proxies = TrustedProxies(["10.0.0.0/8", "2001:db8::/32"])
    for peer, trusted in [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("2001:db8::1", True), ("11.0.0.1", False)]:
        assert proxies.trusts(peer) == trusted
    assert not proxies.trusts("")
    assert not TrustedProxies([]).trusts("10.0.0.1")
