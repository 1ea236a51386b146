"""WebSocket frames for tests, made without the code under test; and the notation of the vectors."""

import random
import re
import tomllib
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "vectors" / "ws"

_TOKEN = re.compile(r"\s+|\(([0-9a-f\s]*)\)\*([0-9]+)|([0-9a-f]{2})")


def octets(text: str) -> bytes:
    """The bytes of "81 02 (61 62)*3": pairs of hexadecimal digits, repeated groups, and # comments."""
    text = re.sub(r"#.*", "", text)
    data = bytearray()
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"not hexadecimal: {text[at : at + 20]!r}")
        group, times, pair = match.groups()
        if group is not None:
            data += bytes.fromhex(group) * int(times)
        elif pair is not None:
            data.append(int(pair, 16))
        at = match.end()
    return bytes(data)


def vectors(kind: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, vector) of every file of that kind, with bytes in the place of hexadecimal and of text."""
    found = []
    for file in sorted((VECTORS / kind).glob("*.toml")):
        vector = tomllib.loads(file.read_text())
        vector["frames"] = octets(vector["frames"])
        for event in vector.setdefault("expect", []):
            event["data"] = event["text"].encode() if "text" in event else octets(event["hex"])
        found.append((file.stem, vector))
    if not found:
        raise FileNotFoundError(f"no vectors in {VECTORS / kind}")
    return found


def header(
    opcode: int,
    length: int,
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = bytes(4),
    form: int | None = None,
) -> bytes:
    """A frame's header (RFC 6455 section 5.2). `form`: how many bits the length takes; None: the fewest."""
    if form is None:
        form = 7 if length < 126 else 16 if length < 65536 else 64
    mask = 0 if key is None else 0x80
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if form == 7:
        head += bytes([mask | length])
    elif form == 16:
        head += bytes([mask | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + length.to_bytes(8, "big")
    return head + (key or b"")


def masked(payload: bytes, key: bytes) -> bytes:
    """Section 5.3, octet by octet."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))


def frame(opcode: int, payload: bytes = b"", *, key: bytes | None = b"\x37\xfa\x21\x3d", **options: Any) -> bytes:
    """A whole frame; `options` as for `header`."""
    return header(opcode, len(payload), key=key, **options) + (masked(payload, key) if key else payload)


def cut(data: bytes, chance: random.Random, pieces: int) -> list[bytes]:
    """At most that many pieces, some of them empty."""
    places = sorted(chance.choices(range(len(data) + 1), k=pieces - 1))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def single(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]
