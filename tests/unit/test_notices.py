"""What gateways tell a worker goes to the part that it concerns; what takes a ticket does not come this way."""

from typing import Any
from unittest.mock import Mock

import pytest

from mooring._core.channel import BadRecord
from mooring._core.gateway_end import GatewayEnd
from mooring._core.wire import TICKETED, Event, Notice
from mooring.worker.notices import Notices

FD = 7
TOLD = [
    (Notice(Event.SESSION, FD, b"\x80", extra=1), "sessions.learn", (FD, b"\x80"), {"replace": True}),
    (Notice(Event.ROOM, FD, extra=3), "streams.on_room", (FD, 3), {}),
    (Notice(Event.GONE, FD, extra=3), "streams.on_gone", (FD, 3), {}),
    (Notice(Event.PEER_ENDED, FD, extra=3), "streams.on_peer_ended", (FD, 3), {}),
    (Notice(Event.BODY, FD, b"part", extra=3), "streams.on_part", (FD, 3, b"part"), {}),
    (Notice(Event.FILE, FD, b"\1", extra=3), "streams.on_file", (FD, 3, b"\1"), {}),
    (Notice(Event.WORK, FD, b"name", extra=1), "works.on_cancel", (FD, "name"), {}),
    (Notice(Event.WORK, FD), "works.on_cancel", (FD, None), {}),
    (Notice(Event.TAIL, 0, b"records"), "ends.on_records", (0, b"records"), {}),
    (Notice(Event.FOLLOWED, FD, b"answer", extra=4), "topics.on_followed", (4, b"answer"), {}),
    (Notice(Event.END_STREAMS, 0, extra=1500), "graceful_end.within", (1.5,), {}),
]


def parts() -> tuple[Mock, Notices]:
    told = Mock()
    return told, Notices(told.sessions, told.streams, told.works, told.graceful_end, told.ends, told.topics)


@pytest.mark.parametrize(
    ("notice", "name", "arguments", "named"), TOLD, ids=[one[1] + str(n) for n, one in enumerate(TOLD)]
)
def test_who_is_told(notice: Notice, name: str, arguments: tuple[Any, ...], named: dict[str, Any]):
    told, notices = parts()
    notices.take(GatewayEnd(), notice)
    (call,) = told.mock_calls
    assert (call[0], call.args, call.kwargs) == (name, arguments, named)


def test_a_gateway_that_tells_nothing_more():
    told, notices = parts()
    gateway_end = GatewayEnd()
    notices.take(gateway_end, Notice(Event.DEPART, 0))
    assert gateway_end.departed
    assert not told.mock_calls


def test_all_events_without_a_ticket_are_taken():
    assert {one[0].kind for one in TOLD} | {Event.DEPART} == {event for event in Event if event not in TICKETED}


@pytest.mark.parametrize("kind", [*sorted(TICKETED), 99])
def test_what_takes_a_ticket_is_refused(kind: int):
    told, notices = parts()
    with pytest.raises(BadRecord, match=f"unknown kind {kind}"):
        notices.take(GatewayEnd(), Notice(kind, FD))
    assert not told.mock_calls
