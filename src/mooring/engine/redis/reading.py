"""Questions for parts of histories, and what the server's answers mean."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mooring.engine.history import Kept, Since
from mooring.engine.redis.connections import Pair
from mooring.engine.redis.options import Options
from mooring.engine.redis.packing import Names, unpack
from mooring.engine.redis.scripts import READ
from mooring.types import Position, Verdict

__all__ = ["Found", "Numbered", "Question", "ask"]


class Question(NamedTuple):
    """For what is behind a position, or behind the end without one."""

    topic: str
    position: Position | None
    most: int  # publications
    most_bytes: int  # as History.since has it
    begins: bool = False  # wants to know who has published of late, as it has heard nothing yet


class Numbered(NamedTuple):
    """A publication as it is kept, and who has published it."""

    kept: Kept
    publisher: str
    number: int
    exclude: bytes


class Found(NamedTuple):
    """The answer: of one moment, if it was asked together with others."""

    verdict: Verdict
    begin: Position  # as in Since
    publications: Sequence[Numbered]  # in order
    end: Position  # of the newest there is
    latest: dict[str, int]  # if it begins: the number of each publisher's last one at or before `begin`, of late
    why: str = ""  # there is no answer

    @property
    def until(self) -> Position:
        """Behind the publications that are here."""
        return Position(self.end.epoch, self.publications[-1].kept.offset) if self.publications else self.begin

    def since(self) -> Since:
        return Since(self.verdict, self.begin, [one.kept for one in self.publications], self.end)


NOWHERE = Position("", 0)


async def ask(pair: Pair, names: Names, options: Options, fresh: str, questions: Sequence[Question]) -> list[Found]:
    """All at one moment. `fresh` is a name that nothing else has. Raises ResponseError and Lost."""
    keys: list[bytes] = [names.facts]
    arguments: list[bytes | str | int] = [fresh, int(options.idle * 1000), int(options.keep * 1000)]
    for one in questions:
        topic = names.topic(one.topic)
        keys += (topic.facts, topic.stream)
        epoch, offset = one.position or NOWHERE
        kind = "from" if one.position is not None else "begin" if one.begins else "end"
        arguments += (kind, epoch, offset, one.most, one.most_bytes)
    answers = await pair.script(READ, keys, arguments)
    return [_found(question, answer) for question, answer in zip(questions, answers, strict=True)]


def _found(question: Question, answer: list[Any]) -> Found:
    if len(answer) == 1:
        return Found(Verdict.UNKNOWN_EPOCH, NOWHERE, (), NOWHERE, {}, answer[0].decode())
    verdict, at, epoch, top, entries, latest = answer
    end, begin = Position(epoch.decode(), int(top)), int(at)
    # the newest first, so the first one of a publisher is its highest
    seen = dict(zip((one.decode() for one in latest[-2::-2]), map(int, latest[::-2]), strict=True))
    publications = [one for one in _contiguous(entries, end.offset) if one.kept.offset > begin]
    if publications and publications[0].kept.offset != begin + 1:
        verdict, begin = max(verdict, Verdict.TRIMMED), publications[0].kept.offset - 1
    size = 0
    for i, one in enumerate(publications):
        if i == question.most or size >= question.most_bytes:
            del publications[i:]
            break
        size += len(one.kept.data)
    return Found(Verdict(verdict), Position(end.epoch, begin), publications, end, seen)


def _contiguous(entries: list[Any], top: int) -> Iterator[Numbered]:
    """What they hold, from the last hole on, and nothing above the top. We cut a stream at its head alone; what is
    missing elsewhere somebody else has taken away."""
    found: list[Numbered] = []
    for key, fields in entries:
        last = int(key.partition(b"-")[0])
        if last > top:
            break
        try:
            packed = unpack(fields[9])
            at = int(fields[7]) / 1000  # as append.lua writes them
        except (ValueError, IndexError):  # somebody else's
            found.clear()
            continue
        offset = last - len(packed.publications)
        if found and found[-1].kept.offset != offset:
            found.clear()
        for number, (form, opcode, data, exclude) in enumerate(packed.publications, packed.first):
            offset += 1
            found.append(Numbered(Kept(offset, form, opcode, data, at), packed.publisher, number, exclude))
    yield from found
