"""The mechanism below the supervisor's plans, with an owner that only notes what it is told."""

import logging
import os
import sys
import time

import pytest

from mooring.net import messages
from mooring.net.child_socket import ChildSocket
from mooring.roles import ProcessSpec
from mooring.supervisor.child import Child, ChildState, Exit
from mooring.supervisor.tree import MESSAGES_A_TURN, Tree

pytestmark = pytest.mark.usefixtures("descriptors")
LIMIT = 15.0  # seconds; the longest wait for anything
WORKER = ProcessSpec("worker", 0, None, 0)
GATEWAY = ProcessSpec("gateway", 0, 0, None)

HEAD = """
import os, socket, sys, msgspec
boot = msgspec.msgpack.decode(os.read(int(sys.argv[1]), 65536))
control = socket.socket(fileno=boot["control"])
control.setblocking(True)
def say(op): control.send(msgspec.msgpack.encode({"op": op}))
"""


class Notes:
    """An owner of children."""

    def __init__(self):
        self.notes = []

    def on_ready(self, child):
        self.notes.append("ready")

    def on_message(self, child, message):
        self.notes.append(messages.op_of(message))

    def on_retired(self, child):
        self.notes.append("retired")

    def on_drained(self, child, counts):
        self.notes.append(("drained", counts))

    def on_distrust(self):
        pass

    def on_refused(self, child, problem):
        self.notes.append(str(problem))

    def on_failure(self, child, why):
        self.notes.append(why)

    def on_end(self, child, how, asked):
        self.notes.append((how, asked))


@pytest.fixture
def owner():
    return Notes()


@pytest.fixture
def tree_of(owner, descriptors):
    """Makes a tree whose children run a piece of Python."""
    trees = []

    def make(code, program=sys.executable):
        trees.append(Tree(owner, [program, "-c", HEAD + code], [], lambda spec, generation: {}, 20.0))
        trees[-1].plan = owner
        return trees[-1]

    yield make
    for tree in trees:
        tree.close()
        assert tree.children == []


def await_end(child):
    """Until the process has ended, without reaping it."""
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)


def turn_until(tree, there):
    end = time.monotonic() + LIMIT
    while not there():
        assert time.monotonic() < end
        tree.deadlines.after(0.1, lambda: None)  # so that no turn waits for longer
        tree.turn()


def test_last_words_come_before_the_end(tree_of, owner):
    """Whoever notices the end first: here the sweep, with the messages unread."""
    tree = tree_of("say('ready'); say('terminated'); os._exit(3)")
    child = Child(WORKER, 1, 0)
    tree.spawn([child])
    await_end(child)
    tree.sweep()
    assert owner.notes == ["ready", "terminated", (Exit(3, None), False)]
    assert child.state is ChildState.GONE
    tree.sweep()
    assert len(owner.notes) == 3


def test_one_that_never_stops_talking_is_heard_a_little_at_a_time(tree_of, owner):
    tree = tree_of("")
    child = Child(WORKER, 1, 0)
    child.control, theirs = ChildSocket.pair()
    for _ in range(200):
        theirs.send(messages.Drained({}))
    assert theirs.pending == 0
    tree._talk(child)
    assert len(owner.notes) == MESSAGES_A_TURN
    tree._talk(child, all_of_it=True)
    assert len(owner.notes) == 200
    theirs.close()
    child.forget()


def test_whatever_is_left_is_killed_and_reaped(tree_of, owner):
    tree = tree_of("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); say('ready'); signal.pause()")
    batch = [Child(GATEWAY, 1, 0), Child(WORKER, 1, 0)]
    tree.spawn(batch)
    turn_until(tree, lambda: owner.notes.count("ready") == 2)
    pids = [child.pid for child in batch]
    tree.close()
    assert tree.children == []
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_program_that_is_not_there_leaves_nothing(tree_of, owner):
    tree = tree_of("", "/nowhere/python")
    batch = [Child(GATEWAY, 1, 0), Child(WORKER, 1, 0)]
    with pytest.raises(FileNotFoundError):
        tree.spawn(batch)
    assert tree.children == []
    assert [tree._links.of(child) for child in batch] == [[], []]
    assert owner.notes == []


def test_a_message_that_can_not_be_sent_costs_the_process(tree_of, owner, monkeypatch):
    """It would not be what its state says; a fresh one will be."""
    tree = tree_of("say('ready'); control.recv(1); os._exit(0)")
    child = Child(WORKER, 1, 0)
    tree.spawn([child])
    turn_until(tree, lambda: owner.notes == ["ready"])

    def send(self, message, fds=()):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(ChildSocket, "send", send)
        tree.announce([child])
    assert owner.notes[1:] == ["can't be talked to: [Errno 24] Too many open files"]
    turn_until(tree, lambda: len(owner.notes) == 3)
    assert owner.notes[2] == (Exit(None, 9), True)


def test_a_message_to_one_that_has_ended_is_no_failure(tree_of, owner, caplog):
    tree = tree_of("say('ready'); os._exit(0)")
    child = Child(WORKER, 1, 0)
    tree.spawn([child])
    await_end(child)
    with caplog.at_level(logging.DEBUG):
        tree.tell(child, messages.Serve())
    assert owner.notes == []
    turn_until(tree, lambda: len(owner.notes) == 2)
    assert owner.notes == ["ready", (Exit(0, None), False)]
