"""The PROXY protocol, versions 1 and 2: a header before all else, in which a proxy says whose bytes follow.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt; sections are those of that text. Sans-IO, and called with
all that has come so far: it runs once per connection, mostly on one whole header. A byte that can't belong to a header
is an error at once, and no header is longer than LIMIT; so what may be kept of an unfinished one is bounded.

A proxy also opens connections of its own (LOCAL, health checks) and serves clients without an Internet address
(UNKNOWN, UNSPEC, Unix sockets). These count as the proxy's own.
"""

import re
import struct
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

LIMIT = 4096  # bytes of a header; version 2 allows 65,551, real ones have less than 300
V1_LIMIT = 107  # section 2.1
V1_START = b"PROXY "
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD = 16
# one space between the parts, ports without leading zeros (section 2.1)
V1_ADDRESSES = re.compile(rb"(TCP[46]) ([0-9a-fA-F:.]+) ([0-9a-fA-F:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})")
TCP4, TCP6, UNIX_STREAM, UNSPEC = 0x11, 0x21, 0x31, 0x00
ADDRESS_BYTES = {TCP4: 12, TCP6: 36, UNIX_STREAM: 216, UNSPEC: 0}


class Header(NamedTuple):
    """What a header says of the client."""

    size: int
    """Bytes of the header."""
    family: int
    """4, 6, or 0: nothing, the connection is the proxy's own."""
    address: bytes
    """In network order; empty for family 0."""
    port: int


def parse(data: bytes, versions: str = "any") -> Header | None:
    """The header that `data` begins with; None when more is needed. `versions` is "v1", "v2" or "any".

    Raises ValueError, with a reason for people, for what is no header of such a version.
    """
    if versions != "v2" and V1_START.startswith(data[: len(V1_START)]):
        return _parse_v1(data)
    if versions != "v1" and V2_SIGNATURE.startswith(data[: len(V2_SIGNATURE)]):
        return _parse_v2(data) if len(data) >= V2_HEAD else None
    other = V1_START.startswith(data[: len(V1_START)]) or V2_SIGNATURE.startswith(data[: len(V2_SIGNATURE)])
    raise ValueError(f"a header of another version than {versions}" if other else "no PROXY header")


def _parse_v1(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, V1_LIMIT)
    if end < 0:
        if len(data) >= V1_LIMIT:
            raise ValueError(f"a header of version 1 that does not end within {V1_LIMIT} bytes")
        return None
    text, size = data[len(V1_START) : end], end + 2
    if text == b"UNKNOWN" or text.startswith(b"UNKNOWN "):  # anything may follow, and is ignored
        return Header(size, 0, b"", 0)
    match = V1_ADDRESSES.fullmatch(text)
    if match is None:
        raise ValueError("a malformed header of version 1")
    kind = IPv4Address if match[1] == b"TCP4" else IPv6Address
    try:
        source, _ = kind(match[2].decode()), kind(match[3].decode())
    except AddressValueError as error:
        raise ValueError(f"a header of version 1 with a wrong address: {error}") from None
    ports = int(match[4]), int(match[5])
    if max(ports) > 65535:
        raise ValueError("a header of version 1 with a port above 65535")
    return Header(size, source.version, source.packed, ports[0])


def _parse_v2(data: bytes) -> Header | None:
    command, family, length = struct.unpack_from(">BBH", data, len(V2_SIGNATURE))
    if command not in (0x20, 0x21):
        raise ValueError(f"version and command 0x{command:02x} in a header of version 2")
    if family not in ADDRESS_BYTES:
        raise ValueError(f"address family and protocol 0x{family:02x} in a header of version 2")
    size = V2_HEAD + length
    if size > LIMIT:
        raise ValueError(f"a header of {size} bytes, more than {LIMIT}")
    addresses = ADDRESS_BYTES[family]
    if length < addresses and command == 0x21:
        raise ValueError("a header of version 2 that is too short for its addresses")
    if len(data) < size:
        return None
    if command == 0x20:  # LOCAL: all that follows is to be skipped (section 2.2)
        return Header(size, 0, b"", 0)
    _check_tlvs(data[V2_HEAD + addresses : size])
    if family == TCP4:
        return Header(size, 4, data[16:20], int.from_bytes(data[24:26], "big"))
    if family == TCP6:
        return Header(size, 6, data[16:32], int.from_bytes(data[48:50], "big"))
    return Header(size, 0, b"", 0)


def _check_tlvs(data: bytes) -> None:
    """Type, length and value, again and again (section 2.2.1); what they say is not used."""
    at = 0
    while at < len(data):
        if at + 3 > len(data):
            raise ValueError("a header of version 2 that ends in the middle of an extension")
        at += 3 + int.from_bytes(data[at + 1 : at + 3], "big")
    if at > len(data):
        raise ValueError("a header of version 2 with an extension that is longer than the header")
