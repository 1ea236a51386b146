"""The supervisor's part of the scoreboard."""

import os

import pytest

from mooring.monitor.scoreboard import PLACES, TREE, Place, TreeReport, new_scoreboard
from mooring.supervisor.child import Child, ProcessSpec
from mooring.supervisor.restarts import Restarts
from mooring.supervisor.scores import Scores
from mooring.supervisor.slot import Slot

SPEC = ProcessSpec("worker", 3, worker=3)


def slot_of(child: Child) -> Slot:
    slot = Slot(child.spec, Restarts(1, 1, 1))
    slot.restarted = 5
    return slot


def test_without_a_scoreboard_nothing_is_told():
    scores, child = Scores(), Child(SPEC, 1, 0)
    assert not scores.wanted
    assert scores.payload(child) == {"scoreboard": -1, "place_of_report": -1, "metrics": -1}
    scores.tell("running", {}, [child], slot_of)
    scores.give_back(child)


def test_each_has_a_place_and_the_monitor_the_listener():
    file = new_scoreboard()
    try:
        scores = Scores(file, 99)
        worker, monitor = Child(SPEC, 1, 0), Child(ProcessSpec("monitor", 0), 1, 0)
        assert scores.payload(worker) == {"scoreboard": file, "place_of_report": 1, "metrics": -1}
        assert scores.payload(monitor) == {"scoreboard": file, "place_of_report": 2, "metrics": 99}
        scores.tell("running", {"restarts": 5}, [worker, monitor], slot_of)
        found = Place(file, TREE, TreeReport).read()
        assert found is not None
        tree = found[0]
        assert (tree.phase, tree.state) == ("running", {"restarts": 5})
        assert [(one.place, one.role, one.number, one.pid) for one in tree.processes] == [
            (TREE, "supervisor", 0, os.getpid()),
            (1, "worker", 3, 0),
            (2, "monitor", 0, 0),
        ]
        assert (tree.processes[1].state, tree.processes[1].restarts) == ("starting", 5)
    finally:
        os.close(file)


def test_a_place_is_given_again_as_late_as_possible():
    file = new_scoreboard()
    try:
        scores = Scores(file, 99)
        first = Child(SPEC, 1, 0)
        scores.payload(first)
        scores.give_back(first)
        scores.give_back(first)  # twice changes nothing
        given = []
        for _ in range(PLACES):
            child = Child(SPEC, 1, 0)
            scores.payload(child)
            given.append(child.place)
        assert given == [*range(2, PLACES), 1, -1]  # who comes too late has none
    finally:
        os.close(file)


def test_what_can_not_be_written_ends_nothing(caplog: pytest.LogCaptureFixture):
    file = new_scoreboard()
    scores = Scores(file, 99)
    os.close(file)
    scores.tell("running", {}, [], slot_of)
    assert "tell nothing new" in caplog.text
    assert not scores.wanted
