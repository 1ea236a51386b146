"""What all subscribers get is encoded once for each encoding."""

import pytest
from msgspec import Raw

from mooring.centrifuge.codes import NotJson
from mooring.centrifuge.commands import ClientInfo, Publication
from mooring.centrifuge.delivery import joined, left, published
from mooring.centrifuge.json import JsonCodec
from mooring.centrifuge.protobuf import ProtobufCodec
from support.centrifuge_oracle import ORACLES


class Counting:
    """A codec that counts what it encodes."""

    def __init__(self, codec):
        self.name = codec.name
        self.codec = codec
        self.count = 0

    def encode(self, replies):
        self.count += 1
        return self.codec.encode(replies)


@pytest.mark.parametrize("name", ORACLES)
def test_once_for_each_encoding(name):
    codec = Counting(ORACLES[name].codec)
    delivery = published("news", Publication(Raw(b"1"), offset=3), "one")
    frames = {delivery.frame(codec) for _ in range(5)}
    assert codec.count == 1
    [frame] = frames
    assert ORACLES[name].replies(frame) == [{"push": {"channel": "news", "pub": {"data": 1, "offset": 3}}}]
    assert (delivery.channel, delivery.offset, delivery.epoch) == ("news", 3, "one")


@pytest.mark.parametrize("name", ORACLES)
def test_joins_and_leaves(name):
    info = ClientInfo("ann", "c1")
    for make, kind in ((joined, "join"), (left, "leave")):
        delivery = make("news", info)
        push = {"channel": "news", kind: {"info": {"user": "ann", "client": "c1"}}}
        assert ORACLES[name].replies(delivery.frame(ORACLES[name].codec)) == [{"push": push}]
        assert delivery.offset == 0


def test_one_encoding_may_do_what_the_other_can_not():
    delivery = published("news", Publication(Raw(b"\xff")))
    for _ in range(2):
        with pytest.raises(NotJson):
            delivery.frame(JsonCodec())
    assert delivery.frame(ProtobufCodec())
