"""All reports together: who stands still or has ended is known by what is left, and no counter falls."""

from typing import Any

import pytest

from mooring.monitor import board as boards
from mooring.monitor.board import STILL, Board, Process
from mooring.monitor.scoreboard import TREE, Place, Report, Seen, TreeReport
from support.scoreboards import ME, place, report

STATE: dict[str, Any] = {"gateways_wanted": 1, "gateways_running": 1, "restarts": 3, "degraded": []}


def seen(number: int, role: str = "worker", at: int = 1, pid: int = ME, **more: Any) -> Seen:
    told = {"generation": 1, "state": "serving", "restarts": 0, "degraded": False, "uptime": 1.0} | more
    return Seen(at, role, number, pid, **told)


def tell(scoreboard: int, *processes: Seen) -> None:
    supervisor = Seen(TREE, "supervisor", 0, ME, 0, "serving", 0, False, 9.0)
    Place(scoreboard, TREE, TreeReport).write(TreeReport("running", STATE, [supervisor, *processes]))


def look(board: Board) -> dict[str, Process]:
    return {str(process): process for process in board.look().processes}


def test_before_anybody_has_said_anything(scoreboard: int):
    snapshot = Board(scoreboard).look()
    assert (snapshot.tree, snapshot.processes) == (None, [])


def test_each_process_with_what_it_counts(scoreboard: int):
    place(scoreboard, 1).write(Report(ME, {"connections": 5, "unknown": 1}, {"loop_lag": {"": [1, 2, 30]}}))
    place(scoreboard, 2).write(report(bad_records=1, control_refused_reasons={"late": 2}))
    tell(scoreboard, seen(0, "gateway"), seen(0, at=2, restarts=4))
    found = look(Board(scoreboard))
    assert list(found) == ["supervisor", "gateway 0", "worker 0"]
    assert found["gateway 0"].counts.items() >= {"connections": 5, "process_up": 1, "process_restarts": 0}.items()
    assert found["gateway 0"].timings == {"loop_lag": {"": [1, 2, 30]}}
    assert found["worker 0"].counts.items() >= {"bad_records": 1, "process_restarts": 4}.items()
    assert found["worker 0"].counts["control_refused_reasons"] == {"late": 2}
    assert found["supervisor"].counts.items() >= {"restarts": 3, "gateways_wanted": 1}.items()
    for process in found.values():
        assert process.counts["process_memory"] >= process.counts["process_proportional_memory"] > 1 << 20
        assert "unknown" not in process.counts
        assert not process.missing


def test_who_stands_still_is_missing_and_what_it_said_is_kept(scoreboard: int, clock: list[float]):
    place(scoreboard).write(report(connections=5))
    clock[0] += STILL
    tell(scoreboard, seen(0, "gateway"), seen(0, at=2), seen(1, at=3, state="starting"))
    found = look(Board(scoreboard))
    assert found["gateway 0"].counts.items() >= {"connections": 5, "process_up": 0, "process_report_age": STILL}.items()
    assert [name for name, process in found.items() if process.missing] == ["gateway 0", "worker 0"]
    assert "process_report_age" not in found["worker 0"].counts
    assert found["worker 1"].counts["process_up"] == 0
    clock[0] += STILL
    assert look(Board(scoreboard))["supervisor"].missing


def test_a_report_of_a_predecessor_is_not_that_of_a_process(scoreboard: int):
    place(scoreboard).write(Report(ME + 1, {"connections": 5}))
    tell(scoreboard, seen(0, "gateway"))
    process = look(Board(scoreboard))["gateway 0"]
    assert "connections" not in process.counts
    assert process.missing


def test_counters_never_fall_and_gauges_go_with_their_process(scoreboard: int):
    """Over a reload: two of one number, then one."""
    board = Board(scoreboard)
    timings = {"handler": {"message": [1, 2, 30]}}
    place(scoreboard, 1).write(Report(ME, {"bad_records": 10, "handlers_suspended": 7}, timings))
    tell(scoreboard, seen(0))
    assert look(board)["worker 0"].counts["bad_records"] == 10
    place(scoreboard, 2).write(Report(1, {"bad_records": 1, "handlers_suspended": 2}, timings))
    tell(scoreboard, seen(0, state="retiring"), seen(0, at=2, pid=1))
    both = look(board)["worker 0"]
    assert both.counts.items() >= {"bad_records": 11, "handlers_suspended": 7}.items()
    assert both.timings == {"handler": {"message": [2, 4, 60]}}
    place(scoreboard, 1).write(report(bad_records=15, handlers_suspended=0))  # its last words
    tell(scoreboard, seen(0, at=2, pid=1))
    after = look(board)["worker 0"]
    assert after.counts.items() >= {"bad_records": 16, "handlers_suspended": 2}.items()
    tell(scoreboard)
    gone = look(board)["worker 0"].counts
    assert gone["bad_records"] == 16
    assert "handlers_suspended" not in gone


def test_the_time_of_a_process_that_has_ended_stays(scoreboard: int, monkeypatch: pytest.MonkeyPatch):
    """The kernel says nothing of it any more: a moment before the supervisor does, or before it has reported at all."""
    times: dict[int, float | None] = {ME: 2.0, 7: 3.0}
    monkeypatch.setattr(boards.kernel, "cpu_seconds", times.get)
    board = Board(scoreboard)
    place(scoreboard).write(report(accepted=1))
    tell(scoreboard, seen(0), seen(1, pid=7, at=2, state="starting"))
    assert [look(board)[f"worker {n}"].counts["process_cpu"] for n in (0, 1)] == [2.0, 3.0]
    times.clear()
    assert [look(board)[f"worker {n}"].counts["process_cpu"] for n in (0, 1)] == [2.0, 3.0]
    times[8] = 1.0
    tell(scoreboard, seen(0, pid=8, at=3), seen(1, pid=8, at=4))
    assert [look(board)[f"worker {n}"].counts["process_cpu"] for n in (0, 1)] == [3.0, 4.0]


def test_of_one_whose_place_is_taken_the_last_report_counts(scoreboard: int):
    board = Board(scoreboard)
    place(scoreboard, 1).write(report(bad_records=10))
    tell(scoreboard, seen(0))
    look(board)
    place(scoreboard, 1).write(Report(1, {"bad_records": 2}))
    tell(scoreboard, seen(1, pid=1))
    found = look(board)
    assert found["worker 0"].counts["bad_records"] == 10
    assert found["worker 1"].counts["bad_records"] == 2


def test_the_costly_number_is_asked_for_now_and_then(
    scoreboard: int, clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []
    monkeypatch.setattr(boards.kernel, "proportional_bytes", lambda pid: asked.append(pid) or 7)
    board = Board(scoreboard)
    for _ in range(3):
        place(scoreboard).write(report())
        tell(scoreboard, seen(0))
        look(board)
        clock[0] += 6
    assert len(asked) == 2
