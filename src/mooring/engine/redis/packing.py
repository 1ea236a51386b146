"""How publications lie in a stream and go through a channel, and the names of keys and channels."""

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from mooring.engine.letters import Append
from mooring.engine.redis.options import Options

__all__ = [
    "PUBLISHER_IDLE",
    "Head",
    "Names",
    "Packed",
    "Topic",
    "head_of",
    "pack",
    "partition_of",
    "topic_of",
    "unpack",
]

PUBLISHER_IDLE = 7 * 86400.0  # seconds after which a server forgets which numbers a publisher has used

TOPICS = 16384  # whose names are made once
LENGTH = 2  # bytes for that of a topic's name


class Packed(msgspec.Struct, array_like=True, frozen=True):
    """Publications of one topic in one batch: one entry of a stream."""

    publisher: str
    first: int  # number of the first one, by its publisher
    publications: list[tuple[int, int, bytes, bytes]]  # form, opcode, data, exclude


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Packed).decode


def pack(topic: bytes, publisher: str, first: int, appends: Sequence[Append]) -> bytes:
    """The topic stands before it, so that whoever does not want it need not decode it."""
    many = [(one.form, one.opcode, one.data, one.exclude) for one in appends]
    return b"".join((len(topic).to_bytes(LENGTH, "big"), topic, _encode(Packed(publisher, first, many))))


def topic_of(data: bytes) -> str:
    """Raises ValueError."""
    return data[LENGTH : LENGTH + int.from_bytes(data[:LENGTH], "big")].decode()


def unpack(data: bytes) -> Packed:
    """Raises ValueError."""
    return _decode(memoryview(data)[LENGTH + int.from_bytes(data[:LENGTH], "big") :])


class Head(NamedTuple):
    """What the script has put before a message: see append.lua."""

    generation: bytes
    counter: int
    epoch: str
    top: int  # offset of the last one
    many: int
    at: float  # seconds, of the server's clock


def head_of(line: bytes) -> Head:
    """Raises ValueError."""
    generation, counter, epoch, top, many, at = line.split(b" ")
    return Head(generation, int(counter), epoch.decode(), int(top), int(many), int(at) / 1000)


class Topic(NamedTuple):
    """Where it is."""

    name: bytes
    facts: bytes  # keys
    stream: bytes
    partition: int


def partition_of(topic: bytes, partitions: int) -> int:
    """The same on all nodes."""
    return zlib.crc32(topic) % partitions


class Names:
    """Of keys and channels."""

    def __init__(self, options: Options, publisher: str) -> None:
        self._prefix = options.prefix.encode()
        self._partitions = options.partitions
        self.counters = b"%b:parts" % self._prefix
        self.facts = b"%b:facts" % self._prefix  # that all nodes have to agree on
        self.publisher = b"%b:b:%b" % (self._prefix, publisher.encode())
        self.beat = b"%b:beat:%b" % (self._prefix, publisher.encode())
        self.channels = b"%b:p:" % self._prefix  # what their names begin with
        self.topic = lru_cache(TOPICS)(self._topic)

    def _topic(self, topic: str) -> Topic:
        name = topic.encode()
        partition = partition_of(name, self._partitions)
        return Topic(name, b"%b:m:%b" % (self._prefix, name), b"%b:s:%b" % (self._prefix, name), partition)

    def channel(self, partition: int) -> bytes:
        return b"%b%d" % (self.channels, partition)

    def partition_at(self, channel: bytes) -> int:
        """Of a channel's name."""
        return int(channel[len(self.channels) :])
