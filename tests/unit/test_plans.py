"""What each plan does about what happens to a child."""

from types import SimpleNamespace

import pytest

from mooring.roles import ProcessSpec
from mooring.supervisor.child import Child, ChildState
from mooring.supervisor.plans import Phase, Plan, Serve, Start
from mooring.supervisor.reload import Reload
from mooring.supervisor.shutdown import Stop

SPECS = (ProcessSpec("gateway", 0, 0), ProcessSpec("worker", 0, None, 0), ProcessSpec("dispatcher", 0))


class Noting:
    """Notes each method that is called."""

    def __init__(self):
        self.notes = []

    def __getattr__(self, name):
        return lambda *arguments, **named: self.notes.append((name, *arguments))


class Deadlines:
    def __init__(self):
        self.actions = []

    def after(self, seconds, action):
        self.actions.append((seconds, action))
        return SimpleNamespace(cancel=lambda: None)


class Slots(Noting):
    """One slot for each child, which fills it."""

    def __init__(self, *children):
        super().__init__()
        self.kept = {child: SimpleNamespace(spec=child.spec, current=child) for child in children}
        self.wanted = list(self.kept.values())

    def of(self, child):
        return self.kept[child]

    def holds(self, child):
        return self.kept[child].current is child


@pytest.fixture
def made():
    children = {spec.role: Child(spec, 1, 0) for spec in SPECS}
    tree = Noting()
    tree.deadlines = Deadlines()
    return tree, Slots(*children.values()), children


def serving(child):
    child.become(ChildState.READY)
    child.become(ChildState.SERVING)
    return child


def test_a_start_is_over_when_everybody_is_ready_and_fails_as_a_whole(made):
    tree, slots, children = made
    told = []
    start = Start(tree, slots, lambda: told.append("served"), told.append)
    assert start.phase is Phase.STARTING
    for child in children.values():
        assert told == []
        child.become(ChildState.READY)
        start.on_ready(child)
    assert told == ["served"]
    start.on_failure(children["worker"], "ended with exit code 3")
    assert told[1:] == ["worker 0 ended with exit code 3"]


def test_who_leaves_is_replaced_and_no_faster_than_it_can(made):
    """A gateway drains first; a worker's successor is started at once, for it has nothing that only it can have."""
    tree, slots, children = made
    serve = Serve(tree, slots, 7.0)
    tree.plan = serve
    for child in children.values():
        serve.on_terminated(serving(child))
    gateway, worker, dispatcher = children.values()
    assert tree.notes == [("drain", gateway, 7.0, 1001), ("retire", worker), ("stop", dispatcher, "SIGTERM")]
    assert slots.notes == [("fill", slots.of(worker)), ("fill", slots.of(dispatcher))]
    assert [seconds for seconds, _ in tree.deadlines.actions] == [7.5] * 3
    serve.on_retired(worker)
    gateway.become(ChildState.DRAINING)
    gateway.become(ChildState.DRAINED)
    serve.on_drained(gateway, {})
    assert tree.notes[3:] == [("stop", worker, "SIGTERM"), ("stop", gateway, "SIGTERM")]
    assert slots.notes[2:] == [("fill", slots.of(gateway))]


def test_who_said_that_it_leaves_and_stays_is_killed(made):
    tree, slots, children = made
    serve = tree.plan = Serve(tree, slots, 7.0)
    gateway = serving(children["gateway"])
    serve.on_terminated(gateway)
    tree.deadlines.actions[0][1]()
    assert tree.notes[1:] == [("kill", gateway)]
    assert slots.notes == [("fill", slots.of(gateway))]
    tree.plan = Stop(tree, None, 1.0, event=False)
    tree.deadlines.actions[0][1]()
    assert len(slots.notes) == 1, "nothing is started in a stop"


def test_one_that_starts_or_that_is_replaced_can_not_leave(made):
    tree, slots, children = made
    serve = Serve(tree, slots, 7.0)
    serve.on_terminated(children["worker"])
    slots.of(children["gateway"]).current = None
    serve.on_terminated(serving(children["gateway"]))
    assert tree.notes == slots.notes == []


def test_a_reload_serves_meanwhile(made):
    tree, slots, children = made
    reload = Reload(tree, slots, 2, 7.0, "SIGHUP")
    assert (reload.phase, reload.reason) == (Phase.RUNNING, "reload: SIGHUP")
    other = children["dispatcher"]
    reload.on_failure(other, "was ended by SIGKILL")
    assert slots.notes == [("repair", other)]
    reload.on_ready(other)
    assert tree.notes == [("announce", [other])]


def test_a_stop_starts_and_repairs_nothing(made, caplog):
    tree, _, children = made
    tree.children = list(children.values())
    stop = Stop(tree, None, 1.0, event=False, reason="shutdown: SIGTERM")
    assert stop.phase is Phase.STOPPING
    worker = children["worker"]
    stop.on_ready(worker)
    stop.on_terminated(worker)
    stop.on_failure(worker, "was ended by SIGKILL")
    stop.on_retired(worker)
    assert tree.notes == [("stop", worker, "shutdown: SIGTERM")]
    assert "worker 0 was ended by SIGKILL" in caplog.text
    with pytest.raises(NotImplementedError):
        Plan(tree).phase  # noqa: B018
