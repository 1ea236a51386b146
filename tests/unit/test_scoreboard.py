"""The scoreboard: reports are read whole or not at all."""

import os

import pytest

from mooring.monitor.scoreboard import COPY, PLACES, TREE_COPY, Place
from support.scoreboards import place, report


def test_what_was_written_last_is_read(scoreboard: int, clock: list[float]):
    here = place(scoreboard)
    assert here.read() is None
    for number in range(5):
        clock[0] += 1
        assert here.write(report(connections=number))
        found = place(scoreboard).read()
        assert found == (report(connections=number), 0.0)
    clock[0] += 7
    found = here.read()
    assert found is not None
    assert found[1] == 7.0
    assert place(scoreboard, 2).read() is None
    assert place(scoreboard, PLACES - 1).read() is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "longer", "empty", "no report"])
def test_a_copy_that_is_not_whole_leaves_the_other(scoreboard: int, clock: list[float], damage: str):
    """As when its writer was killed, or is at it."""
    here = place(scoreboard)
    here.write(report(connections=1))
    clock[0] += 1
    here.write(report(connections=2))
    offset = 2 * TREE_COPY + COPY  # the second half of place 1
    whole = os.pread(scoreboard, COPY, offset)
    head, body = whole[:16], whole[16:]
    hurt = {
        "cut": head + body[:5] + bytes(len(body) - 5),
        "flipped": head + body.replace(b"\xabconnections\x02", b"\xabconnections\x03"),
        "longer": head[:8] + b"\xff\xff\xff\xff" + head[12:] + body,
        "empty": bytes(COPY),
        "no report": whole,
    }[damage]
    if damage == "no report":
        Place(scoreboard, 1, list).write([1])  # which goes into the first half
        clock[0] += 1
        here.write(report(connections=3))
        assert here.read() == (report(connections=3), 0.0)
        return
    os.pwrite(scoreboard, hurt, offset)
    assert here.read() == (report(connections=1), 1.0)


def test_a_file_that_was_cut_is_no_report(scoreboard: int):
    here = place(scoreboard)
    here.write(report(connections=1))
    os.ftruncate(scoreboard, 0)
    assert here.read() is None


def test_a_report_has_a_longest_length(scoreboard: int):
    here = place(scoreboard)
    assert here.write(report(connections=1))
    assert not here.write(report(text="x" * COPY))
    assert here.read() is not None
    with pytest.raises(ValueError, match="no place 1024"):
        place(scoreboard, PLACES)
