"""What both encodings have in common, and how to choose one.

A codec is sans-IO and has no state: a frame in, commands out; replies in, a frame out. A frame that it makes can be
put together with others (`join`), so what is the same for many clients is encoded once for each encoding.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from mooring.centrifuge.commands import Command, Emulation, Message, Publication, Push, Reply

#: The WebSocket subprotocol that chooses protobuf. Without it a client speaks JSON.
PROTOBUF_SUBPROTOCOL = "centrifuge-protobuf"

M = TypeVar("M", bound=Message)


class Codec(Protocol):
    """One encoding of the protocol."""

    @property
    def name(self) -> str:
        """`json` or `protobuf`."""

    @property
    def binary(self) -> bool:
        """Whether its frames are binary messages of a WebSocket."""

    @property
    def ping(self) -> bytes:
        """The frame of a ping."""

    def commands(self, frame: bytes) -> list[Command]:
        """What a frame of a client says. Raises `Violation`."""

    def emulation(self, body: bytes) -> Emulation:
        """The body of a request that stands for a frame; `data` is that frame. Raises `Violation`."""

    def encode(self, replies: Iterable[Reply]) -> bytes:
        """A frame. Raises `NotJson` where some data is not what the encoding can carry."""

    def join(self, frames: Sequence[bytes]) -> bytes:
        """One frame of several."""


def encode_publication(codec: Codec, channel: str, publication: Publication) -> bytes:
    """The frame by which a publication reaches all subscribers of a channel that have this encoding."""
    return codec.encode([Reply(push=Push(channel, pub=publication))])
