"""Log lines about what is refused: few, short, and safe to look at.

How often something is refused, and what stands in it, is up to strangers. So each kind of line has a share of a second;
how many more there were is said when it is over. Fields are cut, and whatever could begin a line of its own or move a
terminal's cursor is escaped.
"""

import logging
from collections.abc import Callable
from typing import Final

import msgspec

LINES: Final = 9  # of a kind and second, besides the one that counts the rest
FIELD: Final = 1024  # characters


def printable(value: str) -> str:
    """The text, cut and escaped."""
    if len(value) > FIELD:
        value = value[:FIELD] + "..."
    if value.isprintable():
        return value
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    return "".join(escaped)[: FIELD + 3]


class RefusalLog:
    """Lines for `log`; what makes a kind is the message before its values are put in. `call_later(seconds, function)`
    is that of the loop in which it is used."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object], log: logging.Logger) -> None:
        self._call_later = call_later
        self._log = log
        self._counts: dict[str, int] = {}

    def say(self, level: int, message: str, *values: object, error: BaseException | None = None) -> None:
        """One line, or one more of those that are only counted; with the traceback of `error`."""
        if not self._log.isEnabledFor(level):
            return
        if not self._counts:
            self._call_later(1.0, self._next_second)
        count = self._counts[message] = self._counts.get(message, 0) + 1
        if count <= LINES:
            shown = (printable(v) if isinstance(v, str) else v for v in values)
            self._log.log(level, message, *shown, exc_info=error)

    def _next_second(self) -> None:
        counts, self._counts = self._counts, {}
        for message, count in counts.items():
            if count > LINES:
                self._log.warning(
                    "%d more suppressed within a second: %s",
                    count - LINES,
                    message.replace("%s", "...").replace("%d", "..."),
                )


def say_bad(refusals: RefusalLog, whose: str, problem: Exception) -> None:
    """A record of another process that was ignored; the traceback if it is not the record alone that is wrong."""
    error = None if isinstance(problem, ValueError | RecursionError | msgspec.MsgspecError) else problem
    refusals.say(logging.ERROR, "a record of %s makes no sense and is ignored: %s", whose, str(problem), error=error)
