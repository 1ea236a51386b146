"""The stop with real processes: order, bounds, and the last line of the log."""

import contextlib
import os
import signal
import threading
import time

import pytest

from mooring.supervisor.shutdown import drained_line
from toys.harness import LIMIT, Running, base_mode, process_mode

COUNTS = {"accepted": 10, "finished": 6, "uncertain": 1, "dropped": {"stop": 2, "closed": 1}}


def counted(who, *, lost=0):
    return {"name": who, "counts": {**COUNTS, "finished": 6 - lost}}


def stops(tree):
    return {event["who"]: event for event in tree.find(event="got", op="stop")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_order_of_a_stop(tmp_path, number):
    """drain < drained by all < stop of the others < their end < stop of worker 0, last."""
    rules = [counted("gateway 0"), counted("gateway 1")]
    with Running(tmp_path, process_mode(gateways=2, workers=3), rules) as tree:
        tree.wait_ready()
        tree.signal(number)
        assert tree.ended() == 0
        assert tree.alive() == []
        drains = tree.find(event="got", op="drain")
        assert sorted(event["who"] for event in drains) == ["gateway 0", "gateway 1"]
        assert all(event["fields"]["code"] == 1001 for event in drains)
        assert all(0 < event["fields"]["timeout"] < 5.0 for event in drains), "time is left to answer"
        drained = tree.find(event="sent", op="drained")
        told = stops(tree)
        assert {who: event["fields"]["last"] for who, event in told.items()} == {
            "gateway 0": False,
            "gateway 1": False,
            "worker 0": True,
            "worker 1": False,
            "worker 2": False,
        }
        others = [event for who, event in told.items() if who != "worker 0"]
        assert max(event["index"] for event in drained) < min(event["index"] for event in others)
        assert max(event["index"] for event in others) < told["worker 0"]["index"]
        # Both gateways' ends were seen by worker 0, whose turn came after them.
        gone = tree.find(event="unlinked", who="worker 0")
        assert len(gone) == 2
        assert tree.lines()[-2:] == [
            f"stopping: {number.name}",
            "drained: accepted=20 finished=12 uncertain=2 dropped=6 (adds up)",
        ]


def test_counts_that_do_not_add_up_are_said_so(tmp_path):
    rules = [counted("gateway 0", lost=2), {"name": "gateway 1", "ignore_drain": True}]
    with Running(tmp_path, process_mode(gateways=2, workers=1), rules, graceful_timeout=0.3) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        assert tree.lines()[-1] == (
            "drained: accepted=10 finished=4 uncertain=1 dropped=3 "
            "(does not add up: 2 unaccounted for; no counts from gateway 1)"
        )


def test_drained_line():
    assert drained_line([]) == "drained: accepted=0 finished=0 uncertain=0 dropped=0 (adds up)"
    assert drained_line([{"accepted": 3, "in_flight": 3, "connections": 9}]) == (
        "drained: accepted=3 finished=0 uncertain=0 dropped=0 in_flight=3 connections=9 (adds up)"
    )


def test_drained_line_leaves_out_what_is_no_number():
    counts = [{"accepted": 2, "finished": "2", "dropped": {"closed": None, "stop": 1}, "in_flight": []}]
    assert drained_line(counts) == (
        "drained: accepted=2 finished=0 uncertain=0 dropped=1 (does not add up: 1 unaccounted for)"
    )


def test_the_listener_is_closed_at_once(tmp_path):
    """Also the supervisor's: nobody would ever accept a client that waits in its queue."""
    with Running(tmp_path, base_mode(1), [{"ignore_drain": True}]) as tree:
        line = tree.wait_log("listening on ")["line"]
        port = int(line.rpartition(":")[2])
        tree.wait_ready()
        tree.signal(signal.SIGTERM)
        tree.wait(event="got", op="drain")
        inode = _listening(port)
        assert not _has(tree.pid, inode)


def _listening(port):
    with open("/proc/net/tcp") as file:
        for line in list(file)[1:]:
            fields = line.split()
            if int(fields[1].split(":")[1], 16) == port and fields[3] == "0A":
                return fields[9]
    raise AssertionError("nobody listens")


def _has(pid, inode):
    folder = f"/proc/{pid}/fd"
    return any(os.readlink(f"{folder}/{name}") == f"socket:[{inode}]" for name in os.listdir(folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_hurries(tmp_path, number):
    with Running(tmp_path, process_mode(), [{"ignore_drain": True}], graceful_timeout=30.0) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGTERM)
        tree.wait(event="got", op="drain")
        tree.signal(signal.SIGTERM)  # changes nothing
        tree.command(tree.child("gateway 0"), "send", op="sync")
        tree.wait_log("the child message 'sync' is refused")
        assert not tree.find(event="got", op="stop")
        begin = time.monotonic()
        tree.signal(number)
        assert tree.ended(limit=LIMIT) == 0
        assert time.monotonic() - begin < 10
        assert tree.find(event="got", op="stop", fields__last=True), "worker 0 still has its turn"
        assert tree.alive() == []


def test_a_second_signal_does_not_wait_for_the_stubborn(tmp_path):
    rules = [{"ignore_drain": True, "ignore_stop": True, "ignore_term": True}]
    with Running(tmp_path, process_mode(), rules, graceful_timeout=30.0) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGINT)
        tree.wait(event="got", op="drain")
        begin = time.monotonic()
        tree.signal(signal.SIGINT)
        assert tree.ended(limit=LIMIT) == 0
        assert time.monotonic() - begin < 10
        assert tree.alive() == []


def test_more_signals_do_not_put_the_end_off(tmp_path):
    """Somebody holds Ctrl-C: the limits count from the second one, not from the last."""
    rules = [{"ignore_drain": True, "ignore_stop": True, "ignore_term": True}]
    with Running(tmp_path, process_mode(), rules, graceful_timeout=30.0) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGINT)
        tree.wait(event="got", op="drain")
        begin = time.monotonic()
        over = threading.Event()

        def hold():
            while not over.wait(0.05):
                with contextlib.suppress(ProcessLookupError):
                    tree.signal(signal.SIGINT)

        thread = threading.Thread(target=hold)
        thread.start()
        try:
            tree.wait_log("did not end in time", count=3, limit=LIMIT)
        finally:
            over.set()
            thread.join()
        # the last one may find an interpreter that is ending, and has its own handler back
        assert tree.ended() in (0, -signal.SIGINT)
        assert time.monotonic() - begin < 10
        assert tree.alive() == []


def test_sigquit_first_is_a_quick_stop(tmp_path):
    rules = [{"ignore_drain": True, "ignore_stop": True}]
    with Running(tmp_path, process_mode(), rules, graceful_timeout=30.0) as tree:
        tree.wait_ready()
        begin = time.monotonic()
        tree.signal(signal.SIGQUIT)
        assert tree.ended(limit=LIMIT) == 0
        assert time.monotonic() - begin < 10
        assert tree.find(event="got", op="drain")[0]["fields"]["code"] == 1001
        assert tree.alive() == []


@pytest.mark.parametrize("stuck", ["gateway 0", "worker 1", "worker 0"])
def test_a_stuck_child_is_killed_at_the_deadline(tmp_path, stuck):
    """And costs nobody else their turn: worker 0 is told to stop even when another one is stuck."""
    rules = [{"name": stuck, "ignore_drain": True, "ignore_stop": True, "ignore_term": True}]
    with Running(tmp_path, process_mode(), rules, graceful_timeout=0.5) as tree:
        tree.wait_ready()
        begin = time.monotonic()
        tree.signal(signal.SIGTERM)
        assert tree.ended(limit=LIMIT) == 0
        assert 0.5 < time.monotonic() - begin < 0.5 + 1.0 + 3.0, "the last three seconds are this machine's"
        assert stops(tree)["worker 0"]["fields"] == {"last": True, "reason": "shutdown: SIGTERM"}
        assert tree.alive() == []
        killed = tree.lines("did not end in time")
        assert len(killed) == 1
        assert killed[0].startswith(f"{stuck} (pid ")


def test_a_stopped_process_is_killed_too(tmp_path):
    with Running(tmp_path, process_mode(), graceful_timeout=0.5) as tree:
        tree.wait_ready()
        os.kill(tree.child("worker 1"), signal.SIGSTOP)
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        assert tree.alive() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop_while_starting(tmp_path, number):
    rules = [{"name": "worker 1", "start": "hang"}]
    with Running(tmp_path, process_mode(), rules) as tree:
        slow = tree.wait(event="born", who="worker 1")["pid"]
        tree.child("worker 0")
        tree.child("gateway 0")
        tree.command(slow, "send", op="sync")  # the readiness of the others may still be on its way
        tree.wait_log("the child message 'sync' is refused")
        tree.signal(number)
        assert tree.ended(limit=5) == 0
        assert tree.alive() == []
        assert not tree.find(event="got", op="serve")
        # No start event, so no shutdown event.
        assert not tree.find(event="got", op="stop", fields__last=True)


def test_stop_at_once_after_the_spawn(tmp_path):
    """Before any child has even begun to import."""
    with Running(tmp_path, process_mode(2, 4)) as tree:
        tree.wait_log("starting")
        tree.signal(signal.SIGTERM)
        assert tree.ended(limit=5) == 0
        assert tree.alive() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop_while_a_new_generation_starts(tmp_path, number):
    rules = [{"generation": 2, "start": "hang"}]
    with Running(tmp_path, process_mode(), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        tree.wait(since, event="born", count=2)
        tree.signal(signal.SIGHUP)  # pending; not to be done any more
        tree.wait_log("it follows", since)
        old = tree.child("worker 0")
        tree.signal(number)
        assert tree.ended(limit=5) == 0
        assert tree.alive() == []
        assert tree.find(event="got", op="stop", pid=old)[0]["fields"]["last"] is True
        assert not tree.find(event="born", generation=3)


def test_stop_while_the_old_generation_leaves(tmp_path):
    rules = [{"name": "gateway 0", "keep_retired": True}]
    with Running(tmp_path, process_mode(), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        old = tree.child("worker 0")
        tree.signal(signal.SIGHUP)
        tree.wait(since, event="got", op="retire", who="gateway 0", count=2)
        new = tree.child("worker 0", since)
        tree.signal(signal.SIGTERM)
        assert tree.ended(limit=5) == 0
        assert tree.find(event="got", op="stop", pid=old)[0]["fields"] == {"last": False, "reason": "shutdown: SIGTERM"}
        assert tree.find(event="got", op="stop", pid=new)[0]["fields"] == {"last": True, "reason": "shutdown: SIGTERM"}
        assert tree.alive() == []


def test_stop_while_an_old_server_drains(tmp_path):
    rules = [{"generation": 1, "name": "server 0", "ignore_drain": True, "counts": COUNTS}]
    with Running(tmp_path, base_mode(2), rules) as tree:
        tree.wait_ready()
        old = tree.child("server 0")
        tree.signal(signal.SIGHUP)
        tree.wait(event="got", op="drain", pid=old)
        tree.signal(signal.SIGTERM)
        tree.wait(event="got", op="drain", fields__code=1001, count=2)
        tree.command(old, "send", op="drained", counts=COUNTS)
        assert tree.ended(limit=5) == 0
        assert tree.find(event="got", op="drain", pid=old, fields__code=1001) == []
        assert tree.lines()[-1].startswith("drained: accepted=10 finished=6 ")
        assert tree.alive() == []


def test_f13_a_reload_during_the_drain_is_refused(tmp_path):
    with Running(tmp_path, process_mode(), [{"name": "gateway 0", "ignore_drain": True}]) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGTERM)
        tree.wait(since, event="got", op="drain")
        tree.signal(signal.SIGHUP)
        tree.wait_log("reload refused: SIGHUP, but the server is stopping")
        tree.command(tree.child("gateway 0"), "send", op="drained", counts={})
        assert tree.ended() == 0
        assert not tree.find(since, event="born")


def test_nothing_is_restarted_during_a_stop(tmp_path):
    rules = [{"name": "gateway 0", "ignore_drain": True}]
    with Running(tmp_path, process_mode(2, 2), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGTERM)
        tree.wait(since, event="got", op="drain", who="gateway 0")
        os.kill(tree.child("worker 1"), signal.SIGKILL)
        line = tree.wait_log("worker 1", since)["line"]
        assert line.endswith("was ended by SIGKILL")
        os.kill(tree.child("gateway 0"), signal.SIGKILL)
        assert tree.ended() == 0
        assert not tree.find(since, event="born")
        assert "no counts from gateway 0" in tree.lines()[-1]


def test_a_stop_does_not_wait_for_a_due_restart(tmp_path):
    rules = [{"name": "worker 0", "serve": "exit", "code": 1}]
    with Running(tmp_path, process_mode(1, 2), rules, restart_free=0, restart_backoff_max=5.0) as tree:
        tree.wait_log("restarting it in", count=3)
        tree.signal(signal.SIGTERM)
        assert tree.ended(limit=3) == 0
        assert tree.find(event="got", op="stop", who="worker 1")[0]["fields"]["last"], "in place of worker 0"


def test_a_restart_that_is_due_during_the_stop_is_not_made(tmp_path):
    rules = [{"name": "worker 0", "serve": "exit", "code": 1}, {"name": "gateway 0", "ignore_drain": True}]
    settings = {"restart_free": 0, "restart_backoff_max": 5.0, "graceful_timeout": 1.0}
    with Running(tmp_path, process_mode(1, 2), rules, **settings) as tree:
        tree.wait_log("restarting it in", count=3)  # in 0.3 to 0.4 s
        tree.signal(signal.SIGTERM)
        since = tree.wait_log("stopping: SIGTERM")["index"]
        assert tree.ended(limit=5) == 0
        assert not tree.find(since, event="born", incarnation=3)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_without_worker_0_the_next_one_is_the_last(tmp_path, when):
    rules = [{"name": "gateway 0", "ignore_drain": True}, {"name": "worker 0", "incarnation": 1, "start": "hang"}]
    with Running(tmp_path, process_mode(workers=3), rules) as tree:
        tree.wait_ready()
        if when == "before":
            os.kill(tree.child("worker 0"), signal.SIGKILL)
            tree.wait(event="born", who="worker 0", incarnation=1)
        tree.signal(signal.SIGTERM)
        tree.wait(event="got", op="drain")
        if when == "meanwhile":
            os.kill(tree.child("worker 0"), signal.SIGKILL)
            tree.wait_log("worker 0")
        tree.command(tree.child("gateway 0"), "send", op="drained", counts={})
        assert tree.ended() == 0
        last = {event["who"]: event["fields"]["last"] for event in tree.find(event="got", op="stop")}
        assert (last["worker 1"], last["worker 2"]) == (True, False)


def test_the_only_worker_dies_during_the_stop(tmp_path):
    with Running(tmp_path, process_mode(workers=1), [{"name": "gateway 0", "ignore_drain": True}]) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGTERM)
        tree.wait(event="got", op="drain")
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        tree.wait_log("worker 0")
        tree.command(tree.child("gateway 0"), "send", op="drained", counts={})
        assert tree.ended() == 0
        assert "no worker is left: the shutdown event does not run" in tree.lines()


def test_a_stop_code_other_than_0_is_noted(tmp_path):
    with Running(tmp_path, process_mode(), [{"name": "worker 1", "stop_code": 9}]) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        assert tree.lines("ended with exit code 9 when told to stop")


def test_a_terminals_interrupt_reaches_the_supervisor_alone(tmp_path):
    """The toy children ignore SIGINT, real ones do too; those which are still starting can't."""
    with Running(tmp_path, process_mode()) as tree:
        tree.wait_ready()
        groups = {event["group"] for event in tree.find(event="born")}
        assert os.getpgid(tree.pid) not in groups
        assert len(groups) == 3


def test_who_watches_is_there_to_the_end(tmp_path):
    """/ready says that the server is stopping until nobody else is left."""
    with Running(tmp_path, [*process_mode(), {"role": "monitor", "number": 0}]) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        told = stops(tree)
        last = told.pop("monitor 0")
        assert set(told) == {"gateway 0", "worker 0", "worker 1"}
        assert all(event["index"] < last["index"] for event in told.values())
        assert told["worker 0"]["fields"]["last"]
        assert not last["fields"]["last"]
        assert tree.alive() == []


def test_the_engine_has_what_is_published_up_to_the_end(tmp_path):
    """The last event of the last worker may publish."""
    with Running(tmp_path, [*process_mode(), {"role": "engine", "number": 0}]) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        told = stops(tree)
        last = told.pop("engine 0")
        assert set(told) == {"gateway 0", "worker 0", "worker 1"}
        assert all(event["index"] < last["index"] for event in told.values())
        assert tree.alive() == []
