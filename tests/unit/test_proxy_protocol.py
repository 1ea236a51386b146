"""The PROXY protocol: vectors, fed whole, byte by byte and cut anywhere."""

import ipaddress
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.net.proxy_protocol import LIMIT, V2_SIGNATURE, Header, parse

A4, B4 = bytes([192, 0, 2, 7]), bytes([198, 51, 100, 1])
A6, B6 = ipaddress.ip_address("2001:db8::7").packed, ipaddress.ip_address("2001:db8:1::1").packed
PORTS = (51234).to_bytes(2, "big") + (443).to_bytes(2, "big")


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return V2_SIGNATURE + bytes([command, family]) + (len(body) if length is None else length).to_bytes(2, "big") + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def with_checksum(body: bytes) -> bytes:
    """As haproxy and AWS send it; it is an extension like any other."""
    return body + tlv(3, zlib.crc32(body).to_bytes(4, "big"))


def four(port: int = 51234, address: bytes = A4) -> tuple[int, bytes, int]:
    return 4, address, port


SIX = (6, A6, 51234)
NONE = (0, b"", 0)
VALID = {
    "v1 tcp4": (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n", four()),
    "v1 tcp6": (b"PROXY TCP6 2001:db8::7 2001:db8:1::1 51234 443\r\n", SIX),
    "v1 tcp6 in full": (b"PROXY TCP6 2001:0DB8:0:0:0:0:0:7 2001:db8:1::1 51234 443\r\n", SIX),
    "v1 smallest": (b"PROXY TCP4 1.1.1.1 2.2.2.2 0 0\r\n", four(0, b"\1\1\1\1")),
    "v1 largest port": (b"PROXY TCP4 192.0.2.7 198.51.100.1 65535 65535\r\n", four(65535)),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", NONE),
    "v1 unknown, with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535 \0\xff\r\n", NONE),
    "v1 longest": (b"PROXY UNKNOWN " + b"x" * (105 - 14) + b"\r\n", NONE),
    "v2 tcp4": (v2(0x21, 0x11, A4 + B4 + PORTS), four()),
    "v2 tcp6": (v2(0x21, 0x21, A6 + B6 + PORTS), SIX),
    "v2 tcp4 with extensions": (v2(0x21, 0x11, with_checksum(A4 + B4 + PORTS + tlv(1, b"h2") + tlv(4, b""))), four()),
    "v2 tcp6 with an extension": (v2(0x21, 0x21, A6 + B6 + PORTS + tlv(2, b"example.org")), SIX),
    "v2 unix": (v2(0x21, 0x31, b"/run/x".ljust(108, b"\0") * 2), NONE),
    "v2 unspec": (v2(0x21, 0x00, b""), NONE),
    "v2 unspec with an extension": (v2(0x21, 0x00, tlv(5, b"id")), NONE),
    "v2 local": (v2(0x20, 0x00, b""), NONE),
    "v2 local with addresses": (v2(0x20, 0x11, A4 + B4 + PORTS), NONE),
    "v2 local with what is no extension": (v2(0x20, 0x00, b"anything goes"), NONE),
    "v2 largest": (v2(0x21, 0x11, A4 + B4 + PORTS + tlv(4, b"x" * (LIMIT - 16 - 12 - 3))), four()),
}
INVALID = {
    "an http request": (b"GET / HTTP/1.1\r\n", "no PROXY header"),
    "a tls hello": (b"\x16\x03\x01\x02\0", "no PROXY header"),
    "nothing much": (b"\0", "no PROXY header"),
    "lower case": (b"proxy TCP4", "no PROXY header"),
    "no space": (b"PROXYTCP4", "no PROXY header"),
    "v1 too long": (b"PROXY UNKNOWN " + b"x" * (106 - 14) + b"\r\n", "does not end within 107"),
    "v1 without an end": (b"PROXY TCP4 " + b"1" * 200, "does not end within 107"),
    "v1 line feed only": (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\n" + b"x" * 107, "does not end"),
    "v1 no protocol": (b"PROXY \r\n", "malformed"),
    "v1 unknown protocol": (b"PROXY UDP4 192.0.2.7 198.51.100.1 51234 443\r\n", "malformed"),
    "v1 unknown glued": (b"PROXY UNKNOWNS\r\n", "malformed"),
    "v1 two spaces": (b"PROXY TCP4  192.0.2.7 198.51.100.1 51234 443\r\n", "malformed"),
    "v1 a space at the end": (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 443 \r\n", "malformed"),
    "v1 a tab": (b"PROXY TCP4\t192.0.2.7 198.51.100.1 51234 443\r\n", "malformed"),
    "v1 one port": (b"PROXY TCP4 192.0.2.7 198.51.100.1 51234\r\n", "malformed"),
    "v1 a port too many": (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n", "malformed"),
    "v1 a leading zero": (b"PROXY TCP4 192.0.2.7 198.51.100.1 051234 443\r\n", "malformed"),
    "v1 a signed port": (b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n", "malformed"),
    "v1 a high port": (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n", "port above 65535"),
    "v1 no address": (b"PROXY TCP4 192.0.2 198.51.100.1 1 2\r\n", "wrong address"),
    "v1 an octal address": (b"PROXY TCP4 192.0.02.7 198.51.100.1 1 2\r\n", "wrong address"),
    "v1 a wrong destination": (b"PROXY TCP4 192.0.2.7 198.51.100.256 1 2\r\n", "wrong address"),
    "v1 the other family": (b"PROXY TCP4 2001:db8::7 2001:db8::8 1 2\r\n", "wrong address"),
    "v1 the other family too": (b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n", "wrong address"),
    "v1 a zone": (b"PROXY TCP6 fe80::1%1 fe80::2 1 2\r\n", "malformed"),
    "v1 a NUL": (b"PROXY TCP4 192.0.2.7\0 198.51.100.1 1 2\r\n", "malformed"),
    "v2 signature": (V2_SIGNATURE[:11] + b"\r", "no PROXY header"),
    "v2 version 1": (v2(0x11, 0x11, A4 + B4 + PORTS), "version and command 0x11"),
    "v2 version 3": (v2(0x31, 0x11, A4 + B4 + PORTS), "version and command 0x31"),
    "v2 command": (v2(0x22, 0x11, A4 + B4 + PORTS), "version and command 0x22"),
    "v2 udp": (v2(0x21, 0x12, A4 + B4 + PORTS), "protocol 0x12"),
    "v2 family": (v2(0x21, 0x41, A4 + B4 + PORTS), "protocol 0x41"),
    "v2 protocol": (v2(0x21, 0x13, A4 + B4 + PORTS), "protocol 0x13"),
    "v2 family of local": (v2(0x20, 0x55, b""), "protocol 0x55"),
    "v2 too short for tcp4": (v2(0x21, 0x11, A4 + B4 + PORTS[:3]), "too short for its addresses"),
    "v2 too short for tcp6": (v2(0x21, 0x21, A4 + B4 + PORTS), "too short for its addresses"),
    "v2 too short for unix": (v2(0x21, 0x31, b"x" * 215), "too short for its addresses"),
    "v2 too long": (v2(0x21, 0x11, b"", LIMIT - 15), f"more than {LIMIT}"),
    "v2 longest": (v2(0x21, 0x11, b"", 65535), f"more than {LIMIT}"),
    "v2 half an extension": (v2(0x21, 0x11, A4 + B4 + PORTS + b"\1\0"), "in the middle of an extension"),
    "v2 a long extension": (v2(0x21, 0x11, A4 + B4 + PORTS + b"\1\0\5abc"), "longer than the header"),
}
BEHIND = [b"", b"GET / HTTP/1.1\r\n", b"\r\n", b"PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n", V2_SIGNATURE]


def fed(data: bytes, cuts: list[int], versions: str = "any") -> Header | None:
    """As the transport does it: with all that has come so far, after each piece."""
    for end in [*cuts, len(data)]:
        found = parse(data[:end], versions)
        if found is not None:
            return found
    return None


def ways(data: bytes) -> list[list[int]]:
    chance = random.Random(len(data))
    some = [sorted(chance.sample(range(len(data)), min(3, len(data)))) for _ in range(50)]
    return [[], list(range(len(data))), *some]


@pytest.mark.parametrize("name", VALID)
def test_valid(name: str) -> None:
    data, expected = VALID[name]
    for behind in BEHIND:
        for cuts in ways(data + behind):
            assert fed(data + behind, cuts) == Header(len(data), *expected)
    for end in range(len(data)):
        assert parse(data[:end]) is None, "a part of it is not the whole"


@pytest.mark.parametrize("name", INVALID)
def test_invalid(name: str) -> None:
    data, words = INVALID[name]
    for cuts in ways(data):
        with pytest.raises(ValueError) as caught:
            fed(data, cuts)
        assert words in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", VALID)
def test_only_the_version_that_is_wanted(name: str) -> None:
    data, expected = VALID[name]
    right, wrong = ("v1", "v2") if name.startswith("v1") else ("v2", "v1")
    assert parse(data, right) == Header(len(data), *expected)
    for cuts in ways(data):
        with pytest.raises(ValueError, match=f"another version than {wrong}"):
            fed(data, cuts, wrong)


def test_an_error_comes_with_the_first_wrong_byte() -> None:
    for start in (b"PROXY ", V2_SIGNATURE):
        for end in range(len(start)):
            assert parse(start[:end]) is None
            with pytest.raises(ValueError, match="no PROXY header"):
                parse(start[:end] + b"\xff")


@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda rest: b"PROXY " + rest),
        st.binary(max_size=200).map(lambda rest: V2_SIGNATURE + rest),
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=300)).map(lambda parts: v2(*parts)),
    )
)
def test_anything(data: bytes) -> None:
    """Nothing but an answer or a ValueError, and the same answer however it is cut; what is kept is bounded."""
    answers = []
    for cuts in ([], list(range(len(data)))):
        try:
            answers.append(repr(fed(data, cuts)))
        except ValueError:
            answers.append("refused")
    assert len(set(answers)) == 1
    if answers[0] == "None":
        assert len(data) < LIMIT


@given(st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535))
def test_both_versions_say_the_same(address: ipaddress.IPv4Address, source: int, target: int) -> None:
    kind = f"TCP{address.version}"
    one = f"PROXY {kind} {address} {address} {source} {target}\r\n".encode()
    ports = source.to_bytes(2, "big") + target.to_bytes(2, "big")
    two = v2(0x21, 0x11 if address.version == 4 else 0x21, address.packed * 2 + ports)
    for data in (one, two):
        assert parse(data) == Header(len(data), address.version, address.packed, source)
