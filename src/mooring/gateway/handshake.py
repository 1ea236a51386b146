"""The opening handshake of RFC 6455 section 4.2: a request in, the answer out; no I/O.

The Origin check is the only thing that keeps a page of any web site from opening a WebSocket here with
the cookies of its visitor: browsers apply no same-origin rule to WebSockets. So it is on by default: a
request that names an origin must name ours (scheme, host and port; RFC 6454 section 4), or one that is
allowed by name. Programs other than browsers send no Origin and are let in.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha1

from mooring._core.http_request import ParsedRequest
from mooring._core.http_response import REASONS, response_head
from mooring.app.dates import http_date
from mooring.config.origin import normal_origin, own_origin
from mooring.gateway.extensions import Agreed, Compression, negotiate
from mooring.gateway.extensions import parse as parse_extensions

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
# 16 bytes in base64: 22 characters and two of padding.
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_JUDGED = (
    "host",
    "upgrade",
    "connection",
    "sec-websocket-key",
    "sec-websocket-version",
    "origin",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class Policy:
    """What this server accepts. Raises ValueError for an origin or a sub-protocol no client could send."""

    subprotocols: tuple[str, ...] = ()
    check_origin: bool = True
    allowed_origins: tuple[str, ...] = ()
    """Beside our own: origins such as "https://example.org", "file://" or "null"; "*" allows any."""
    compression: Compression | None = None
    """What to answer to offers of permessage-deflate; None: nothing."""
    scheme: str = "http"
    """"http" or "https": how clients reach us."""
    _allowed: frozenset[str] = field(init=False, repr=False, compare=False)
    _any_origin: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in self.subprotocols:
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"sub-protocol {name!r} is not a token (RFC 6455 section 4.1)")
        allowed = set()
        for text in self.allowed_origins:
            if text != "*":
                origin = normal_origin(text)
                if origin is None:
                    raise ValueError(f"{text!r} is not an origin; write it like https://example.org")
                allowed.add(origin)
        object.__setattr__(self, "_allowed", frozenset(allowed))
        object.__setattr__(self, "_any_origin", not self.check_origin or "*" in self.allowed_origins)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The handshake is complete once `response`, the 101, is sent."""

    key: str
    """The value of Sec-WebSocket-Accept."""
    subprotocol: str | None
    compression: Agreed | None = None
    foreign: bool = False
    """The policy does not allow the Origin; the application is to be asked."""
    offers: bool = False
    """The client offers sub-protocols."""

    @property
    def response(self) -> bytes:
        return self.switching(self.subprotocol)

    def switching(self, subprotocol: str | None, headers: Sequence[tuple[str, str]] = ()) -> bytes:
        """The 101 with this sub-protocol and further fields. Raises ValueError like `response_head`."""
        fields = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", self.key)]
        if subprotocol:
            fields.append(("Sec-WebSocket-Protocol", subprotocol))
        if self.compression is not None:
            fields.append(("Sec-WebSocket-Extensions", self.compression.answer))
        return response_head(101, [*fields, *headers])


@dataclass(frozen=True, slots=True)
class Refused:
    """`answer` makes the response of it."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    advice: str = ""
    """For the log: what of it was wrong, and what to do about that."""


def judge(
    request: ParsedRequest, policy: Policy, scheme: str | None = None, *, ask_origin: bool = False
) -> Accepted | Refused:
    """Check a handshake as RFC 6455 section 4.2.1 lists it, and answer it as 4.2.2 says.

    `scheme`: how this client reaches us, if not as the policy says. `ask_origin`: an Origin that the policy does not
    allow is not refused, but said in the answer."""
    fields: dict[str, list[str]] = {name: [] for name in _JUDGED}
    for name, value in request.headers:
        if name in fields:
            fields[name].append(value)
    refused = _is_none(request, fields)
    if refused is not None:
        return refused
    host, key, origin = fields["host"], fields["sec-websocket-key"], fields["origin"]
    foreign = bool(origin) and not _may_come_from(origin[0], host[0], policy, scheme or policy.scheme)
    # no browser sends two, so somebody added one
    if len(origin) > 1 or (foreign and not ask_origin):
        advice = _advice(origin, host[0], scheme or policy.scheme)
        return Refused(403, "this Origin is not allowed; see the setting allowed_origins", advice=advice)
    names = _token_list(fields["sec-websocket-protocol"])
    if names is None:
        return Refused(400, "Sec-WebSocket-Protocol is not a list of different tokens")
    subprotocol = next((name for name in names if name in policy.subprotocols), None) if names else None

    named = parse_extensions(fields["sec-websocket-extensions"])
    if named is None:
        return Refused(400, "Sec-WebSocket-Extensions breaks the grammar of RFC 6455 section 9.1, or is too long")
    agreed = negotiate(named, policy.compression) if policy.compression is not None else None

    accept = b64encode(sha1(key[0].encode() + GUID, usedforsecurity=False).digest()).decode()
    return Accepted(accept, subprotocol, agreed, foreign, bool(names))


def _is_none(request: ParsedRequest, fields: dict[str, list[str]]) -> Refused | None:
    """Whether the request is no handshake of version 13 at all (RFC 6455 section 4.2.1), whoever it is from."""
    if request.method != "GET":
        return Refused(405, "a WebSocket handshake is a GET request", (("Allow", "GET"),))
    if request.minor != 1:
        # Not 505: that is for another major version (RFC 9110 section 15.6.6).
        return Refused(400, "a WebSocket handshake needs HTTP/1.1; a proxy may have made it HTTP/1.0")
    if len(fields["host"]) != 1:
        return Refused(400, "exactly one Host is needed")
    if "websocket" not in _options(fields["upgrade"]):
        return Refused(400, "Upgrade does not name websocket")
    if "upgrade" not in _options(fields["connection"]):
        return Refused(400, "Connection does not name Upgrade; a proxy may have removed it")
    # The version comes before the key: another version may have another key (RFC 6455 section 4.4).
    version, key = fields["sec-websocket-version"], fields["sec-websocket-key"]
    if len(version) != 1:
        return Refused(400, "exactly one Sec-WebSocket-Version is needed")
    if version[0] != "13":
        # RFC 9110 section 15.5.22: a 426 names the protocol in Upgrade.
        return Refused(
            426, "the WebSocket version spoken here is 13", (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
        )
    if len(key) != 1 or not _KEY.fullmatch(key[0]):
        return Refused(400, "exactly one Sec-WebSocket-Key is needed: 16 bytes in base64")
    return None


def answer(
    status: int,
    reason: str,
    headers: Sequence[tuple[str, str]] = (),
    *,
    head_only: bool = False,
    server_header: bool = True,
) -> bytes:
    """A whole response that the gateway gives itself: the reason as plain text. It announces the end of the connection,
    which is the caller's part. `head_only` is for HEAD. `server_header` is the setting. Raises ValueError like
    `response_head`."""
    body = f"{status} {REASONS.get(status, '')}: {reason}\n".encode()
    # RFC 9110 section 7.8: who sends Upgrade lists it in Connection.
    options = "Upgrade, close" if any(name.lower() == "upgrade" for name, _ in headers) else "close"
    head = [*headers, ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    head += [("Date", http_date()), ("Connection", options)]
    if server_header:
        head.append(("Server", "mooring"))
    return response_head(status, head) + (b"" if head_only else body)


def _options(values: list[str]) -> list[str]:
    """The elements of a list field whose case does not matter."""
    return [part.strip(" \t") for value in values for part in value.lower().split(",")]


def _token_list(values: list[str]) -> list[str] | None:
    """The elements of 1#token (RFC 6455 section 11.3.4). Empty ones don't count (RFC 9110 section
    5.6.1.2), and a field without any means none: libraries send it for an empty list. None: it is not such a list, or
    an element is repeated, which section 4.1 forbids."""
    if not values:
        return []
    names = [name for value in values for part in value.split(",") if (name := part.strip(" \t"))]
    if len(set(names)) != len(names):
        return None
    return names if all(map(_TOKEN.fullmatch, names)) else None


def _may_come_from(value: str, host: str, policy: Policy, scheme: str) -> bool:
    if policy._any_origin:
        return True
    origin = normal_origin(value)
    return origin is not None and (origin in policy._allowed or origin == own_origin(scheme, host))


def _advice(values: list[str], host: str, scheme: str) -> str:
    """For the log: which Origin was refused, and what would let it in."""
    if len(values) > 1:
        return "more than one Origin; a proxy may have added one"
    origin, own = normal_origin(values[0]), own_origin(scheme, host)
    if origin is None:
        return f"Origin {values[0]!r} is none; only an `origin` handler can let it in"
    said = f"Origin {values[0]!r}, and ours is {own}; "
    if own is not None and origin.partition("://")[2] == own.partition("://")[2]:
        return said + "if a proxy speaks TLS for us, name it in trusted_proxies and have it set X-Forwarded-Proto"
    return said + f"allowed_origins=[{origin!r}] lets it in; a proxy must pass Host on as it came"
