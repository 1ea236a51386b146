"""Compressed bodies: which answers, in which of the codings that the client accepts (RFC 9110 section 12.5.3).

gzip always; zstd and br when `mooring-server[compress]` is installed. The levels are those for content that is
compressed anew for each answer: more would cost the other connections of the worker more time than it saves the
network.
"""

import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import NamedTuple, cast

from mooring.app import fields
from mooring.app.fields import Fields

LARGEST = 1 << 20  # bytes; it is done at once, while no other handler runs: about 10 ms
_TYPES = frozenset(
    {
        "application/graphql-response+json",
        "application/javascript",
        "application/json",
        "application/ld+json",
        "application/manifest+json",
        "application/problem+json",
        "application/wasm",
        "application/xhtml+xml",
        "application/xml",
        "image/svg+xml",
    }
)
_MOST_CODINGS = 32  # in an Accept-Encoding; nobody knows that many
_WEIGHT = re.compile(r"[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


class Coding(NamedTuple):
    name: str
    encode: Callable[[bytes], bytes]


def codings() -> list[Coding]:
    """Those that this process can make, the best first."""
    found = []
    zstd = _compress_of("compression.zstd") or _compress_of("backports.zstd")  # in Python 3.14, and for older ones
    if zstd is not None:
        found.append(Coding("zstd", partial(zstd, level=3)))
    brotli = _compress_of("brotli")
    if brotli is not None:
        found.append(Coding("br", partial(brotli, quality=4)))
    found.append(Coding("gzip", partial(zlib.compress, level=1, wbits=31)))
    return found


def _compress_of(module: str) -> Callable[..., bytes] | None:
    try:
        return cast(Callable[..., bytes], import_module(module).compress)
    except ImportError:
        return None


class Compressor:
    """What compresses the answers of one process; `least` is the size from which it does."""

    def __init__(self, least: int, offered: Sequence[Coding] | None = None) -> None:
        self._least = least
        self._offered = codings() if offered is None else list(offered)

    def takes(self, content_type: str, size: int) -> bool:
        """Whether a body of that type and size is worth it."""
        return self._least <= size <= LARGEST and is_text(content_type)

    def encode(
        self, headers: Fields, kind: str, accepted: str, body: bytes, length: int | None
    ) -> tuple[bytes, int | None]:
        """The body as it is sent, and the fields that tell so. `kind`: its type if no field says it. `length`: of one
        that is left out (HEAD), which is not known any more if it would be compressed: -1.

        Not with a cookie: what is secret in the body could be guessed from its length (the BREACH attack)."""
        found = {name.lower(): value for name, value in headers}
        if (
            not self.takes(found.get("content-type", kind), len(body) if length is None else length)
            or not found.keys().isdisjoint(("content-encoding", "content-range", "set-cookie"))
            or "no-transform" in found.get("cache-control", "").lower()
        ):
            return body, length
        fields.vary(headers)
        if length is not None:
            if choose(accepted, self._offered) is not None:
                fields.weaken(headers)
            return body, -1
        small = self.compress(body, accepted)
        if small is None:
            return body, None
        headers.append(("Content-Encoding", small[0]))
        fields.weaken(headers)
        return small[1], None

    def compress(self, body: bytes, accepted: str) -> tuple[str, bytes] | None:
        """The coding and the body in it; None when the client accepts none or nothing is gained."""
        coding = choose(accepted, self._offered)
        if coding is None:
            return None
        small = coding.encode(body)
        return (coding.name, small) if len(small) < len(body) else None


def is_text(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip(" \t").lower()
    return (kind.startswith("text/") and kind != "text/event-stream") or kind in _TYPES


def choose(accepted: str, offered: Sequence[Coding]) -> Coding | None:
    """The coding the client likes best; of several the first that is offered. None: as it is, also when the client
    would not like that either, which RFC 9110 section 12.5.3 allows."""
    weights: dict[str, float] = {}
    for part in accepted.split(",", _MOST_CODINGS)[:_MOST_CODINGS]:
        name, semicolon, rest = part.partition(";")
        weight = _WEIGHT.fullmatch(rest.strip(" \t")) if semicolon else None
        if weight is not None or not semicolon:
            name = name.strip(" \t").lower()
            weights.setdefault("gzip" if name == "x-gzip" else name, float(weight[1]) if weight else 1.0)
    others = weights.get("*", 0.0)
    best = max(offered, key=lambda coding: weights.get(coding.name, others), default=None)
    liked = weights.get(best.name, others) if best is not None else 0.0
    return best if liked > 0 and liked >= weights.get("identity", 0.0) else None
