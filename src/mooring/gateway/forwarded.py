"""Who the client is, behind proxies that are trusted to say so: X-Forwarded-For and X-Forwarded-Proto.

Anyone can send these fields, and each proxy adds what it saw behind what it was told. So they are read from the right,
as far as each address was told by a proxy that is trusted: the first one that is none itself is the client. What stands
left of it nobody vouches for. A proxy must pass Host on as it came, or the same-origin check of handshakes will fail.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from mooring.config.option import UNIX

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

_MOST_HOPS = 32  # a field may have 4,000 elements, and each has to be read and compared with all networks
_THROUGH_UNIX = "unix:"  # what nginx writes for who came to it through a Unix socket

Address = IPv4Address | IPv6Address


class TrustedProxies:
    """Proxies in these networks are believed; UNIX is whoever comes through a Unix socket."""

    def __init__(self, networks: Iterable[str]) -> None:
        names = list(networks)
        self._unix = UNIX in names
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(name) for name in names if name != UNIX]

    def client(self, peer: str, scheme: str, headers: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """Address and scheme of the client of a request that `peer` has sent over `scheme`. A field that is malformed
        where it matters is ignored. The names of `headers` are in lower case."""
        if not self.trusts(peer):
            return peer, scheme
        hops = 0  # addresses that stand right of the client's
        client = peer
        for text in reversed(_elements(headers, "x-forwarded-for")):
            if hops == _MOST_HOPS:
                client, hops = peer, 0
                break
            if text.lower().startswith(_THROUGH_UNIX):
                client = ""  # as of a client that comes through a Unix socket to us
                if not self._unix:
                    break
                hops += 1
                continue
            address = _address(_without_port(text))
            if address is None:
                client, hops = peer, 0
                break
            client = str(address)
            if not self._trusts(address):
                break
            hops += 1
        # Each proxy adds its scheme too, or the one in front sets it for all.
        schemes = _elements(headers, "x-forwarded-proto")
        if schemes:
            scheme = _SCHEMES.get(schemes[-1 - min(hops, len(schemes) - 1)].lower(), scheme)
        return client, scheme

    def trusts(self, peer: str) -> bool:
        """Whether the client of a socket is one of them; "" is that of a Unix socket."""
        if not peer:
            return self._unix
        address = _address(peer) if self._networks else None
        return address is not None and self._trusts(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _elements(headers: Sequence[tuple[str, str]], wanted: str) -> list[str]:
    """Of a list field; empty ones don't count (RFC 9110 section 5.6.1.2)."""
    return [
        element
        for name, value in headers
        if name == wanted
        for part in value.split(",")
        if (element := part.strip(" \t"))
    ]


def _address(text: str) -> Address | None:
    """IPv4 is IPv4 also where it came through an IPv6 socket."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None  # of the proxy's own interfaces; free text, at that
        return address.ipv4_mapped or address
    return address


def _without_port(text: str) -> str:
    """Some write "192.0.2.1:4711" and "[2001:db8::1]:4711"."""
    host, colon, port = text.rpartition(":")
    if colon and (port.isdecimal() and port.isascii() and len(port) <= 5):
        if host[:1] == "[" and host[-1:] == "]":
            return host[1:-1]
        if ":" not in host:
            return host
    return text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
