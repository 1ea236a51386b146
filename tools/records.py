"""Makes what follows from the table of records, src/mooring/_core/wire.toml: `python tools/records.py [ROOT]`.

    _core/wire_kinds.pxi       constants, enums and predicates in C, a part of wire.pxd
    _core/wire_names.pxi       the enums that Python knows, a part of wire.pyx
    _core/wire.pyi             their stub
    _core/commands_table.pxi      which function applies which command
    docs/records.md            the page of the manual

tools/build.py runs it before it compiles. A file that is as it should be is not written. What the table must not say is
told in one line, and the exit code is 1.
"""

import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MADE = "Made by tools/records.py from wire.toml: change that, and build again."
WIDTH = 120  # of a line, where one is broken
FIELDS = ("opcode", "arg", "ticket", "extra", "fd", "payload")


@dataclass(frozen=True)
class Way:
    """One direction: its name in the table, and what the names of its kinds have in front in C."""

    name: str
    prefix: str
    first: int
    limit: int
    enum: str
    text: str
    marks: tuple[str, ...] = ()
    addressed: bool = False  # a row says who takes it, by its marks


WAYS = (
    Way(
        "events",
        "EV",
        1,
        32,
        "Event",
        "Kinds of the records that go up to a worker.",
        ("ticket", "counted", "asks", "again", "last", "report"),
    ),
    Way("commands", "CM", 32, 64, "Command", "Kinds of the records that go down to a gateway.", ("rare",)),
    Way(
        "mail",
        "DM",
        64,
        96,
        "Mail",
        "Kinds of the records between a service (the dispatcher, the engine) and a process.",
        ("to dispatcher", "to worker", "to engine", "from engine"),
        addressed=True,
    ),
)
#: The predicates of an event's kind, by what a row says that it `is`.
PREDICATES = (
    ("takes_ticket", "ticket", "which events wait for an ACK"),
    ("is_counted", "counted", "which are counted"),
    ("is_asking", "asks", "whose client waits for an answer, and can be told to come again"),
    ("is_repeatable", "again", "which may be handled again"),
    ("is_last", "last", "which tell the end of a connection"),
    ("is_report", "report", "which tell of another event"),
)


@dataclass(frozen=True)
class Row:
    """One record."""

    way: Way
    name: str
    number: int
    text: str
    marks: tuple[str, ...]
    means: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return f"{self.way.prefix}_{self.name}"


@dataclass(frozen=True)
class Values:
    """What a field can be."""

    name: str
    python: str
    flags: bool
    text: str
    members: dict[str, str]

    def numbered(self) -> Iterator[tuple[str, int]]:
        for place, name in enumerate(self.members):
            yield name, 1 << place if self.flags else place


@dataclass(frozen=True)
class Table:
    """All of it."""

    version: int
    constants: dict[str, tuple[int, str]]
    values: list[Values]
    rows: list[Row]

    def known(self) -> dict[str, tuple[int, str]]:
        """The constants that Python has, too."""
        return {name: one for name, one in self.constants.items() if one[0] <= 0x7FFFFFFF}

    def of(self, way: Way) -> list[Row]:
        return [row for row in self.rows if row.way == way]

    def marked(self, mark: str) -> list[Row]:
        return [row for row in self.rows if mark in row.marks]


def read(file: Path) -> Table:
    """Raises ValueError for what the table must not say."""
    told = tomllib.loads(file.read_text())
    rows = [
        _row(way, way.first + place, name, dict(said))
        for way in WAYS
        for place, (name, said) in enumerate(told[way.name].items())
    ]
    for row in rows:
        if row.number >= row.way.limit:
            raise ValueError(f"{row.way.name} are numbered below {row.way.limit}: there is no number for {row.name}")
    values = [_values(name, dict(said)) for name, said in told["values"].items()]
    return Table(told["version"], {key: tuple(one) for key, one in told["constants"].items()}, values, rows)


def _row(way: Way, number: int, name: str, said: dict[str, Any]) -> Row:
    marks, text = tuple(said.pop("is", ())), said.pop("text", "")
    unknown = [*(set(marks) - set(way.marks)), *(set(said) - set(FIELDS))]
    if unknown or not text:
        raise ValueError(f"{way.name}.{name}: " + (f"what is {unknown[0]!r}?" if unknown else "it has no text"))
    if way.addressed and not marks:
        raise ValueError(f"{way.name}.{name}: nobody takes it")
    return Row(way, name, number, text, marks, said)


def _values(name: str, said: dict[str, Any]) -> Values:
    python, flags, text = said.pop("python", ""), said.pop("flags", False), said.pop("text")
    return Values(name, python, flags, text, said)


# ---------------------------------------------------------------------- C


def kinds(table: Table) -> str:
    lines = [f"# {MADE}", "", "cpdef enum:", f"    VERSION = {table.version}"]
    lines += [f"    {name} = {value}".ljust(36) + f"# {text}" for name, (value, text) in table.known().items()]
    lines += ["", "", "cdef enum:"]  # as an object it would be -1
    for name in table.constants.keys() - table.known():
        value, text = table.constants[name]
        lines.append(f"    {name} = {value:#x}".ljust(36) + f"# {text}")
    lines += ["", "", "cdef enum Kind:"]
    for way in WAYS:
        lines += [f"    {row.kind} = {row.number}" for row in table.of(way)]
        lines.append(f"    {way.prefix}_END".ljust(36) + "# behind the last one")
    for values in table.values:
        lines += ["", "", "cdef enum:", f"    # {values.text}"]
        lines += [f"    {values.name}_{name} = {number}" for name, number in values.numbered()]
    lines += ["", "", "# whether a head can be one of an event, a command, a mail: if not, what follows is none either"]
    for way, predicate in zip(WAYS, ("is_event", "is_command", "is_mail"), strict=True):
        first = table.of(way)[0].kind
        empty = [row.kind for row in table.of(way) if "payload" not in row.means]
        lines += [f"cdef inline bint {predicate}(const Record* record) noexcept:"]
        lines += [f"    return {first} <= record.kind < {way.prefix}_END and (record.size == 0 or record.kind not in ("]
        lines += [*_filled(empty, 8), "    ))", "", ""]
    for predicate, mark, text in PREDICATES:
        lines += [f"# {text}", f"cdef inline bint {predicate}(int kind) noexcept:", "    return kind in ("]
        lines += [*_filled([row.kind for row in table.marked(mark)], 8), "    )", "", ""]
    return "\n".join(lines).rstrip() + "\n"


def _filled(words: list[str], indent: int) -> list[str]:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) + indent + 2 > WIDTH:
            lines.append("")
        lines[-1] += f"{word}, "
    return [" " * indent + line.rstrip() for line in lines]


def dispatch(table: Table) -> str:
    rows = table.of(WAYS[1])
    lines = [f"# {MADE}", "", "from mooring._core cimport wire", ""]
    lines.append("cdef Apply[wire.CM_END - wire.CM_HELLO] TABLE")
    for row in rows:
        function = "rare" if "rare" in row.marks else f"on_{row.name.lower()}"
        lines.append(f"TABLE[wire.{row.kind} - wire.CM_HELLO] = {function}")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------- Python


def _enums(table: Table, member: Callable[[str, int], str]) -> list[str]:
    """The enums, each member as `member(name in C, number)` says."""
    lines = []
    for way in WAYS:
        lines += ["", "", f"class {way.enum}(IntEnum):", f'    """{way.text}"""', ""]
        lines += [f"    {row.name} = {member(row.kind, row.number)}" for row in table.of(way)]
    for values in table.values:
        if values.python:
            # an IntFlag would make an object of every combination
            lines += ["", "", f"class {values.python}(IntEnum):", f'    """{_sentence(values.text)}"""', ""]
            lines += [f"    {name} = {member(f'{values.name}_{name}', number)}" for name, number in values.numbered()]
    return lines


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


SETS = (
    ("TICKETED", "Event", "ticket", "whose handlers are waited for"),
    ("RARE", "Command", "rare", "that a Gateway applies"),
    ("TO_DISPATCHER", "Mail", "to dispatcher", "that a worker or task worker sends"),
    ("TO_WORKER", "Mail", "to worker", "that the dispatcher sends"),
    ("TO_ENGINE", "Mail", "to engine", "that workers and gateways send to the engine"),
    ("FROM_ENGINE", "Mail", "from engine", "that the engine sends"),
)


def names(table: Table) -> str:
    lines = [f'"""{MADE}"""', "", "from enum import IntEnum"]
    lines += _enums(table, lambda name, _number: name)
    lines += ["", ""]
    for name, enum, mark, text in SETS:
        members = _filled([f"{enum}.{row.name}" for row in table.marked(mark)], 4)
        lines += [f"#: {text}", f"{name} = frozenset([", *members, "])"]
    return "\n".join(lines) + "\n"


def stub(table: Table) -> str:
    lines = [
        "# " + MADE,
        "from enum import IntEnum",
        "from typing import Final",
        "",
        "from typing_extensions import disjoint_base",
        "",
    ]
    known = {"VERSION": table.version, **{name: value for name, (value, _) in table.known().items()}}
    lines += [f"{name}: Final = {value}" for name, value in known.items()]
    lines += ["RECORD_MARK: bytes", "USER: bytes", *(f"{name}: frozenset[{enum}]" for name, enum, _, _ in SETS)]
    body = _enums(table, lambda _name, number: str(number))
    for line in body:
        if line.startswith("class"):
            lines += ["", line]
        elif line and not line.startswith('    """'):
            lines.append(line)
    return "\n".join(lines) + "\n" + NOTICE


NOTICE = """
@disjoint_base
class Notice:
    payload: bytes
    def __init__(
        self, kind: int, fd: int, payload: bytes = b"", *, opcode: int = 0, arg: int = 0, extra: int = 0
    ) -> None: ...
""" + "".join(
    f"    @property\n    def {name}(self) -> int: ...\n"
    for name in ("kind", "opcode", "arg", "ticket", "extra", "listener", "fd", "number")
)

# ---------------------------------------------------------------------- the manual

PAGE = """# Records between processes

<!-- {made} -->

A gateway and a worker in two processes talk over a channel: a Unix stream socket pair that carries records. Each record
is a head of {head} bytes and a payload. This page is for those who change mooring, or look at a channel in a debugger;
an application needs none of it. [Architecture](architecture.md) says what the processes are for. The version of these
records is {version}: both ends compare it in `HELLO`, and a worker of another version is not used.

| field | bytes | |
|---|---|---|
| size | 4 | of the payload |
| kind | 1 | see the tables below |
| opcode | 1 | |
| arg | 2 | |
| ticket | 4 | of the gateway's ledger, or `0xFFFFFFFF`: nothing waits for an acknowledgement |
| extra | 4 | |
| fd | 8 | the connection, where nothing else is said |

Numbers are in the byte order of the machine, because both ends run on it.
"""
HEADINGS = {
    "events": """## Events: from a gateway to a worker

Of an event on a ticket `extra` has the index of the listener that the connection came from, and from bit 16 on the
number of workers that have ended while its handler ran.""",
    "commands": """## Commands: from a worker to a gateway

A gateway applies the commands of one worker in the order in which they were given.""",
    "mail": """## Mail: between a service and processes

Tasks and messages between workers have a channel of their own, to the dispatcher; topics with a history have one to the
engine.""",
}


def page(table: Table) -> str:
    text = PAGE.format(made=MADE, head=table.constants["RECORD_BYTES"][0], version=table.version)
    for way in WAYS:
        third = "to" if way.addressed else "ticket"
        text += f"\n{HEADINGS[way.name]}\n\n| kind | | {third} | what | fields |\n|---|---|---|---|---|\n"
        for row in table.of(way):
            means = "; ".join(f"*{name}*: {said}" for name, said in row.means.items())
            ticket = "yes" if "ticket" in row.marks else ""
            said = ", ".join(mark.removeprefix("to ") for mark in row.marks) if way.addressed else ticket
            text += f"| {row.number} | `{row.name}` | {said} | {row.text} | {means} |\n"
    text += "\n## Values\n\n| field | value | | |\n|---|---|---|---|\n"
    for values in table.values:
        for name, number in values.numbered():
            text += f"| {values.text} | {number} | `{values.name}_{name}` | {values.members[name]} |\n"
    return text


MAKES: dict[str, Callable[[Table], str]] = {
    "src/mooring/_core/wire_kinds.pxi": kinds,
    "src/mooring/_core/wire_names.pxi": names,
    "src/mooring/_core/wire.pyi": stub,
    "src/mooring/_core/commands_table.pxi": dispatch,
    "docs/records.md": page,
}


def main(root: Path) -> int:
    try:
        table = read(root / "src/mooring/_core/wire.toml")
    except (KeyError, ValueError) as problem:
        print(f"wire.toml: {problem}", file=sys.stderr)
        return 1
    for name, make in MAKES.items():
        file, text = root / name, make(table)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]))
