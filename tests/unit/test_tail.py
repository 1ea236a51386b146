"""`mooring tail`: what is shown of a record."""

from dataclasses import asdict, replace

from click.testing import CliRunner

from mooring.cli.tail import CELLS, head, line, tail
from unit.test_closed import RECORD


def test_a_record_and_what_stands_above_it():
    shown = line(asdict(RECORD))
    assert shown.split()[:6] == ["00:16:42", "client_closed", "1000", "open", "/room", "-"]
    assert 'so "long"\\n' in shown
    places = [head().index(name) for name, _, _ in CELLS if name not in ("out", "user")]
    assert places == sorted(places)
    assert shown.index("client_closed") == head().index("cause")
    assert shown.index("/room") == head().index("path")


def test_a_connection_without_a_code_or_an_address():
    shown = line(asdict(replace(RECORD, code=None, remote_ip="", remote_port=0)))
    assert shown.split()[2] == "-"
    assert "unix" in shown


def test_what_was_missed():
    assert line({"missed": 1204}) == "(1,204 more have ended, which were not taken in time)"


def test_a_cause_that_there_is_not():
    result = CliRunner().invoke(tail, ["--socket", "/nothing", "--cause", "boredom"])
    assert result.exit_code == 2
    assert "slow_consumer" in result.output
