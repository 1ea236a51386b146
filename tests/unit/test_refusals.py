"""The log of refusals: few lines of a kind, cut and escaped, and the rest counted."""

import logging

import pytest

from mooring._core.reactor import Reactor
from mooring.net.refusals import FIELD, LINES, RefusalLog, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e4", "plain \u00e4"),
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b", r"\x9b"),
        ("\u2028\u202e", r"\u2028\u202e"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_could_move_a_cursor_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("letter", ["x", "\x1b"])
def test_fields_are_cut(letter: str) -> None:
    assert len(printable(letter * FIELD)) <= FIELD + 3
    assert len(printable(letter * 1_000_000)) == FIELD + 3


def test_a_flood_is_ten_lines(caplog: pytest.LogCaptureFixture) -> None:
    reactor = Reactor()
    refusals = RefusalLog(reactor.call_later, logging.getLogger("test.refusals"))
    with caplog.at_level(logging.INFO, "test.refusals"):
        for n in range(500):
            refusals.say(logging.INFO, "flood %d: %s", n, "a\nb")
        refusals.say(logging.INFO, "another kind")
        reactor.call_later(1.1, reactor.stop)
        reactor.run()
        refusals.say(logging.INFO, "flood %d: %s", 500, "later")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:LINES] == [rf"flood {n}: a\nb" for n in range(LINES)]
    assert lines[LINES:] == ["another kind", "491 more suppressed within a second: flood ...: ...", "flood 500: later"]
