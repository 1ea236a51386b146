"""The negotiation of permessage-deflate (RFC 7692 section 7.1): offers in, one answer out; no I/O.

A client sends offers in the order of its preference; the first that can be accepted is. An offer with an unknown or
twice given parameter, or a wrong value, is declined as RFC 7692 section 7 demands, and the next one is looked at.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

NAME = "permessage-deflate"
OFFER_LIMIT = 16  # offers looked at; a browser sends one
MARK_LIMIT = 128  # commas and semicolons; a field may have 8,192 of them, which take milliseconds
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 6455 section 9.1: a quoted value must be a token when unquoted
_PARAMETER = rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"({_TOKEN})"))?'
_EXTENSION = re.compile(rf"[ \t]*({_TOKEN})((?:{_PARAMETER})*)[ \t]*")
_NOTHING = re.compile(r"[ \t,]*")
_EACH = re.compile(_PARAMETER)
_BITS = re.compile(r"[89]|1[0-5]")

Parameters = list[tuple[str, str | None]]


@dataclass(frozen=True, slots=True)
class Compression:
    """What this side wants: windows in bits, and whether they may be kept from message to message."""

    server_bits: int = 15
    client_bits: int = 15
    server_takeover: bool = False
    client_takeover: bool = False


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides will do."""

    server_bits: int
    client_bits: int
    server_takeover: bool
    client_takeover: bool
    answer: str
    """The value of Sec-WebSocket-Extensions in the 101."""


def parse(values: Sequence[str]) -> list[tuple[str, Parameters]] | None:
    """The extensions of all Sec-WebSocket-Extensions fields, in order; None when they break the grammar, or are more
    than anybody has. Empty elements don't count (RFC 9110 section 5.6.1.2), nor does an empty field, which libraries
    send for an empty list."""
    found: list[tuple[str, Parameters]] = []
    if not values:
        return found
    if sum(value.count(",") + value.count(";") for value in values) > MARK_LIMIT:
        return None
    for value in values:
        at = 0
        while (at := _NOTHING.match(value, at).end()) < len(value):  # type: ignore[union-attr]  # it always matches
            match = _EXTENSION.match(value, at)
            if match is None:
                return None
            parameters = [(p[1].lower(), p[2] or p[3]) for p in _EACH.finditer(match[2])]
            found.append((match[1].lower(), parameters))
            at = match.end()
            if at < len(value) and value[at] != ",":
                return None
    return found


def negotiate(extensions: Sequence[tuple[str, Parameters]], wish: Compression) -> Agreed | None:
    """The answer to the first offer that can be accepted; None: no compression."""
    offers = [parameters for name, parameters in extensions if name == NAME]
    for parameters in offers[:OFFER_LIMIT]:
        agreed = _accept(parameters, wish)
        if agreed is not None:
            return agreed
    return None


def _accept(parameters: Parameters, wish: Compression) -> Agreed | None:
    given = dict(parameters)
    if len(given) != len(parameters):
        return None
    server_bits, client_bits = wish.server_bits, 15
    server_takeover, client_takeover = wish.server_takeover, wish.client_takeover
    answer = [NAME]
    for name, value in given.items():
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name == "server_max_window_bits":
            if value is None or not _BITS.fullmatch(value):
                return None
            server_bits = min(server_bits, int(value))
        elif name == "client_max_window_bits":
            if value is not None and not _BITS.fullmatch(value):
                return None
            client_bits = min(wish.client_bits, int(value or 15))
        else:
            return None
    # our compressor cannot keep a window of 8 bits (section 7.1.2.1)
    if "server_no_context_takeover" in given or server_bits == 8:
        server_takeover = False
    if "client_no_context_takeover" in given:
        client_takeover = False
    # both may be in the answer although they were not offered (sections 7.1.1.1 and 7.1.1.2)
    if not server_takeover:
        answer.append("server_no_context_takeover")
    if not client_takeover:
        answer.append("client_no_context_takeover")
    if "server_max_window_bits" in given or server_bits < 15:
        answer.append(f"server_max_window_bits={server_bits}")
    if "client_max_window_bits" in given and client_bits < 15:
        answer.append(f"client_max_window_bits={client_bits}")
    return Agreed(server_bits, client_bits, server_takeover, client_takeover, "; ".join(answer))
