"""The supervisor with real processes: start, crash and restart, and what must not be left behind.

The children are toys (tests/toys/child.py); reload and stop have files of their own.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from toys.harness import LIMIT, Running, _state, base_mode, eventually, process_mode


def born(tree, who, since=0):
    return tree.wait(since, event="born", who=who)


# -- start


def test_a_child_gets_its_payload_and_nothing_else(tmp_path):
    with Running(tmp_path, process_mode(gateways=2, workers=2)) as tree:
        tree.wait_ready()
        for event in tree.find(event="born"):
            payload = event["payload"]
            role, number = event["who"].split()
            number = int(number)
            assert (payload["role"], payload["number"]) == (role, number)
            assert (payload["generation"], payload["incarnation"]) == (1, 0)
            assert payload["folder"] == str(tmp_path), "what boot() returned is there"
            assert len(payload["listeners"]) == (1 if role == "gateway" else 0)
            other = "worker" if role == "gateway" else "gateway"
            assert payload[role] == number
            assert payload[other] is None
            assert [link[role] for link in payload["links"]] == [number, number]
            assert [link[other] for link in payload["links"]] == [0, 1]
            assert [link["peer_generation"] for link in payload["links"]] == [1, 1]
            # Standard input, output, error and what the payload names: no end of anybody else.
            assert sorted(event["inherited"]) == sorted([0, 1, 2, *event["named"]])
            # Two tables; or a table, the order of publishes and what gateways say of their room.
            memory = 2 if payload["gateway"] is None else 3
            assert len(event["named"]) == 2 + len(payload["listeners"]) + memory + 6
            assert event["stdin"] == "/dev/null"
            assert event["group"] == event["pid"], "out of reach of the terminal's Ctrl-C"
            # A worker waits for the answer to a call; nobody else ever waits.
            assert event["blocking"] == {"channel": [False] * 2, "reply": [role == "worker"] * 2}


def test_serve_comes_when_all_are_ready_and_started_once(tmp_path):
    with Running(tmp_path, process_mode(), [{"name": "worker 1", "start": "hang"}]) as tree:
        slow = born(tree, "worker 1")["pid"]
        tree.child("worker 0")
        tree.child("gateway 0")
        assert not tree.find(event="got")
        tree.command(slow, "ready")
        served = [tree.wait(event="got", op="serve", who=who) for who in ("gateway 0", "worker 0", "worker 1")]
        ready = tree.wait(event="sent", op="ready", pid=slow)
        assert all(event["index"] > ready["index"] for event in served)
        assert [event["fields"] for event in served] == [{}, {"started": True}, {}]
        # A successor of worker 0 serves, but the server does not start again.
        since = tree.mark()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        assert tree.wait(since, event="got", op="serve", who="worker 0")["fields"] == {}


def test_a_worker_is_told_of_the_tree_while_it_starts(tmp_path):
    """It waits for that, so that whatever it handles first knows."""
    with Running(tmp_path, process_mode(), [{"name": "worker 1", "start": "hang"}]) as tree:
        told = tree.wait(event="told", who="worker 1")
        assert told["state"]["workers_wanted"] == 2
        assert not tree.find(event="got", who="worker 1")
        tree.command(told["pid"], "ready")
        tree.wait(event="got", who="worker 1", op="serve")


def test_links_pages_and_tables_join_the_right_processes(tmp_path):
    with Running(tmp_path, process_mode(gateways=2, workers=2)) as tree:
        tree.wait_ready()
        for w in (0, 1):
            for g in (0, 1):
                worker, gateway = tree.child(f"worker {w}"), tree.child(f"gateway {g}")
                tree.command(worker, "write", gateway=g, data=f"up {w}{g}")
                got = tree.wait(event="bytes", who=f"gateway {g}", data=f"up {w}{g}")
                assert (got["worker"], got["gateway"]) == (w, g)
                tree.command(gateway, "write", worker=w, data=f"down {g}{w}")
                got = tree.wait(event="bytes", who=f"worker {w}", data=f"down {g}{w}")
                assert (got["worker"], got["gateway"]) == (w, g)
        # The first link of worker 0 and of gateway 0 is the one between them.
        tree.command(tree.child("worker 0"), "page", data="id 00042")
        tree.wait(event="page", who="worker 0")
        tree.command(tree.child("gateway 0"), "page")
        assert tree.wait(event="page", who="gateway 0")["data"] == "id 00042"
        tree.command(tree.child("gateway 1"), "table", gateway=1, size=8192)
        made = tree.wait(event="table", who="gateway 1")
        for w in (0, 1):
            tree.command(tree.child(f"worker {w}"), "table", gateway=1)
            seen = tree.wait(event="table", who=f"worker {w}")
            assert (seen["size"], seen["inode"]) == (8192, made["inode"])


def test_a_client_reaches_a_gateway_through_the_listener(tmp_path):
    with Running(tmp_path, process_mode()) as tree:
        line = tree.wait_log("listening on ")["line"]
        host, _, port = line.rpartition(" ")[2].rpartition(":")
        tree.wait_ready()
        with socket.create_connection((host, int(port)), timeout=LIMIT) as client:
            tree.command(tree.child("gateway 0"), "accept")
            assert client.recv(100) == b"hello"


@pytest.mark.parametrize(
    ("who", "rule", "text"),
    [
        ("worker 1", {"start": "exit", "code": 3}, "ended with exit code 3 before it was ready"),
        ("gateway 0", {"start": "exit", "code": 3}, "ended with exit code 3 before it was ready"),
        ("worker 1", {"start": "exit", "code": 0}, "ended with exit code 0 before it was ready"),
        ("gateway 0", {"start": "hang"}, "was not ready within 5 s"),
    ],
)
def test_f05_a_failing_start_ends_everything(tmp_path, who, rule, text):
    hangs = rule["start"] == "hang"
    # In some cases all ignore SIGTERM, so that only SIGKILL can have ended them.
    rules = [{"ignore_term": who == "worker 1", "ignore_stop": True}, {"name": who, **rule}]
    with Running(tmp_path, process_mode(), rules, boot_timeout=5.0 if hangs else 20.0) as tree:
        assert tree.ended() == 1
        assert tree.alive() == []
        (line,) = tree.lines("failed")
        assert f"the start failed: {who} (pid {born(tree, who)['pid']}) {text}" in line
        assert not tree.find(event="got", op="serve")
        if not hangs:
            assert "can't be imported" in tree.stderr_path.read_text()


def test_a_child_killed_while_starting_is_named_with_its_signal(tmp_path):
    with Running(tmp_path, process_mode(), [{"name": "worker 0", "start": "hang"}]) as tree:
        os.kill(born(tree, "worker 0")["pid"], signal.SIGSEGV)
        assert tree.ended() == 1
        assert "was ended by SIGSEGV before it was ready" in tree.lines("failed")[0]


def test_a_program_that_is_not_there(tmp_path):
    with Running(tmp_path, process_mode(), argv=["/nowhere/python"]) as tree:
        assert tree.ended() == 1
        assert "a process can't be started: No such file or directory" in tree.lines("failed")[0]
        assert "Traceback" not in tree.stderr_path.read_text()


def test_too_few_descriptors_for_the_start(tmp_path):
    with Running(tmp_path, process_mode(2, 20), prefix=["prlimit", "--nofile=40:40"]) as tree:
        assert tree.ended() == 1
        assert "Too many open files" in tree.lines("failed")[0]
        assert tree.alive() == []


# -- crash and restart


def test_a_crashed_worker_is_replaced_and_linked_anew(tmp_path):
    with Running(tmp_path, process_mode(gateways=2, workers=2)) as tree:
        tree.wait_ready()
        since = tree.mark()
        old = tree.child("worker 1")
        os.kill(old, signal.SIGKILL)
        line = tree.wait_log("worker 1", since)["line"]
        assert line == f"worker 1 (pid {old}) was ended by SIGKILL: restarting it"
        for g in (0, 1):  # gateways see the end of the old one
            tree.wait(since, event="unlinked", who=f"gateway {g}", worker=1)
            tree.wait(since, event="gone", who=f"gateway {g}", link=link_of(tree, old, g))
        serve = tree.wait(since, event="got", op="serve", who="worker 1")
        new = serve["pid"]
        assert (serve["generation"], serve["incarnation"]) == (1, 1)
        ready = tree.wait(since, event="sent", op="ready", pid=new)
        for g in (0, 1):
            attach = tree.wait(since, event="got", op="attach", who=f"gateway {g}")
            assert attach["fields"].pop("link") > link_of(tree, old, g)
            assert attach["fields"] == {"worker": 1, "gateway": g, "generation": 1, "pid": new, "service": "gateway"}
            assert attach["fds"] == 3
            assert attach["index"] > ready["index"], "nobody hears of a process that is not ready"
        # The two halves are one link: in both directions, and through the page.
        tree.command(new, "write", gateway=1, data="here I am")
        got = tree.wait(since, event="bytes", who="gateway 1")
        assert (got["worker"], got["data"]) == (1, "here I am")
        tree.command(tree.child("gateway 0"), "write", worker=1, data="welcome")
        got = tree.wait(since, event="bytes", who="worker 1")
        assert (got["gateway"], got["data"]) == (0, "welcome")
        assert not tree.find(since, who="worker 0"), "the others are not disturbed"


def link_of(tree, pid, gateway):
    """The number of its link to that gateway, which it was told at its start."""
    links = tree.find(event="born", pid=pid)[0]["payload"]["links"]
    return next(link["number"] for link in links if link["gateway"] == gateway)


def test_peers_hear_of_a_death_that_no_channel_tells(tmp_path):
    """A child of the dead one holds its ends open, that of the control socket, too."""
    with Running(tmp_path, process_mode(gateways=2, workers=1)) as tree:
        tree.wait_ready()
        since, old = tree.mark(), tree.child("worker 0")
        tree.command(old, "leave_behind")
        behind = tree.wait(since, event="behind")["behind"]
        try:
            os.kill(old, signal.SIGKILL)
            for g in (0, 1):
                tree.wait(since, event="gone", who=f"gateway {g}", link=link_of(tree, old, g))
            tree.wait(since, event="got", op="serve", who="worker 0")
            assert not tree.find(since, event="unlinked")
        finally:
            os.kill(behind, signal.SIGKILL)
        for g in (0, 1):
            tree.wait(since, event="unlinked", who=f"gateway {g}", worker=0)


def test_the_death_of_one_that_had_retired_is_told(tmp_path):
    """Its gateways had nothing of it any more, but still its channel."""
    with Running(tmp_path, process_mode(workers=1)) as tree:
        tree.wait_ready()
        since, old = tree.mark(), tree.child("worker 0")
        tree.signal(signal.SIGHUP)
        tree.wait(since, event="got", op="stop", pid=old)
        tree.wait(since, event="gone", who="gateway 0", link=link_of(tree, old, 0))


def test_a_worker_told_to_die_through_its_channel(tmp_path):
    with Running(tmp_path, process_mode()) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.command(tree.child("gateway 0"), "write", worker=0, data="die 7")
        tree.wait_log("worker 0", since)
        assert "ended with exit code 7: restarting it" in tree.lines("worker 0")[-1]
        tree.wait(since, event="got", op="serve", who="worker 0", incarnation=1)


def test_an_event_is_told_to_another_worker_when_the_one_that_was_told_ends(tmp_path):
    """What ends workers often ends several in a row; each of those ends is told, in order."""
    rules = [{"name": "worker 0", "incarnation": 0, "event": "exit", "code": 3}, {"event": "report"}]
    with Running(tmp_path, process_mode(), [rules[1], rules[0]]) as tree:
        tree.wait_ready()
        first, second = tree.child("worker 0"), tree.child("worker 1")
        os.kill(second, signal.SIGKILL)  # worker 0 is told, and ends of it
        tree.wait(event="asked", name="worker_error", pid=first)
        tree.wait(count=3, event="asked", name="worker_error")
        told = [event["arguments"][:4] for event in tree.find(event="asked", name="worker_error")]
        assert told == [[1, second, None, 9], [1, second, None, 9], [0, first, 3, None]]


def test_an_event_that_ends_whoever_is_told_is_given_up(tmp_path):
    with Running(tmp_path, process_mode(workers=1), [{"event": "exit", "code": 3}], restart_free=100) as tree:
        tree.wait_ready()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        tree.wait_log("the event 'worker_error' is lost: 3 workers have ended while they were told of it")


def test_a_task_worker_is_told_of_no_event(tmp_path):
    """It may be busy for long; the worker that is started again hears of its own predecessor."""
    specs = [*process_mode(workers=1), {"role": "task worker", "number": 0, "worker": 1}]
    with Running(tmp_path, specs, [{"event": "report"}]) as tree:
        tree.wait_ready()
        old = tree.child("worker 0")
        os.kill(old, signal.SIGKILL)
        assert tree.wait(event="asked", name="worker_error")["who"] == "worker 0"


def test_exit_code_0_unasked_is_a_crash(tmp_path):
    with Running(tmp_path, process_mode()) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.command(tree.child("worker 1"), "exit", code=0)
        tree.wait(since, event="got", op="serve", who="worker 1", incarnation=1)
        assert tree.lines("worker 1 ")[0].endswith("ended with exit code 0: restarting it")


def test_a_crashed_gateway_is_replaced_and_linked_anew(tmp_path):
    with Running(tmp_path, process_mode(gateways=2, workers=2)) as tree:
        tree.wait_ready()
        since = tree.mark()
        os.kill(tree.child("gateway 0"), signal.SIGABRT)
        serve = tree.wait(since, event="got", op="serve", who="gateway 0")
        new = serve["pid"]
        tree.command(new, "table", gateway=0, size=12288)
        made = tree.wait(since, event="table", who="gateway 0")
        for w in (0, 1):
            attach = tree.wait(since, event="got", op="attach", who=f"worker {w}")
            assert attach["fields"].pop("link")
            assert attach["fields"] == {"worker": w, "gateway": 0, "generation": 1, "pid": new, "service": "gateway"}
            assert attach["fds"] == 4, "with the new gateway's table"
            tree.command(tree.child(f"worker {w}"), "table", gateway=0)
            seen = tree.wait(since, event="table", who=f"worker {w}")
            assert (seen["size"], seen["inode"]) == (12288, made["inode"])
            tree.command(tree.child(f"worker {w}"), "write", gateway=0, data=f"from {w}")
            assert tree.wait(since, event="bytes", who="gateway 0", data=f"from {w}")["worker"] == w
        # A worker that comes later has the table of the new gateway, not of the old one.
        os.kill(tree.child("worker 1"), signal.SIGKILL)
        later = tree.wait(since, event="got", op="serve", who="worker 1", incarnation=1)["pid"]
        mark = tree.mark()
        tree.command(later, "table", gateway=0)
        assert tree.wait(mark, event="table", who="worker 1")["inode"] == made["inode"]


def test_gateway_and_worker_that_crash_together_find_each_other(tmp_path):
    """Neither is ready when the other is spawned: their link is handed to both when both serve."""
    rules = [{"incarnation": 1, "start": "hang"}]
    for first, second in (("gateway 0", "worker 0"), ("worker 0", "gateway 0")):
        folder = tmp_path / first
        folder.mkdir()
        with Running(folder, process_mode(1, 1), rules) as tree:
            tree.wait_ready()
            since = tree.mark()
            os.kill(tree.child("worker 0"), signal.SIGKILL)
            os.kill(tree.child("gateway 0"), signal.SIGKILL)
            pids = {who: born(tree, who, since)["pid"] for who in (first, second)}
            for event in tree.find(since, event="born"):
                links = event["payload"]["links"]
                assert len(links) <= 1  # the one which was spawned before the other's end was noticed
            tree.command(pids[first], "ready")
            tree.wait(since, event="got", op="serve", who=first)
            assert not tree.find(since, event="got", op="attach")
            tree.command(pids[second], "ready")
            tree.wait(since, event="got", op="serve", who=second)
            for who in (first, second):  # before the worker has its end, it would write to nobody
                tree.wait(since, event="got", op="attach", who=who)
            tree.command(pids["worker 0"], "write", data="hello again")
            got = tree.wait(since, event="bytes", who="gateway 0")
            assert (got["worker"], got["data"]) == (0, "hello again")


def test_a_crash_loop_is_slowed_down_and_recovers(tmp_path):
    """Without the delays hundreds of processes would be started in these two seconds."""
    rules = [{"name": "worker 0", "serve": "exit", "code": 1}] + [
        {"name": "worker 0", "incarnation": n, "serve": "go on"} for n in range(7, 20)
    ]
    with Running(tmp_path, process_mode(1, 1), rules, restart_free=3, restart_backoff_max=0.4) as tree:
        # Crashes 1-3 cost nothing, then 0.1, 0.2, 0.4, 0.4 s, each up to a quarter less.
        tree.wait_log("restarting it", count=7)
        lines = tree.lines("restarting it")
        assert all(line.endswith(": restarting it") for line in lines[:3])
        delays = [float(line.split()[-2]) for line in lines[3:]]
        for delay, longest in zip(delays, (0.1, 0.2, 0.4, 0.4), strict=True):
            assert longest * 0.75 - 0.05 <= delay <= longest
        tree.wait(event="got", op="serve", who="worker 0", incarnation=7)
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        assert len(tree.find(event="born", who="worker 0")) == 8


def test_a_restart_that_never_gets_ready_is_tried_again(tmp_path):
    rules = [{"name": "worker 0", "incarnation": 1, "start": "hang"}]
    with Running(tmp_path, process_mode(1, 1), rules, boot_timeout=5.0) as tree:
        tree.wait_ready()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        tree.wait(event="got", op="serve", who="worker 0", incarnation=2)
        assert any("was not ready within 5 s: restarting it" in line for line in tree.lines("worker 0"))
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        assert tree.alive() == []


def test_f08_a_program_that_is_gone_is_tried_again(tmp_path):
    """The program is gone when a worker is to be restarted (as EAGAIN of fork is: an OSError of spawn)."""
    program = tmp_path / "program"
    program.symlink_to(sys.executable)
    child = str(Path(__file__).parent.parent / "toys" / "child.py")
    with Running(
        tmp_path,
        process_mode(1, 1),
        argv=[str(program), child],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        restart_free=0,
        restart_backoff_max=0.2,
    ) as tree:
        tree.wait_ready()
        program.rename(tmp_path / "away")
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        tree.wait_log("can't be started: No such file or directory", count=2)
        (tmp_path / "away").rename(program)
        tree.wait(event="got", op="serve", who="worker 0", incarnation=lambda n: n > 0)


@pytest.mark.parametrize("command", [{"do": "raw", "data": "?"}, {"do": "raw", "data": "?", "times": 70000}])
def test_a_child_that_breaks_the_protocol_is_replaced(tmp_path, command):
    with Running(tmp_path, process_mode(1, 1)) as tree:
        tree.wait_ready()
        tree.command(tree.child("worker 0"), **command)
        tree.wait(event="got", op="serve", who="worker 0", incarnation=1)
        assert any("can't be talked to: a child message" in line for line in tree.lines("worker 0"))


def test_unknown_messages_are_noted_and_ignored(tmp_path):
    with Running(tmp_path, process_mode(1, 1)) as tree:
        tree.wait_ready()
        worker = tree.child("worker 0")
        for op in ("dance", "retired", "ready", "drained"):
            tree.command(worker, "send", op=op)
        tree.wait_log("the child message 'dance' is refused")
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        assert tree.find(event="got", op="stop", pid=worker)


# -- nothing is left behind


def test_f09_no_zombies_also_when_the_supervisor_inherits_strangers(tmp_path):
    with Running(tmp_path, process_mode(), subreaper=True) as tree:
        tree.wait_ready()
        since = tree.mark()
        for _ in range(3):
            tree.command(tree.child("worker 0"), "stranger")
        stranger = tree.wait(since, event="stranger", count=3)
        assert stranger["parent"] == tree.pid, "it is the supervisor's to reap"
        os.kill(tree.child("worker 1"), signal.SIGKILL)
        tree.wait(since, event="got", op="serve", who="worker 1", incarnation=1)
        eventually(lambda: tree.zombies() == [])
        eventually(lambda: all(_state(event["stranger"]) is None for event in tree.find(event="stranger")))
        # Code 3 of a stranger is nobody's end.
        assert len(tree.lines("ended with")) == 0
        assert len(tree.lines("was ended by")) == 1
        assert not tree.find(since, event="born", who="worker 0")
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs a PID namespace")
def test_as_pid_1(tmp_path):
    prefix = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("a PID namespace can't be made here")
    with Running(tmp_path, process_mode(), prefix=prefix) as tree:
        ready = tree.wait_ready()
        assert ready["pid"] == 1
        tree.command(tree.child("worker 0"), "stranger")
        stranger = tree.wait(event="stranger")
        assert stranger["parent"] == 1
        since = tree.mark()
        tree.command(tree.child("worker 1"), "exit", code=3)
        tree.wait(since, event="got", op="serve", who="worker 1", incarnation=1)
        children = Path(f"/proc/{tree.pid}/task/{tree.pid}/children")
        supervisor = children.read_text().split()[0]
        tree.pid = int(supervisor)
        eventually(lambda: tree.zombies() == [])
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0


def test_f24_no_process_outlives_a_killed_supervisor(tmp_path):
    with Running(tmp_path, process_mode()) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGKILL)
        tree.wait(event="orphaned", count=3)
        eventually(lambda: tree.alive() == [])


def test_crashes_leak_no_descriptor(tmp_path):
    with Running(tmp_path, process_mode(2, 2), restart_free=1000) as tree:
        tree.wait_ready()
        eventually(lambda: not tree.zombies())
        before = None
        for turn in range(12):
            who = ("worker 0", "gateway 1")[turn % 2]
            since = tree.mark()
            os.kill(tree.child(who), signal.SIGKILL)
            tree.wait(since, event="got", op="serve", who=who)
            tree.wait_log(f"{who} (pid", since, count=2)
            if turn == 1:
                before = tree.descriptors()
        assert tree.descriptors() == before


def test_crashes_before_ready_leak_no_descriptor(tmp_path):
    """Its peers' ends of its links are still the supervisor's then."""
    rules = [{"name": "worker 0", "incarnation": n, "start": "exit", "code": 1} for n in (1, 2, 3, 4)]
    with Running(tmp_path, process_mode(2, 2), rules, restart_free=1000) as tree:
        tree.wait_ready()
        eventually(lambda: not tree.zombies())
        before = tree.descriptors()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        tree.wait(event="got", op="serve", who="worker 0", incarnation=5)
        tree.wait_log("worker 0 (pid", count=6)
        assert tree.descriptors() == before


def test_f10_signals_never_go_to_a_pid_only():
    """os.kill may meet another process which got the number; a pidfd can't."""
    for file in (Path(__file__).parents[2] / "src/mooring/supervisor").glob("*.py"):
        text = file.read_text()
        if file.name == "pid_file.py":  # which is taken before there is a loop that a sleep would hold up
            text = text.replace("time.sleep(LOOK)", "")
        for call in ("os.kill(", "os.killpg(", "time.time(", "time.sleep("):
            assert call not in text, f"{file.name} has {call}"


# -- what children ask for


@pytest.mark.parametrize("who", ["worker 1", "gateway 0"])
def test_shutdown_asked_for_by_a_child(tmp_path, who):
    with Running(tmp_path, process_mode()) as tree:
        tree.wait_ready()
        pid = tree.child(who)
        tree.command(pid, "send", op="shutdown")
        assert tree.ended() == 0
        assert f"stopping: asked for by {who} (pid {pid})" in tree.lines()
        assert tree.find(event="got", op="stop", fields__last=True, who="worker 0")


def test_base_mode_links_each_worker_to_the_other_gateways(tmp_path):
    with Running(tmp_path, base_mode(3)) as tree:
        tree.wait_ready()
        for event in tree.find(event="born"):
            own = event["payload"]["number"]
            pairs = sorted((link["worker"], link["gateway"]) for link in event["payload"]["links"])
            others = [n for n in range(3) if n != own]
            assert pairs == sorted([(own, n) for n in others] + [(n, own) for n in others])
        tree.command(tree.child("server 2"), "write", worker=2, gateway=0, data="publish")
        got = tree.wait(event="bytes")
        assert (got["who"], got["worker"], got["gateway"]) == ("server 0", 2, 0)
        since = tree.mark()
        os.kill(tree.child("server 1"), signal.SIGKILL)
        new = tree.wait(since, event="got", op="serve", who="server 1")["pid"]
        for n in (0, 2):
            tree.wait(since, count=2, event="got", op="attach", who=f"server {n}")
            got = {
                (event["fields"]["worker"], event["fields"]["gateway"]): event["fds"]
                for event in tree.find(since, event="got", op="attach", who=f"server {n}")
            }
            assert got == {(1, n): 3, (n, 1): 4}
        tree.command(new, "write", worker=0, gateway=1, data="to 0")
        assert tree.wait(since, event="bytes", data="to 0")["who"] == "server 0"
        tree.command(new, "write", worker=1, gateway=2, data="to 2")
        assert tree.wait(since, event="bytes", data="to 2")["who"] == "server 2"


def test_one_server_alone(tmp_path):
    with Running(tmp_path, base_mode(1)) as tree:
        tree.wait_ready()
        assert tree.find(event="born")[0]["payload"]["links"] == []
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        served = tree.find(event="got", who="server 0")
        assert [event["op"] for event in served] == ["serve", "drain", "stop"]
        assert served[0]["fields"] == {"started": True}
        assert served[2]["fields"] == {"last": True, "reason": "shutdown: SIGTERM"}


def test_a_child_that_closes_its_control_socket_and_lives_on_is_replaced(tmp_path):
    with Running(tmp_path, process_mode(1, 1)) as tree:
        tree.wait_ready()
        since = tree.mark()
        worker = tree.child("worker 0")
        with contextlib.suppress(ConnectionRefusedError):
            tree.command(worker, "mute")
        tree.wait(since, event="got", op="serve", who="worker 0", incarnation=1)
        assert _state(worker) is None
