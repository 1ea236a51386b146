"""RFC 6455 for nothing_lost.py, the client's side: frames to bytes and back. No socket."""

from collections.abc import Iterator


def masked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")


def frame(opcode: int, payload: bytes, mask: bytes, final: bool = True) -> bytes:
    """One frame of a client (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([0x80 | 127]) + size.to_bytes(8, "big")
    return bytes([opcode | (0x80 if final else 0)]) + length + mask + masked(payload, mask)


def frames(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Takes whole frames of a server from the front; ValueError for what none may send."""
    while len(buffer) >= 2:
        size, start = buffer[1], 2
        if size & 0x80 or buffer[0] & 0x70 or not buffer[0] & 0x80:
            raise ValueError("a server's frame that is masked, in parts, or has reserved bits")
        if size == 126:
            size, start = int.from_bytes(buffer[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < start + size:
            return
        opcode, payload = buffer[0] & 15, bytes(buffer[start : start + size])
        del buffer[: start + size]
        yield opcode, payload
