"""The judge of nothing_lost.py: what was sent and heard, and whether that is right. No clock, no socket."""

import re
import struct
import zlib
from collections.abc import Iterable

SENT, ANSWERED, UNCERTAIN, INDETERMINATE, QUARANTINED = 1, 2, 4, 8, 16
ATTEMPTS = 3  # workers that may end over one message
NOTE = struct.Struct("<IIII")  # as nothing_lost_app.py writes it
BEGUN, ENDED = 1, 2
FAULTS = (
    "silently_lost",
    "duplicated",
    "reordered",
    "corrupted",
    "cross_talk",
    "phantom",
    "disconnected",
    "stuck",
    "handled_twice",
    "begun_and_not_reported",
    "counts_wrong",
    "uncertain_too_many",
    "ended_by_themselves",
    "unreachable",
    "server_errors",
)


def seal(client: int, number: int, padding: str) -> str:
    """A message: checksum, client, number, padding."""
    body = f"{client}:{number}:{padding}"
    return f"{zlib.crc32(body.encode()):08x}:{body}"


class History:
    """What one client has sent and heard; judged as it comes."""

    def __init__(self, client: int, faults: dict[str, int], redeliver: bool = False) -> None:
        self.client = client
        self.faults = faults
        self.redeliver = redeliver  # then a message may be answered again
        self.repeated = 0
        self.fates = bytearray()  # number of the message -> SENT | ANSWERED | ...
        self.answered_and_uncertain = 0
        self.open = 0  # messages without a fate
        self._last = -1

    def send(self, padding: str = "") -> str:
        """The next message."""
        self.fates.append(SENT)
        self.open += 1
        return seal(self.client, len(self.fates) - 1, padding)

    def hear(self, text: str) -> int:
        """An answer ("E message") or report ("U message", "Q message"); its number, -1 if it is none of ours."""
        fate = {"E ": ANSWERED, "U ": UNCERTAIN, "Q ": QUARANTINED}.get(text[:2])
        crc, _, body = text[2:].partition(":")
        client, _, rest = body.partition(":")
        number = rest.partition(":")[0]
        if fate is None or crc != f"{zlib.crc32(body.encode()):08x}" or not (client.isdigit() and number.isdigit()):
            return self._fault("corrupted")
        if int(client) != self.client:
            return self._fault("cross_talk")
        at = int(number)
        if at >= len(self.fates):
            return self._fault("phantom")
        before = self.fates[at]
        if before & fate & ANSWERED:  # a second report of the same is no fault: it says what is true
            self.repeated += 1
            if not self.redeliver:
                self._fault("duplicated")
        elif at < self._last:
            self._fault("reordered")
        self._last = max(self._last, at)
        self.fates[at] |= fate
        if before == SENT:
            self.open -= 1
        elif (before | fate) & (ANSWERED | UNCERTAIN) == ANSWERED | UNCERTAIN and before & fate == 0:
            self.answered_and_uncertain += 1
        return at

    def cut(self) -> None:
        """The connection ended where that was to be expected: what had no fate may have happened or not."""
        for number in self.missing():
            self.fates[number] |= INDETERMINATE
        self.open = 0

    def missing(self) -> list[int]:
        return [number for number, fate in enumerate(self.fates) if fate == SENT]

    def count(self, fate: int) -> int:
        return sum(1 for one in self.fates if one & fate)

    def _fault(self, name: str) -> int:
        self.faults[name] += 1
        return -1


def judge(histories: Iterable[History], faults: dict[str, int]) -> dict[str, int]:
    """What is missing is lost; the totals."""
    names = ("sent", "answered", "uncertain", "quarantined", "indeterminate", "answered_and_uncertain", "repeated")
    totals = dict.fromkeys(names, 0)
    for history in histories:
        faults["silently_lost"] += len(history.missing())
        totals["sent"] += len(history.fates)
        totals["answered"] += history.count(ANSWERED)
        totals["uncertain"] += history.count(UNCERTAIN)
        totals["quarantined"] += history.count(QUARANTINED)
        totals["repeated"] += history.repeated
        totals["indeterminate"] += history.count(INDETERMINATE)
        totals["answered_and_uncertain"] += history.answered_and_uncertain
    return totals


def judge_notes(notes: Iterable[bytes], histories: list[History], faults: dict[str, int]) -> int:
    """The handlers' own notes; how many have begun."""
    begun = [bytearray(len(history.fates)) for history in histories]
    ended = [bytearray(len(history.fates)) for history in histories]
    total = 0
    for file in notes:
        for _, client, number, what in NOTE.iter_unpack(file[: len(file) // NOTE.size * NOTE.size]):
            if client >= len(histories) or number >= len(begun[client]):
                faults["phantom"] += 1
            elif what == BEGUN:
                total += 1
                begun[client][number] = min(begun[client][number] + 1, 255)
            else:
                ended[client][number] = 1
    for history, starts, ends in zip(histories, begun, ended, strict=True):
        for fate, start, end in zip(history.fates, starts, ends, strict=True):
            faults["handled_twice"] += start > (ATTEMPTS if history.redeliver else 1)
            reported = fate & (UNCERTAIN | QUARANTINED | INDETERMINATE)
            faults["begun_and_not_reported"] += start > 0 == end and not reported
    return total


def adds_up(counts: dict[str, int]) -> bool:
    """The identity that holds at every moment."""
    parts = ("finished", "uncertain", "dropped", "in_flight")
    return counts["accepted"] == sum(counts.get(part, 0) for part in parts)


def tracebacks(log: str, but_of: str) -> list[str]:
    """Those in a log in which a module does not stand whose errors are wanted."""
    parts = re.split(r"Traceback \(most recent call last\)", log)[1:]
    return [part for part in parts if but_of not in re.split(r"^\d{4}-\d\d-\d\d ", part, maxsplit=1, flags=re.M)[0]]


def ended_by_themselves(log: str) -> int:
    """Processes that have ended, and nobody killed them or told them to."""
    return len(re.findall(r"\(pid \d+\) (?:ended with exit code|was ended by (?!SIGKILL))", log))
