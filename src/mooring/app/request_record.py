"""How a request goes from its gateway to a worker: a head in msgpack, and the body as it came."""

import struct

import msgspec

from mooring.types import ClientCertificate

_LENGTH = struct.Struct("<I")


class RequestRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The head of a request on its way to a worker. Its fields travel by position: append only."""

    method: str
    target: str
    minor: int
    headers: list[tuple[str, str]]
    remote_ip: str
    remote_port: int
    server_port: int
    scheme: str
    received: float
    """When its head was complete, in unix seconds."""
    number: int
    """Which request of its connection it is, from 1."""
    streamed: bool = False
    """The body follows in parts."""
    certificate: ClientCertificate | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(RequestRecord)


def encode_request(record: RequestRecord, body: bytes) -> bytes:
    """The payload for a worker."""
    head = _encoder.encode(record)
    return b"".join((_LENGTH.pack(len(head)), head, body))


def split_payload(payload: bytes) -> tuple[RequestRecord, bytes]:
    """Head and body again. Raises ValueError for anything that `encode_request` can't have made."""
    if len(payload) < _LENGTH.size:
        raise ValueError(f"a request of {len(payload)} bytes is too short for the length of its head")
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    if end > len(payload):
        raise ValueError(f"a request whose head ends at byte {end} of {len(payload)}")
    try:
        record = _decoder.decode(memoryview(payload)[_LENGTH.size : end])
    except msgspec.DecodeError as error:
        raise ValueError(f"the head of a request can't be decoded: {error}") from None
    return record, payload[end:]
