"""What docs/operations.md says of signals, the unit file and counters is so."""

import configparser
import re
import signal

from mooring.config import Settings
from mooring.supervisor.bulletin import alone
from mooring.supervisor.signals import HANDLED
from support.serving import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text()


def block(kind):
    return re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_unit_file_can_be_read_and_leaves_enough_time():
    unit = configparser.ConfigParser()
    unit.optionxform = str
    unit.read_string(block("ini"))
    service = unit["Service"]
    process = Settings().process
    assert service["Type"] == "notify-reload"  # which reloads by SIGHUP
    assert int(service["TimeoutStopSec"]) > process.graceful_timeout + 1
    assert int(service["TimeoutStartSec"]) > process.boot_timeout
    assert service["ExecStart"].endswith("mooring run chat:server")


def test_every_signal_is_in_the_table():
    rows = re.findall(r"^\| (SIG[A-Z0-9, ]+) \|", PAGE, re.MULTILINE)
    named = {signal.Signals[name] for row in rows for name in row.split(", ")}
    assert named == set(HANDLED) - {signal.SIGCHLD}


def test_the_log_is_rotated_by_its_signal():
    assert "--signal=SIGRTMIN" in (ROOT / "docs" / "logging.md").read_text()


def test_what_is_to_be_watched_is_there():
    assert set(re.findall(r'tree\["(\w+)"\]', PAGE)) <= set(alone())
