"""What goes to all subscribers of a channel alike: encoded once for each encoding, whoever asks first."""

from mooring.centrifuge.codec import Codec
from mooring.centrifuge.commands import ClientInfo, Join, Leave, Publication, Push, Reply


class Delivery:
    """One push of a channel. `epoch` belongs to `offset`, which is 0 for what has no place in the history."""

    __slots__ = ("_frames", "channel", "epoch", "offset", "push")

    def __init__(self, push: Push, offset: int = 0, epoch: str = "") -> None:
        self.push = push
        self.channel = push.channel
        self.offset = offset
        self.epoch = epoch
        self._frames: dict[str, bytes] = {}

    def frame(self, codec: Codec) -> bytes:
        """As a frame. Raises `NotJson`, each time, for data that JSON can't carry."""
        frame = self._frames.get(codec.name)
        if frame is None:
            frame = self._frames[codec.name] = codec.encode([Reply(push=self.push)])
        return frame


def published(channel: str, publication: Publication, epoch: str = "") -> Delivery:
    return Delivery(Push(channel, pub=publication), publication.offset, epoch)


def joined(channel: str, info: ClientInfo) -> Delivery:
    return Delivery(Push(channel, join=Join(info)))


def left(channel: str, info: ClientInfo) -> Delivery:
    return Delivery(Push(channel, leave=Leave(info)))
