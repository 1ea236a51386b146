"""Loggers that the application can't reach, and what their lines look like."""

import json
import logging
import logging.config
import re
import sys

import pytest

from mooring.journal import OwnRecord, own_logger
from mooring.net.lines import JsonLines, TextLines


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def kept():
    """What the log is given, with the level INFO; afterwards everything is as it was."""
    own, handler = own_logger(), Kept()
    before = own.level
    own.addHandler(handler)
    own.setLevel(logging.INFO)
    yield handler.records
    own.removeHandler(handler)
    own.setLevel(before)


def raises(*_, **__):
    raise RuntimeError("on purpose")


def test_names_levels_and_parts(kept):
    own_logger("mooring.test").info("one %s", 1)
    own_logger("mooring.test").debug("no")
    own_logger().error("two")
    assert [record.getMessage() for record in kept] == ["one 1", "two"]
    assert all(type(record) is OwnRecord for record in kept)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda patch: patch.setattr(logging.root.manager, "disable", logging.CRITICAL),
        lambda patch: patch.setattr(logging.getLogger("mooring.test"), "disabled", True),
        lambda patch: patch.setattr(logging.getLogger("mooring.test"), "level", logging.CRITICAL),
        lambda patch: patch.setattr(logging.getLogger("mooring.test"), "filters", [raises]),
        lambda patch: patch.setattr(logging, "_logRecordFactory", raises),
        lambda patch: patch.setattr(logging.Logger, "handle", raises),
        lambda patch: patch.setattr(logging.Logger, "callHandlers", raises),
        lambda patch: patch.setattr(logging.Logger, "makeRecord", raises),
        lambda patch: patch.setattr(logging.root, "handlers", []),
        lambda patch: patch.setattr(logging.root.manager, "loggerDict", {}),
        lambda patch: patch.setattr(Kept, "filter", raises) if False else None,
    ],
)
def test_nothing_that_is_done_to_loggers_keeps_a_line_away(kept, monkeypatch, spoil):
    own_logger("mooring.test").isEnabledFor(logging.ERROR)  # answers are kept
    with monkeypatch.context() as patch:
        spoil(patch)
        own_logger("mooring.test").error("here")
    assert [record.getMessage() for record in kept] == ["here"]


def test_who_wants_the_lines_elsewhere_gets_them_too(kept):
    """At the public logger of the same name, by its level; a handler that raises does no harm."""
    public, theirs = logging.getLogger("mooring.test"), Kept()
    broken = Kept()
    broken.emit = raises
    public.addHandler(theirs)
    public.addHandler(broken)
    try:
        own_logger("mooring.test").warning("both")
        public.setLevel(logging.DEBUG)
        own_logger("mooring.test").debug("theirs")
    finally:
        public.removeHandler(theirs)
        public.removeHandler(broken)
        public.setLevel(logging.NOTSET)
    assert [record.getMessage() for record in kept] == ["both"]
    assert [record.getMessage() for record in theirs.records] == ["both", "theirs"]


# ---------------------------------------------------------------------------------------------- lines


class Bad:
    """An object without a text."""

    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error

    __repr__ = __str__


class BadError(Exception):
    def __str__(self):
        raise ValueError("no text")


def record(msg="hello %s", args=("you",), kind=OwnRecord, **more):
    made = kind("mooring.worker", logging.ERROR, __file__, 7, msg, args, None)
    vars(made).update(more)
    return made


def error_info(error):
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def test_lines_for_people():
    line = TextLines("worker 0").line(record(exc_info=error_info(ValueError("wrong"))))
    first, *others = line.split("\n")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ERROR   \[worker 0, \d+\] hello you", first)
    assert others[0] == "Traceback (most recent call last):"
    assert others[-1] == "ValueError: wrong"


def test_lines_of_the_application_name_their_logger():
    assert TextLines("worker 0").line(record(kind=logging.LogRecord)).endswith("] mooring.worker: hello you")


def test_lines_for_programs():
    line = JsonLines("worker 0").line(
        record(
            "a\nb\x00\ud800 %s",
            error_id="12ab",
            exc_info=error_info(ValueError("wrong")),
            size=1 << 70,
            odd=Bad(TypeError()),
        )
    )
    assert "\n" not in line
    found = json.loads(line.encode())  # UTF-8
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", found.pop("time"))
    assert found.pop("pid") > 0
    assert found.pop("exception").endswith("ValueError: wrong")
    assert found == {
        "level": "ERROR",
        "process": "worker 0",
        "logger": "mooring.worker",
        "message": "a\nb\x00\\ud800 you",
        "error_id": "12ab",
        "size": str(1 << 70),
        "odd": "a Bad",
    }


@pytest.mark.parametrize("form", [TextLines, JsonLines])
@pytest.mark.parametrize("error", [ValueError(), RecursionError(), KeyboardInterrupt(), SystemExit(), BadError()])
def test_values_without_a_text_cost_no_line(form, error):
    line = form("worker 0").line(record("error %s: %s failed", ("12ab", Bad(error)), exc_info=error_info(BadError())))
    assert "error %s: %s failed [its values can't be shown: " in line
    assert "BadError" in line
    assert "test_journal.py" in line


def test_a_traceback_of_an_error_without_a_text():
    line = TextLines("worker 0").line(record(exc_info=error_info(BadError())))
    assert "hello you" in line
    assert "BadError" in line


def test_a_line_about_the_log_itself():
    assert TextLines("x").note("3 log lines were dropped") == "3 log lines were dropped"
    assert json.loads(JsonLines("x").note("3 % were dropped"))["message"] == "3 % were dropped"
