"""What workers and gateways are told of the process tree, once each and never lost without a word."""

from types import SimpleNamespace
from typing import Any

import pytest

from mooring.net import messages
from mooring.roles import ProcessSpec
from mooring.supervisor.bulletin import EVENTS_KEPT, MAX_ATTEMPTS, Bulletin, alone
from mooring.supervisor.child import Child, ChildState
from mooring.supervisor.restarts import Restarts
from mooring.supervisor.slot import Slot

WORKERS = [ProcessSpec("worker", number, worker=number) for number in range(3)]
GATEWAY, TASK_WORKER = ProcessSpec("gateway", 0, gateway=0), ProcessSpec("task worker", 0, worker=3)


class Tree:
    """Notes what each child is told."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.told: list[tuple[str, Any]] = []

    def tell(self, child: Child, message: Any) -> None:
        self.told.append((str(child.spec), message))

    def take(self, kind: type = messages.Event) -> list[tuple[str, Any]]:
        """What of that kind was told since."""
        told, self.told = [one for one in self.told if isinstance(one[1], kind)], []
        return told


class Server:
    """A tree of slots, and its bulletin."""

    def __init__(self, *specs: ProcessSpec) -> None:
        self.tree: Any = Tree()
        self.slots = {spec: Slot(spec, Restarts(1, 1.0, 1.0)) for spec in specs}
        self.bulletin = Bulletin(self.tree, self.slots.values())

    def start(self, spec: ProcessSpec) -> Child:
        child = self.slots[spec].new_child(1)
        child.control = SimpleNamespace(pending=0)  # type: ignore[assignment]
        self.slots[spec].current = child
        self.tree.children.append(child)
        return child

    def serve(self, spec: ProcessSpec) -> Child:
        child = self.start(spec)
        child.become(ChildState.READY)
        child.become(ChildState.SERVING)
        return child

    def end(self, child: Child) -> None:
        child.become(ChildState.GONE)
        self.slots[child.spec].current = None
        self.tree.children.remove(child)
        self.bulletin.on_end(child)

    def events(self) -> list[tuple[str, str, list[Any]]]:
        self.bulletin.look()
        return [(who, event.name, event.arguments) for who, event in self.tree.take()]


def test_an_event_is_told_to_one_worker_that_serves_and_to_no_task_worker():
    server = Server(TASK_WORKER, *WORKERS)
    server.serve(TASK_WORKER)
    server.bulletin.event("worker_error", 1, 4711)
    assert server.events() == []
    server.start(WORKERS[0])
    assert server.events() == []
    for spec in WORKERS[1:]:
        server.serve(spec)
    assert server.events() == [("worker 1", "worker_error", [1, 4711])]
    assert server.events() == []


def test_when_who_was_told_ends_another_one_is_before_anything_later():
    server = Server(*WORKERS)
    first, _ = server.serve(WORKERS[0]), server.serve(WORKERS[1])
    server.bulletin.event("a")
    server.bulletin.event("b")
    assert [name for _, name, _ in server.events()] == ["a", "b"]
    server.bulletin.event("c")
    server.end(first)
    assert server.events() == [("worker 1", "a", []), ("worker 1", "b", []), ("worker 1", "c", [])]


def test_what_was_handled_is_told_to_nobody_else():
    server = Server(*WORKERS)
    first, other = server.serve(WORKERS[0]), server.serve(WORKERS[1])
    server.bulletin.event("a")
    server.bulletin.look()
    [(_, event)] = server.tree.take()
    server.bulletin.on_handled(other, event.answer)  # it was not told
    server.bulletin.on_handled(first, event.answer + 1)  # nobody was
    server.bulletin.on_handled(first, event.answer)
    server.end(first)
    assert server.events() == []


def test_an_event_that_ends_one_worker_after_the_other_is_lost_and_counted():
    server = Server(*WORKERS)
    server.bulletin.event("worker_error")
    for _ in range(MAX_ATTEMPTS):
        child = server.serve(WORKERS[0])
        assert [name for _, name, _ in server.events()] == ["worker_error"]
        server.end(child)
    server.serve(WORKERS[0])
    assert server.events() == []
    assert server.bulletin.counts["events_lost"] == 1


def test_while_nobody_serves_the_newest_are_kept():
    server = Server(*WORKERS)
    for number in range(EVENTS_KEPT + 3):
        server.bulletin.event("worker_error", number)
    server.serve(WORKERS[0])
    assert [arguments for _, _, arguments in server.events()] == [[n] for n in range(3, EVENTS_KEPT + 3)]
    assert server.bulletin.counts["events_lost"] == 3


def test_workers_have_the_state_when_it_has_changed_and_never_two_unread():
    server = Server(*WORKERS, TASK_WORKER, GATEWAY)
    slow, quick = server.serve(WORKERS[0]), server.serve(WORKERS[1])
    server.bulletin.look()
    told = server.tree.take(messages.State)
    assert [who for who, _ in told] == ["worker 0", "worker 1"]
    state = told[0][1].state
    assert (state["workers_wanted"], state["workers_running"], state["gateways_running"]) == (3, 2, 0)
    server.bulletin.look()
    assert server.tree.take(messages.State) == []
    slow.control.pending = 1  # type: ignore[misc, union-attr]
    server.bulletin.counts["reloads"] += 1
    server.bulletin.look()
    assert [who for who, _ in server.tree.take(messages.State)] == ["worker 1"]
    slow.control.pending = 0  # type: ignore[misc, union-attr]
    server.bulletin.counts["reloads"] += 1
    server.bulletin.look()
    assert [(who, one.state["reloads"]) for who, one in server.tree.take(messages.State)] == [
        ("worker 0", 2),
        ("worker 1", 2),
    ]
    assert quick.told == slow.told


def test_one_that_starts_is_told_once_because_it_waits_for_that():
    server = Server(*WORKERS)
    server.start(WORKERS[0])
    server.bulletin.look()
    assert len(server.tree.take(messages.State)) == 1
    server.bulletin.counts["reloads"] += 1
    server.bulletin.look()
    assert server.tree.take(messages.State) == []


def test_a_gateway_hears_when_all_workers_are_degraded_and_when_they_are_not():
    server = Server(GATEWAY, *WORKERS, TASK_WORKER)
    server.serve(GATEWAY)

    def told() -> list[bool]:
        server.bulletin.look()
        return [one.degraded for _, one in server.tree.take(messages.Degraded)]

    for spec in WORKERS[:2]:
        server.slots[spec].degraded = True
    server.slots[TASK_WORKER].degraded = True
    assert told() == []
    server.slots[WORKERS[2]].degraded = True
    assert told() == [True]
    assert told() == []
    assert server.bulletin.state()["degraded"] == [str(spec) for spec in (*WORKERS, TASK_WORKER)]
    server.slots[WORKERS[0]].degraded = False
    assert told() == [False]


def test_a_gateway_that_comes_later_is_told_if_it_matters():
    server = Server(GATEWAY, *WORKERS)
    for spec in WORKERS:
        server.slots[spec].degraded = True
    server.start(GATEWAY)
    server.bulletin.look()
    assert server.tree.take(messages.Degraded) == []
    child = server.slots[GATEWAY].current
    assert child is not None
    child.become(ChildState.READY)
    child.become(ChildState.SERVING)
    server.bulletin.look()
    assert [one.degraded for _, one in server.tree.take(messages.Degraded)] == [True]


@pytest.mark.parametrize("name", ["restarts", "events_lost", "hangs"])
def test_one_process_alone_has_the_same_counts(name: str):
    tree = Server(GATEWAY, *WORKERS).bulletin.state()
    assert alone().keys() == tree.keys()
    assert alone()[name] == tree[name] == 0
