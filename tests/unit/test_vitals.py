"""How each process is doing: what the supervisor, the kernel and the pulse of a process say of it, in one row."""

import os
import time

from mooring._core.pulse import Pulse
from mooring.roles import SUPERVISOR
from mooring.supervisor.child import Child, ChildState, ProcessSpec
from mooring.supervisor.restarts import Restarts
from mooring.supervisor.slot import Slot
from mooring.supervisor.vitals import SHOWN, vitals

SPEC = ProcessSpec("worker", 3, worker=3)


def slot_of(child: Child) -> Slot:
    slot = Slot(child.spec, Restarts(1, 1, 1))
    slot.restarted, slot.degraded = 5, True
    return slot


def test_the_supervisor_comes_first_and_has_no_generation():
    [row] = vitals([], slot_of, time.monotonic() - 9)
    assert (row["role"], row["number"], row["pid"]) == (SUPERVISOR, 0, os.getpid())
    assert (row["state"], row["generation"], row["restarts"], row["degraded"]) == ("serving", None, 0, False)
    assert row["uptime"] >= 9
    assert row["cpu"] > 0
    assert row["memory"] > 0
    assert row["pulse_age"] is None
    assert row["events"] is None


def test_a_row_has_what_is_known_of_a_child_and_no_place_of_a_report():
    child = Child(SPEC, 2, 0)
    child.pid = os.getpid()
    child.pulse = Pulse()
    child.become(ChildState.READY)
    child.become(ChildState.SERVING)
    row = vitals([child], slot_of, 0)[1]
    assert (row["role"], row["number"], row["generation"], row["state"]) == ("worker", 3, 2, "serving")
    assert (row["restarts"], row["degraded"], row["events"]) == (5, True, 0)
    assert row["pulse_age"] is None, "it was not seen to turn"
    child.pulse.beat()
    assert 0 <= vitals([child], slot_of, 0)[1]["pulse_age"] < 60
    assert "place" not in row


def test_one_that_has_ended_uses_nothing():
    child = Child(SPEC, 1, 0)
    child.pid = (1 << 22) + 1  # above the largest there can be, proc(5)
    row = vitals([child], slot_of, 0)[1]
    assert (row["cpu"], row["memory"], row["uptime"]) == (0, 0, 0)


def test_only_who_runs_the_application_calls_handlers():
    gateway = Child(ProcessSpec("gateway", 0, gateway=0), 1, 0)
    assert vitals([gateway], slot_of, 0)[1]["events"] is None


def test_there_are_no_more_rows_than_fit_into_a_message():
    assert len(vitals([Child(SPEC, 1, 0)] * 300, slot_of, 0)) == SHOWN
