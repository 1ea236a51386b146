"""What is special about protobuf: the table against the definition that others use, and lengths."""

import pytest
from centrifuge.protocol import client_pb2
from hypothesis import given
from hypothesis import strategies as st

from mooring.centrifuge import commands
from mooring.centrifuge.codes import Violation
from mooring.centrifuge.commands import Message
from mooring.centrifuge.limits import Limits
from mooring.centrifuge.protobuf import ProtobufCodec, Splitter, behind_its_length, describe

OTHER_NAMES = {"Position": "StreamPosition", "ServerMessage": "Message", "Emulation": "EmulationRequest"}
OURS = [one for one in vars(commands).values() if isinstance(one, type) and issubclass(one, Message) and one != Message]


def other_name(name):
    return OTHER_NAMES.get(name) or name.replace("Rpc", "RPC")


#: Fields that this library does not know yet, by the definition of 2026.
NEWER = {
    "SubscribeRequest.type": (15, "int32"),
    "PublishRequest.type": (3, "int32"),
    "SubRefreshRequest.type": (3, "int32"),
}


def test_the_table_is_what_others_use():
    """Each field has the number and the type that it has in the definition from which a library was generated."""
    theirs = client_pb2.DESCRIPTOR.message_types_by_name
    unknown = {}
    for message in describe(OURS).message_type:
        other = theirs[other_name(message.name)].fields_by_name
        for field in message.field:
            place = f"{message.name}.{field.name}"
            if field.name not in other:
                unknown[place] = (field.number, field.Type.Name(field.type).removeprefix("TYPE_").lower())
                continue
            they = other[field.name]
            assert (field.number, field.label == field.LABEL_REPEATED) == (they.number, they.is_repeated), place
            if place == "SubscribeRequest.tf":
                assert (field.type, they.type) == (field.TYPE_BYTES, field.TYPE_MESSAGE)
                continue
            assert field.type == they.type, place
            if field.type == field.TYPE_MESSAGE and not field.type_name.endswith("Entry"):
                assert other_name(field.type_name.split(".")[-1]) == they.message_type.name, place
        for entry in message.nested_type:
            assert entry.options.map_entry
    assert unknown == NEWER


def test_every_message_was_looked_at():
    assert len(OURS) > 35


@pytest.mark.parametrize("length", [0, 1, 127, 128, 300, 16383, 16384, 65536])
def test_lengths(length):
    message = b"x" * length
    assert Splitter().feed(behind_its_length(message)) == [message]


@given(st.lists(st.binary(max_size=300), max_size=10), st.data())
def test_pieces_of_any_size(messages, data):
    """However the bytes come, the same messages come out."""
    stream = b"".join(map(behind_its_length, messages))
    splitter, found, at = Splitter(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        found += splitter.feed(stream[at : at + step])
        at += step
    splitter.end()
    assert found == messages


def test_byte_by_byte():
    messages = [b"", b"a", b"b" * 127, b"c" * 128, b"d" * 20_000]
    stream = b"".join(map(behind_its_length, messages))
    splitter = Splitter()
    assert [one for at in range(len(stream)) for one in splitter.feed(stream[at : at + 1])] == messages
    splitter.end()


@pytest.mark.parametrize("end", range(1, 131))
def test_a_frame_that_ends_early(end):
    frame = behind_its_length(b"x" * 129)
    splitter = Splitter()
    assert splitter.feed(frame[:end]) == ([] if end < 131 else [b"x" * 129])
    if end < 131:
        with pytest.raises(Violation, match="ends within"):
            splitter.end()


@pytest.mark.parametrize(
    "prefix",
    [b"\xff" * 9 + b"\x01", b"\xff" * 11, b"\x80" * 10 + b"\x00", b"\x80" * 11, b"\x81\x80\x04", b"\xff\xff\x7f"],
)
def test_lengths_that_are_too_much_or_do_not_end(prefix):
    """At the first byte that says so: nothing is kept for it."""
    splitter = Splitter(Limits(frame=65_536))
    pieces = [prefix[at : at + 1] for at in range(len(prefix))]
    with pytest.raises(Violation):
        list(map(splitter.feed, pieces))


def test_a_length_of_more_bytes_than_it_needs():
    assert Splitter().feed(b"\x82\x80\x80\x00ab") == [b"ab"]


@pytest.mark.parametrize(
    "message",
    [
        b"\x08",  # a number without its value
        b"\x2a\x05ab",  # a part that is longer than the whole
        b"\x2a\x03\x0a\x01\xff",  # a text that is none
        b"\x0b" * 200,  # groups in groups, which the protocol does not have
    ],
)
def test_messages_that_are_none(message):
    with pytest.raises(Violation, match="not a protobuf message"):
        ProtobufCodec().commands(behind_its_length(message))


def test_a_number_of_more_bits_than_it_has():
    """An id has 32 bits: what is above is cut off, as protobuf wants it."""
    [command] = ProtobufCodec().commands(behind_its_length(b"\x08\x81\x80\x80\x80\x10\x5a\x00"))
    assert command.id == 1
