"""The log of a server under test: lines as they come, and waiting for one."""

import re
import threading
import time

from mooring.testing.errors import NotInTime, ServerFailed

TAIL = 40  # lines of the log in an error


class Log:
    """Lines, in the order in which they came. They may be added by another thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()
        self.ended = ""
        """Why no further line can come; empty: one can."""

    def add(self, line: str) -> None:
        """A line has come."""
        with self._more:
            self.lines.append(line)
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
                for line in self.lines[seen:]:
                    found = found or re.search(pattern, line)
                seen = len(self.lines)
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
