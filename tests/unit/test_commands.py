"""What a worker tells a gateway: what makes no sense is said, and has no effect."""

import struct
from typing import Any

import pytest

from mooring._core.wire import Command, Event, Missed, Respond
from support.fronts import bench

FD = (1 << 57) | (101 << 22)
BAD: list[tuple[Command, dict[str, Any], str]] = [
    (Command.ACK, {"ticket": 9999, "extra": 1}, "1 tickets from 9999 on are acknowledged"),
    (Command.ACK, {"ticket": 3, "extra": 2}, "2 tickets are acknowledged that are not in use"),
    (Command.ACK, {"ticket": 0, "extra": 1, "opcode": 3}, "1 tickets from 0 on"),
    (Command.SEND, {"opcode": 8, "payload": b"x"}, "a message with opcode 8"),
    (Command.PUBLISH, {"opcode": 1, "arg": 5, "payload": b"room"}, "for a topic of 5 bytes"),
    (Command.PUBLISH, {"opcode": 1, "arg": 1, "payload": b"roomroom", "extra": 1}, "1 subscribers are left out, in 7"),
    (Command.PUBLISH, {"opcode": 1, "arg": 1, "payload": b"room", "fd": 7 << 32}, "a publish of process 7"),
    (Command.DISCONNECT, {"arg": 1005}, "close code 1005"),
    (Command.DISCONNECT_USER, {"arg": 1006}, "close code 1006"),
    (Command.DISCONNECT_USER, {"arg": 1000, "extra": 4, "payload": b"ann"}, "a user id of 4 bytes in 3"),
    (Command.BIND, {"payload": b"\xff"}, "not UTF-8"),
    (Command.FILE, {"arg": 5, "payload": b"path"}, "a file with a path of 5 bytes in 4"),
    (Command.MISSED, {"opcode": 9, "fd": 0}, "something of kind 9 was missed"),
    (Command.MISSED, {"opcode": Missed.TOPICS, "fd": 7 << 32}, "publishes of process 7 are missed"),
    (Command.WORK, {"opcode": 1, "extra": 1}, "work 1 has ended, which nobody has begun"),
]


@pytest.mark.parametrize(("kind", "more", "said"), BAD, ids=[f"{one[0].name}-{n}" for n, one in enumerate(BAD)])
def test_what_makes_no_sense_has_no_effect(kind: Command, more: dict[str, Any], said: str):
    with bench() as one:
        worker = one.worker()
        fd = one.client()
        before = one.relay.stats()
        worker.tell(kind, **{"fd": fd, **more})
        (problem,) = one.bad
        assert said in problem
        assert one.front.gateway.connections.table.is_open(fd)
        after = one.relay.stats()
        assert after.pop("bad_records") == before.pop("bad_records") + 1
        assert after == before


def test_a_worker_of_another_version_is_not_used(caplog: pytest.LogCaptureFixture):
    with bench() as one:
        worker_end, *ends = one.front.attach(0)
        worker_end.channel.feed(struct.pack("=IBBHIIQ", 0, Command.HELLO, 0, 1, 0, 77, 0))
        assert not worker_end.usable
        assert "speaks version 1 of the channel" in caplog.text
        for end in ends:
            end.close()


def test_who_asks_about_a_request_that_is_over_hears_it():
    with bench() as one:
        worker = one.worker()
        worker.heard()
        worker.tell(Command.RESPOND, FD, opcode=Respond.ASKS, extra=3)
        worker.tell(Command.WANT, FD, extra=4)
        one.turn()
        assert [(told.kind, told.fd, told.extra) for told in worker.heard()] == [
            (Event.GONE, FD, 3),
            (Event.GONE, FD, 4),
        ]


def test_what_a_worker_refuses_is_counted():
    with bench() as one:
        worker = one.worker()
        for arg in (0, 1, 1):
            worker.tell(Command.RESPOND, FD, opcode=Respond.REFUSES, arg=arg)
        counters = one.front.gateway.counters
        assert (counters["requests_refused"], counters["messages_invalid"]) == (1, 2)
