"""Headers of the PROXY protocol: more bytes never change what was said of fewer."""

from collections.abc import Iterator

from fuzz.harness import outcome, pieces
from mooring.net.proxy_protocol import LIMIT, V1_START, V2_SIGNATURE, Header, parse

V4 = V2_SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 1, 2, 3, 4])


def seeds() -> Iterator[bytes]:
    yield V1_START + b"TCP4 192.0.2.1 192.0.2.2 4711 443\r\nGET / HTTP/1.1\r\n"
    yield V1_START + b"TCP6 2001:db8::1 ::1 1 65535\r\n"
    yield V1_START + b"UNKNOWN whatever\r\n"
    yield V4 + b"GET /"
    yield V2_SIGNATURE + b"\x20\x00\x00\x00"
    yield V2_SIGNATURE + b"\x21\x21\x00\x2b" + bytes(40) + b"\x04\x00\x04abcd"
    yield V2_SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216)


def one(data: bytes) -> None:
    for versions in ("any", "v1", "v2"):
        whole = outcome(lambda versions=versions: parse(data, versions), ValueError)
        came = b""
        for part in pieces(data):
            came += part
            said = outcome(lambda came=came, versions=versions: parse(came, versions), ValueError)
            if said is not None:
                assert said == whole or type(said) is type(whole) is tuple, (versions, came)
                break
        if whole is None:
            assert len(data) < LIMIT
        elif isinstance(whole, Header):
            assert whole.size <= len(data)
            assert len(whole.address) == {0: 0, 4: 4, 6: 16}[whole.family]
            assert 0 <= whole.port < 65536
