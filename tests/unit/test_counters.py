"""The table of counters: what is made of it is up to date, and it adds up as it says."""

import re

import pytest

from mooring import counters
from mooring._core.reactor import Reactor
from mooring.counters import Adds, Kind, Part, Row
from mooring.dispatcher.dispatcher import Dispatcher
from mooring.supervisor.bulletin import alone
from support.tools import load


def test_what_is_written_from_it_is_up_to_date():
    tool = load("counters")
    table = tool.table()
    assert tool.STRUCT.read_text() == tool.struct(table), "run tools/counters.py"
    assert tool.PAGE.read_text() == tool.page(table), "run tools/counters.py"
    missing = [row.name for row in table.TABLE if f"| `{row.name}` |" not in tool.page(table)]
    assert not missing, "add their part to PARTS in tools/counters.py"


def test_each_name_stands_once_and_says_what_it_is():
    names = [row.name for row in counters.TABLE]
    assert sorted(names) == sorted(set(names))
    for row in counters.TABLE:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", row.name)
        assert re.fullmatch(r"[A-Z].*\.", row.text), f"{row.name}: a text is a sentence"
        assert row.unit in ("", "bytes", "seconds")


def test_the_names_of_metrics():
    assert counters.ROWS["connections"].metric == "mooring_connections"
    assert counters.ROWS["bytes_sent"].metric == "mooring_bytes_sent"
    assert counters.ROWS["oldest_in_flight"].metric == "mooring_oldest_in_flight_seconds"
    assert counters.ROWS["dropped_reasons"].metric == "mooring_dropped"


def test_the_dispatcher_and_a_tree_of_one_count_what_stands_there():
    dispatcher = Dispatcher(Reactor(), lambda _: None, lambda _, __: None, 1 << 20)
    assert set(dispatcher.stats()) == {row.name for row in counters.rows(Part.DISPATCHER)}
    assert set(alone()) - {"degraded"} == {row.name for row in counters.rows(Part.TREE)}


def test_totals(monkeypatch: pytest.MonkeyPatch):
    """What nobody reports is 0; other numbers than those of the table are not in it."""
    rows = (
        Row("summed", Kind.COUNTER, Part.GATEWAY, "."),
        Row("largest", Kind.GAUGE, Part.GATEWAY, ".", adds=Adds.MAX),
        Row("own", Kind.COUNTER, Part.GATEWAY, ".", adds=Adds.EACH),
        Row("causes_reasons", Kind.COUNTER, Part.GATEWAY, ".", label="reason"),
        Row("elsewhere", Kind.COUNTER, Part.WORKER, "."),
    )
    monkeypatch.setattr(counters, "TABLE", rows)
    reports = [
        {"summed": 1, "largest": 2.5, "own": 3, "causes_reasons": {"a": 1}, "gateway": 7},
        {"error": "stands still"},
        {"summed": 10, "largest": 1},
    ]
    assert counters.total(reports, Part.GATEWAY) == {"summed": 11, "largest": 2.5}
    assert counters.total([], Part.GATEWAY) == {"summed": 0, "largest": 0}
    assert counters.zeros(Part.GATEWAY) == {"summed": 0, "own": 0}
