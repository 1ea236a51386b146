"""What processes have reported on a scoreboard, for tests that write it and read it themselves."""

import os
from typing import Any

from mooring.monitor.scoreboard import Place, Report

ME = os.getpid()


def place(file: int, number: int = 1) -> Place[Report]:
    return Place(file, number, Report)


def report(**counts: Any) -> Report:
    return Report(ME, counts)
