"""What a log line looks like: for people, or one JSON object each (RFC 8259) for programs.

    2026-11-30 01:45:36,120 ERROR   [worker 0, 4711] error 1f2e3d4c: the 'message' handler failed on connection 5
    {"time":"2026-11-30T01:45:36.120+00:00","level":"ERROR","process":"worker 0","pid":4711,"logger":"mooring.worker",
     "message":"error 1f2e3d4c: ...","error_id":"1f2e3d4c","exception":"Traceback ..."}

Lines of the application have the name of their logger before the message. Nothing that is logged can keep a line from
being written: if its values have no text, it says so.
"""

import logging
import traceback
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from mooring.journal import OwnRecord

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


class TextLines(logging.Formatter):
    """For people."""

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self.process = process

    def line(self, record: logging.LogRecord) -> str:
        """The whole line, without its end."""
        try:
            text = self.format(record)
        except BaseException as problem:  # of a text method of whatever is logged, which may raise anything
            if not isinstance(problem, Exception) and not isinstance(record, OwnRecord):
                raise
            text = self.format(_told(record, problem))
        return text

    def format(self, record: logging.LogRecord) -> str:
        record.asctime = self.formatTime(record)
        name = "" if isinstance(record, OwnRecord) else f"{record.name}: "
        level, process = record.levelname, f"[{self.process}, {record.process}]"
        text = f"{record.asctime} {level:<7} {process} {name}{record.getMessage()}"
        for more in _further(self, record):
            text = f"{text}\n{more}"
        return text

    def note(self, text: str) -> str:
        """A line about the log itself."""
        return text


class JsonLines(TextLines):
    """For programs."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone()
        values: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self.process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():  # what `extra` has brought
            if name not in _STANDARD and name not in values:
                values[name] = value
        further = "\n".join(_further(self, record))
        if further:
            values["exception"] = further
        return _encoded(values)

    def note(self, text: str) -> str:
        record = OwnRecord("mooring", logging.WARNING, "", 0, "%s", (text,), None)
        return self.format(record)


def _encoded(values: dict[str, Any]) -> str:
    try:
        text = msgspec.json.encode(values, enc_hook=str)
    except Exception:  # lone surrogates, or what has no text
        text = msgspec.json.encode({_clean(name): _clean(value) for name, value in values.items()})
    return text.decode()


def _clean(value: object) -> object:
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    text = f"a {type(value).__name__}"
    with suppress(Exception):
        text = str(value)
    return text.encode("utf-8", "backslashreplace").decode()


def _further(form: logging.Formatter, record: logging.LogRecord) -> list[str]:
    """Traceback and stack, if there are any."""
    if record.exc_info and not record.exc_text:
        record.exc_text = form.formatException(record.exc_info)
    stack = form.formatStack(record.stack_info) if record.stack_info else ""
    return [text for text in (record.exc_text, stack) if text]


def _told(record: logging.LogRecord, problem: BaseException) -> logging.LogRecord:
    """What can be said of a record whose values raise when their text is asked for."""
    template = record.msg if isinstance(record.msg, str) else f"a {type(record.msg).__name__}"
    where = f"{record.pathname}:{record.lineno}"
    text = f"{template} [its values can't be shown: {type(problem).__name__}, {where}]"
    told = type(record)(record.name, record.levelno, record.pathname, record.lineno, "%s", (text,), None)
    told.created, told.msecs = record.created, record.msecs
    kind, _, trace = record.exc_info or (None, None, None)
    if kind is not None:
        told.exc_text = "".join([*traceback.format_tb(trace), kind.__name__])
    return told
