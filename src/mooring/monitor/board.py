"""All reports together: what there is to be seen of a server at one moment.

A process is told from others by its role and number, which its successor has as well; during a reload two have the
same. So theirs are added up, and what processes counted that are gone is kept: a counter never falls while this reader
lives. What one has counted between its last report and its end is lost, a second's worth if it was killed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from mooring.counters import ROWS, Adds, Kind
from mooring.monitor import kernel
from mooring.monitor.scoreboard import TREE, Place, Report, Seen, TreeReport
from mooring.roles import shown

STILL = 5.0  # seconds without a report from which on a process stands still
SERVES = ("serving", "warm")
AT_WORK = ("serving", "retiring", "draining")  # states in which a process reports
PROPORTIONAL_EACH = 10.0  # seconds; it is not cheap

Key = tuple[str, int]  # role and number
Timings = dict[str, dict[str, list[int]]]


@dataclass
class Process:
    """Those of one role and number, at one moment."""

    role: str
    number: int
    counts: dict[str, Any] = field(default_factory=dict)
    timings: Timings = field(default_factory=dict)
    missing: bool = False  # it should report, and does not

    def __str__(self) -> str:
        return shown(self.role, self.number)

    def add(self, counts: dict[str, Any], timings: Timings, *, only_counted: bool = False) -> None:
        """Adds a report; `only_counted`: of one that is gone, of which gauges say nothing any more."""
        for name, value in counts.items():
            row = ROWS.get(name)
            if row is None or (only_counted and row.kind is Kind.GAUGE):
                continue
            self.counts[name] = value if name not in self.counts else _sum(row.kind, row.adds, self.counts[name], value)
        for name, by_label in timings.items():
            mine = self.timings.setdefault(name, {})
            for label, numbers in by_label.items():
                mine[label] = [a + b for a, b in zip(mine.get(label, [0] * len(numbers)), numbers, strict=True)]


def _sum(kind: Kind, adds: Adds, one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
    return one + other if kind is Kind.COUNTER or adds is Adds.SUM else max(one, other)


@dataclass
class Snapshot:
    """A server at one moment. `tree` is None before the supervisor has written anything; `age`: seconds since it
    has."""

    tree: TreeReport | None
    age: float
    processes: list[Process]

    def missing(self, *roles: str) -> list[Process]:
        """Those of these roles, or of any, that stand still or are not there."""
        return [one for one in self.processes if one.missing and (not roles or one.role in roles)]


class Board:
    """Reads the scoreboard `file`, which stays the caller's. Somebody has to look each second, see above."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._tree: Place[TreeReport] = Place(file, TREE, TreeReport)
        self._places: dict[int, Place[Report]] = {}
        self._last: dict[tuple[int, int], tuple[Key, Report]] = {}  # by place and pid
        self._ended: dict[Key, Process] = {}  # what those have counted that are gone
        self._proportional: dict[int, tuple[float, int]] = {}  # pid -> when, bytes

    def look(self) -> Snapshot:
        """Reads everything."""
        found = self._tree.read()
        if found is None:
            return Snapshot(None, 0.0, [])
        tree, age = found
        self._bury(tree)
        processes: dict[Key, Process] = {}
        for seen in tree.processes:
            key = seen.role, seen.number
            if key not in processes:
                processes[key] = Process(*key)
            self._add(processes[key], seen, age)
        for key, ended in self._ended.items():
            if key not in processes:  # between two of them
                processes[key] = Process(*key)
            processes[key].add(ended.counts, ended.timings, only_counted=True)
        if tree.processes:
            first = tree.processes[0]  # the supervisor, or the only one
            processes[first.role, first.number].add(tree.state, {})
        return Snapshot(tree, age, list(processes.values()))

    def _read(self, place: int, pid: int) -> tuple[Report, float] | None:
        """What that process has reported there."""
        if place <= TREE:
            return None
        if place not in self._places:
            self._places[place] = Place(self._file, place, Report)
        found = self._places[place].read()
        return found if found is not None and found[0].pid == pid else None

    def _bury(self, tree: TreeReport) -> None:
        """Keeps what those have counted who are not there any more."""
        there = {(seen.place, seen.pid) for seen in tree.processes}
        for at in [at for at in self._last if at not in there]:
            key, report = self._last.pop(at)
            last = self._read(*at)  # its last words, if nobody has its place yet
            if last is not None:
                report = Report(report.pid, report.counts | last[0].counts, last[0].timings)
            self._ended.setdefault(key, Process(*key)).add(report.counts, report.timings, only_counted=True)
            self._proportional.pop(at[1], None)

    def _add(self, process: Process, seen: Seen, tree_age: float) -> None:
        own: dict[str, Any] = {"process_uptime": seen.uptime}
        if "process_restarts" not in process.counts:  # else there are two of one slot
            own["process_restarts"] = seen.restarts
        told = self._read(seen.place, seen.pid)
        expected = seen.state in AT_WORK
        age = tree_age if seen.place == TREE else STILL if told is None else told[1]
        late = expected and age >= STILL
        process.missing |= late
        own["process_up"] = int(seen.state in SERVES and not late)
        if expected and (told is not None or seen.place == TREE):
            own["process_report_age"] = age
        last = self._last.get((seen.place, seen.pid))
        cpu = kernel.cpu_seconds(seen.pid)
        if cpu is None and last is not None:  # it has ended, which the supervisor is about to write
            cpu = last[1].counts.get("process_cpu")
        for name, value in (
            ("process_cpu", cpu),
            ("process_memory", kernel.resident_bytes(seen.pid)),
            ("process_proportional_memory", self._proportional_of(seen.pid)),
        ):
            if value is not None:
                own[name] = value
        report = Report(seen.pid, {}, {}) if told is None else told[0]  # it may end before it reports
        counts = report.counts | {name: own[name] for name in ("process_cpu",) if name in own}
        self._last[seen.place, seen.pid] = (seen.role, seen.number), Report(seen.pid, counts, report.timings)
        process.add(report.counts, report.timings)
        process.add(own, {})

    def _proportional_of(self, pid: int) -> int | None:
        now = time.monotonic()
        when, known = self._proportional.get(pid, (-PROPORTIONAL_EACH, 0))
        if now - when >= PROPORTIONAL_EACH:
            measured = kernel.proportional_bytes(pid)
            if measured is None:
                return None
            known = measured
            self._proportional[pid] = now, known
        return known
