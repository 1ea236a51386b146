"""The log of a server under test: lines as they come, and waiting for one."""

import os
import re
import select
import threading
import time

from mooring.testing.errors import NotInTime, ServerFailed

TAIL = 40  # lines of the log in an error
PIPE = 1 << 20  # bytes; a pipe has no more in it


class Log:
    """Lines, in the order in which they came. They may be added by another thread."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = threading.Condition()
        self.ended = ""
        """Why no further line can come; empty: one can."""

    @property
    def lines(self) -> list[str]:
        """All that have come so far."""
        return self._lines

    def add(self, line: str) -> None:
        """A line has come."""
        with self._more:
            self._lines.append(line)
            self._more.notify_all()

    def end(self, why: str) -> None:
        """No further line comes."""
        with self._more:
            self.ended = why
            self._more.notify_all()

    def mark(self) -> int:
        """The number of the next line."""
        return len(self.lines)

    def wait(self, pattern: str, since: int, limit: float, what: str) -> re.Match[str]:
        """The first line from number `since` on in which the regular expression `pattern` is found.

        Raises NotInTime after `limit` seconds, and ServerFailed when the server has ended meanwhile.
        """
        found: re.Match[str] | None = None
        seen = since
        end = time.monotonic() + limit
        with self._more:
            while True:
                lines = self.lines
                for line in lines[seen:]:
                    found = found or re.search(pattern, line)
                seen = len(lines)
                if found:
                    return found
                if self.ended:
                    raise ServerFailed(f"{what}: {self.ended}{self.tail()}")
                left = end - time.monotonic()
                if left <= 0 or not self._more.wait(left):
                    raise NotInTime(f"{what}: not within {limit:g} s{self.tail()}")

    def tail(self) -> str:
        """The last lines, to stand behind an error."""
        lines = self.lines[-TAIL:]
        if not lines:
            return "\nthe server has logged nothing"
        head = "the server's log" if len(lines) == len(self.lines) else f"the last {TAIL} lines of the server's log"
        return "\n".join([f"\n{head}:", *(f"    {line}" for line in lines)])


class PipeLog(Log):
    """Lines that processes write into a pipe.

    A thread takes them. Whoever looks takes first what is in the pipe: who has an answer of the server finds what was
    logged before it, also when the thread had no turn yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pipe = -1
        self._begun = b""  # a line that has no end yet
        self._over = False

    @property
    def lines(self) -> list[str]:
        """All that were written so far."""
        self._take()
        return self._lines

    def follow(self, pipe: int) -> None:
        """Takes lines until nobody has the other end of the pipe any more; for a thread of its own."""
        self._pipe = pipe
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while not self._over:
            poll.poll()
            self._take()

    def _take(self) -> None:
        with self._more:
            if self._over or self._pipe < 0:
                return
            poll = select.poll()
            poll.register(self._pipe, select.POLLIN)
            if not poll.poll(0):
                return
            part = os.read(self._pipe, PIPE)
            *whole, self._begun = (self._begun + part).split(b"\n")
            if not part:
                self._over = True
                whole = [self._begun] if self._begun else []
            self._lines += [line.decode("utf-8", "replace").rstrip("\r") for line in whole]
            self._more.notify_all()
