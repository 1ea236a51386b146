"""Reload with real processes: order, failure, storms, bounds."""

import os
import signal
import threading

import pytest

from toys.harness import Running, base_mode, eventually, process_mode


def test_f12_order_of_a_reload(tmp_path):
    """All successors ready < attach < retire < retired by every gateway < stop of the old one."""
    rules = [{"generation": 2, "name": "worker 1", "start": "hang"}]
    with Running(tmp_path, process_mode(gateways=2, workers=2), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGUSR1)
        slow = tree.wait(since, event="born", who="worker 1")["pid"]
        tree.wait(since, event="sent", op="ready", who="worker 0")
        mark = tree.mark()
        assert not tree.find(since, event="got"), "nobody hears of a generation that is not complete"
        tree.command(slow, "ready")
        tree.wait_log("reload: done", mark)
        for w in (0, 1):
            new = tree.child(f"worker {w}")
            old = tree.find(event="born", who=f"worker {w}")[0]["pid"]
            assert new != old
            serve = tree.wait(since, event="got", op="serve", pid=new)
            assert (serve["generation"], serve["fields"]) == (2, {})
            stop = tree.wait(since, event="got", op="stop", pid=old)
            assert stop["fields"] == {"last": False, "reason": "reload: SIGUSR1"}
            for g in (0, 1):
                attach, retire = (
                    tree.wait(since, event="got", op=op, who=f"gateway {g}", fields__worker=w)
                    for op in ("attach", "retire")
                )
                assert attach["fields"].pop("link")
                assert attach["fields"] == {
                    "worker": w,
                    "gateway": g,
                    "generation": 2,
                    "pid": new,
                    "service": "gateway",
                }
                assert retire["fields"] == {"worker": w, "generation": 1}
                retired = tree.wait(since, event="sent", op="retired", who=f"gateway {g}", fields__worker=w)
                order = [attach, retire, retired, stop]
                assert [event["index"] for event in order] == sorted(event["index"] for event in order)
                tree.command(new, "write", gateway=g, data=f"new {w}{g}")
                got = tree.wait(since, event="bytes", who=f"gateway {g}", data=f"new {w}{g}")
                assert (got["worker"], got["peer_generation"]) == (w, 2)
        assert len(tree.alive()) == 4
        assert not tree.find(since, event="born", who="gateway 0"), "gateways are not reloaded"


def test_f12_an_old_worker_stops_only_when_every_gateway_let_it_go(tmp_path):
    rules = [{"name": "gateway 1", "keep_retired": True}]
    with Running(tmp_path, process_mode(gateways=2, workers=1), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        old, gateway = tree.child("worker 0"), tree.child("gateway 1")
        tree.signal(signal.SIGHUP)
        tree.wait(since, event="sent", op="retired", who="gateway 0")
        tree.wait(since, event="got", op="retire", who="gateway 1")
        # Wrong answers do not count: another worker, another generation.
        tree.command(gateway, "send", op="retired", worker=7, generation=1)
        tree.command(gateway, "send", op="retired", worker=0, generation=2)
        tree.command(gateway, "send", op="sync")
        tree.wait_log("the child message 'sync' is refused", since)
        mark = tree.mark()
        assert not tree.find(since, event="got", op="stop")
        tree.command(gateway, "send", op="retired", worker=0, generation=1)
        tree.wait(mark, event="got", op="stop", pid=old)
        tree.wait_log("reload: done", mark)


def test_asked_for_by_a_child(tmp_path):
    with Running(tmp_path, process_mode()) as tree:
        tree.wait_ready()
        worker = tree.child("worker 0")
        tree.command(worker, "send", op="reload")
        tree.wait_log(f"reload: asked for by worker 0 (pid {worker}); starting generation 2")
        tree.wait_log("reload: done")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"start": "exit", "code": 3}, "ended with exit code 3 before it was ready"),
        ({"start": "hang"}, "was not ready within 5 s"),
    ],
)
def test_f05_a_failed_reload_keeps_the_old_generation(tmp_path, rule, why):
    rules = [{"name": "worker 1", "generation": 2, **rule}]
    with Running(tmp_path, process_mode(1, 3), rules, boot_timeout=5.0) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        line = tree.wait_log("reload failed", since)["line"]
        assert line.startswith("reload failed: worker 1 (pid ")
        assert why in line
        new = [event["pid"] for event in tree.find(since, event="born")]
        assert new
        eventually(lambda: not set(new) & set(tree.alive()))
        assert len(tree.alive()) == 4
        assert not tree.find(since, event="got"), "the old generation and the gateway heard nothing"
        # The old one is whole, and the next reload works, with a number of its own.
        tree.command(tree.find(event="born", who="worker 1")[0]["pid"], "write", data="still here")
        tree.wait(since, event="bytes", who="gateway 0", worker=1)
        tree.signal(signal.SIGHUP)
        tree.wait_log("reload: done", since)
        assert tree.wait(since, event="got", op="serve", who="worker 1")["generation"] == 3


def test_one_that_was_ready_and_dies_before_the_switch_fails_the_reload(tmp_path):
    rules = [{"name": "worker 1", "generation": 2, "start": "hang"}]
    with Running(tmp_path, process_mode(), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        tree.wait(since, event="born", who="worker 1")
        first = tree.wait(since, event="sent", op="ready", who="worker 0")["pid"]
        os.kill(first, signal.SIGKILL)
        assert "was ended by SIGKILL" in tree.wait_log("reload failed", since)["line"]
        eventually(lambda: len(tree.alive()) == 3)
        assert not tree.find(since, event="got")


def test_f13_a_storm_is_one_running_and_one_pending(tmp_path):
    rules = [{"name": "worker 0", "generation": 2, "start": "hang"}]
    with Running(tmp_path, process_mode(), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        slow = tree.wait(since, event="born", who="worker 0")["pid"]
        for n in range(100):
            tree.signal((signal.SIGHUP, signal.SIGUSR1)[n % 2])
        tree.wait_log("it follows the one that runs", since)
        tree.command(slow, "ready")
        tree.wait_log("reload: done", since, count=2)
        # Signals are handled in order: after one more reload the storm can have left nothing.
        mark = tree.mark()
        tree.command(tree.child("worker 0"), "send", op="reload")
        tree.wait_log("reload: done", mark)
        generations = {event["generation"] for event in tree.find(event="born")}
        assert generations == {1, 2, 3, 4}
        assert len(tree.lines("it follows")) == 1
        assert len(tree.alive()) == 3


def test_f13_a_storm_at_full_speed_keeps_the_number_of_processes_bounded(tmp_path):
    with Running(tmp_path, process_mode(1, 2)) as tree:
        tree.wait_ready()
        over, most = threading.Event(), 0

        def storm():
            while not over.wait(0.01):
                tree.signal(signal.SIGHUP)

        thread = threading.Thread(target=storm)
        thread.start()
        try:
            while len(tree.lines("reload: done")) < 8:
                tree.wait_log("reload: done", count=len(tree.lines("reload: done")) + 1)
                with open(f"/proc/{tree.pid}/task/{tree.pid}/children") as file:
                    most = max(most, len(file.read().split()))
        finally:
            over.set()
            thread.join()
        assert most <= 2 * 2 + 1
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0


def test_f13_a_reload_during_the_start_follows_it(tmp_path):
    rules = [{"name": "worker 0", "generation": 1, "start": "hang"}]
    with Running(tmp_path, process_mode(), rules) as tree:
        slow = tree.wait(event="born", who="worker 0")["pid"]
        tree.signal(signal.SIGHUP)
        tree.wait_log("it follows the start")
        tree.command(slow, "ready")
        tree.wait_log("reload: done")
        tree.wait(event="got", op="serve", who="worker 0", count=2)
        serves = tree.find(event="got", op="serve", who="worker 0")
        assert [event["fields"] for event in serves] == [{"started": True}, {}]


def test_f14_a_worker_that_does_not_finish_is_killed(tmp_path):
    """F14: neither retired nor SIGTERM helps; SIGKILL does, and the reload ends."""
    rules = [{"name": "gateway 0", "keep_retired": True}, {"generation": 1, "ignore_term": True}]
    with Running(tmp_path, process_mode(1, 1), rules, graceful_timeout=0.5) as tree:
        tree.wait_ready()
        since = tree.mark()
        old = tree.child("worker 0")
        tree.signal(signal.SIGHUP)
        tree.wait_log(f"worker 0 (pid {old}) of generation 1 did not end within 0.5 s", since)
        tree.wait_log("reload: done", since)
        assert old not in tree.alive()
        assert not tree.find(since, event="got", op="stop", pid=old)
        assert not tree.find(since, event="born", incarnation=2), "it has a successor already"


def test_a_worker_that_ignores_stop_is_killed(tmp_path):
    with Running(tmp_path, process_mode(1, 1), [{"generation": 1, "ignore_stop": True}], graceful_timeout=0.5) as tree:
        tree.wait_ready()
        old = tree.child("worker 0")
        tree.signal(signal.SIGHUP)
        tree.wait_log("reload: done")
        assert tree.find(event="got", op="stop", pid=old)
        assert old not in tree.alive()


def test_a_gateway_that_dies_holds_no_worker_back(tmp_path):
    """What is gone has nothing in flight; its successor knows only the new generation."""
    rules = [{"name": "gateway 0", "incarnation": 0, "keep_retired": True}]
    with Running(tmp_path, process_mode(1, 1), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        old = tree.child("worker 0")
        tree.signal(signal.SIGHUP)
        tree.wait(since, event="got", op="retire", who="gateway 0")
        new = tree.child("worker 0", since)
        os.kill(tree.child("gateway 0"), signal.SIGKILL)
        tree.wait(since, event="got", op="stop", pid=old)
        gateway = tree.wait(since, event="born", who="gateway 0")
        assert [link["peer_generation"] for link in gateway["payload"]["links"]] == [2]
        tree.wait(since, event="got", op="attach", pid=new)
        tree.wait_log("reload: done", since)


def test_a_gateway_that_starts_during_the_switch_hears_of_both_generations(tmp_path):
    rules = [
        {"name": "gateway 0", "incarnation": 1, "start": "hang"},
        {"name": "worker 0", "generation": 2, "start": "hang"},
    ]
    with Running(tmp_path, process_mode(1, 1), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        old = tree.child("worker 0")
        os.kill(tree.child("gateway 0"), signal.SIGKILL)
        gateway = tree.wait(since, event="born", who="gateway 0")["pid"]
        tree.signal(signal.SIGHUP)
        new = tree.wait(since, event="born", who="worker 0")["pid"]
        tree.command(new, "ready")
        tree.wait(since, event="got", op="serve", pid=new)
        assert not tree.find(since, event="got", op="stop"), "the gateway may have used its link to the old"
        tree.command(gateway, "ready")
        tree.wait(since, event="got", op="stop", pid=old)
        tree.wait(since, event="got", op="serve", pid=gateway)
        heard = [event["op"] for event in tree.find(since, event="got", pid=gateway)]
        assert sorted(heard[:2]) == ["attach", "retire"]
        assert heard[2] == "serve"
        tree.wait_log("reload: done", since)
        tree.wait(since, event="got", op="attach", pid=new)
        tree.command(new, "write", data="hello")
        assert tree.wait(since, event="bytes", pid=gateway)["peer_generation"] == 2


def test_a_worker_that_a_starting_gateway_never_heard_of_is_not_held_back(tmp_path):
    """That gateway has no worker end for it, so it could never answer that the worker may go."""
    rules = [{"name": "gateway 0", "incarnation": 1, "start": "hang"}]
    with Running(tmp_path, process_mode(1, 1), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        os.kill(tree.child("gateway 0"), signal.SIGKILL)
        gateway = tree.wait(since, event="born", who="gateway 0")["pid"]
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        old = tree.wait(since, event="got", op="serve", who="worker 0", incarnation=1)["pid"]
        tree.signal(signal.SIGHUP)
        tree.wait(since, event="got", op="stop", pid=old)
        tree.wait_log("reload: done", since)
        tree.command(gateway, "ready")
        tree.wait(since, event="got", op="serve", pid=gateway)
        heard = tree.find(since, event="got", pid=gateway)
        assert [(event["op"], event["fields"].get("generation")) for event in heard] == [
            ("attach", 2),
            ("serve", None),
        ]


def test_a_reload_waits_for_what_a_failed_one_left(tmp_path):
    """Else there would be three generations."""
    rules = [
        {"name": "worker 0", "generation": 2, "ignore_term": True, "start": "hang"},
        {"name": "worker 1", "generation": 2, "start": "hang"},
    ]
    with Running(tmp_path, process_mode(1, 2), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        stubborn = tree.wait(since, event="born", who="worker 0")["pid"]
        broken = tree.wait(since, event="born", who="worker 1")["pid"]
        tree.signal(signal.SIGHUP)
        tree.wait_log("it follows", since)
        tree.command(broken, "exit", code=1)
        tree.wait_log("reload failed", since)
        tree.wait(since, event="born", generation=3)
        assert stubborn not in tree.alive()
        tree.wait_log("reload: done", since)


@pytest.mark.parametrize("late", [False, True])
def test_an_old_worker_that_crashes_during_a_reload_is_restarted(tmp_path, late):
    """Nobody knows whether the reload will succeed; until then the slot is served by the old generation."""
    rules = [
        {"name": "worker 0", "generation": 2, "incarnation": 1, "start": "hang"},
        {"name": "worker 0", "generation": 1, "incarnation": 2, "start": "hang" if late else "now"},
    ]
    with Running(tmp_path, process_mode(1, 1), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        new = tree.wait(since, event="born", who="worker 0", generation=2)["pid"]
        os.kill(tree.child("worker 0", generation=1), signal.SIGKILL)
        again = tree.wait(since, event="born", who="worker 0", generation=1)["pid"]
        if not late:
            tree.wait(since, event="got", op="serve", pid=again)
        tree.command(new, "ready")
        tree.wait_log("reload: done", since)
        assert tree.wait(since, event="got", op="serve", pid=new)["generation"] == 2
        assert again not in tree.alive()
        # One that was not ready has nothing to retire from; it is just ended.
        assert bool(tree.find(since, event="got", op="retire", who="gateway 0")) is not late
        # A crash after it is restarted in the generation that serves.
        mark = tree.mark()
        os.kill(new, signal.SIGKILL)
        assert tree.wait(mark, event="got", op="serve", who="worker 0")["generation"] == 2


def test_50_reloads_leak_no_descriptor_and_leave_no_zombie(tmp_path):
    with Running(tmp_path, process_mode(1, 2)) as tree:
        tree.wait_ready()
        gateway = tree.child("gateway 0")
        counts, of_gateway = [], []
        for turn in range(50):
            since = tree.mark()
            tree.signal(signal.SIGHUP)
            tree.wait_log("reload: done", since)
            tree.wait(since, count=2, event="unlinked", pid=gateway)
            counts.append(tree.descriptors())
            of_gateway.append(len(os.listdir(f"/proc/{gateway}/fd")))
            assert tree.zombies() == []
            assert len(tree.alive()) == 3, f"turn {turn}"
        assert set(counts) == {counts[0]}
        assert set(of_gateway) == {of_gateway[0]}


# -- processes that are gateway and worker in one


def test_servers_are_replaced_one_at_a_time(tmp_path):
    with Running(tmp_path, base_mode(2)) as tree:
        tree.wait_ready()
        old = [tree.child(f"server {n}") for n in (0, 1)]
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        tree.wait_log("reload: done", since)
        order = []
        for n in (0, 1):
            new = tree.child(f"server {n}", since)
            ready = tree.wait(since, event="sent", op="ready", pid=new)
            drain = tree.wait(since, event="got", op="drain", pid=old[n])
            assert drain["fields"] == {"timeout": 4.5, "code": 1012}, "time is left to answer"
            drained = tree.wait(since, event="sent", op="drained", pid=old[n])
            stop = tree.wait(since, event="got", op="stop", pid=old[n])
            assert stop["fields"] == {"last": False, "reason": "reload: SIGHUP"}
            assert tree.wait(since, event="got", op="serve", pid=new)["fields"] == {}
            order += [tree.wait(since, event="born", pid=new), ready, drain, drained, stop]
        assert [event["index"] for event in order] == sorted(event["index"] for event in order)
        # The old server 1 was attached to the new server 0, by a link each way, before the old 0 drained.
        attached = tree.find(since, event="got", op="attach", pid=old[1])
        assert sorted((event["fields"]["worker"], event["fields"]["gateway"]) for event in attached) == [
            (0, 1),
            (1, 0),
        ]
        tree.command(tree.child("server 1"), "write", worker=1, gateway=0, data="new to new")
        got = tree.wait(since, event="bytes", data="new to new")
        assert (got["who"], got["generation"], got["peer_generation"]) == ("server 0", 2, 2)


def test_a_server_reload_that_fails_halfway_keeps_what_serves(tmp_path):
    rules = [{"name": "server 1", "generation": 2, "start": "exit", "code": 4}]
    with Running(tmp_path, base_mode(2), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        old = tree.child("server 1")
        tree.signal(signal.SIGHUP)
        tree.wait_log("reload failed: server 1", since)
        assert tree.child("server 0", generation=2) in tree.alive()
        assert old in tree.alive()
        assert not tree.find(since, event="got", op="drain", pid=old)


def test_a_server_that_does_not_drain_is_killed(tmp_path):
    rules = [{"generation": 1, "ignore_drain": True, "ignore_term": True}]
    with Running(tmp_path, base_mode(1), rules, graceful_timeout=0.5) as tree:
        tree.wait_ready()
        old = tree.child("server 0")
        tree.signal(signal.SIGHUP)
        tree.wait_log("reload: done")
        assert old not in tree.alive()


# -- changed files


def test_a_changed_file_is_a_reload(tmp_path):
    source = tmp_path / "code" / "chat.py"
    source.parent.mkdir()
    source.write_text("one")
    tree_folder = tmp_path / "tree"
    tree_folder.mkdir()
    with Running(tree_folder, process_mode(), watch=[source.parent]) as tree:
        tree.wait_ready()
        threads = set(os.listdir(f"/proc/{tree.pid}/task"))
        source.write_text("two")
        line = tree.wait_log("changed; starting generation 2")["line"]
        assert line.startswith("reload: ")
        assert "chat.py changed" in line
        tree.wait_log("reload: done")
        assert set(os.listdir(f"/proc/{tree.pid}/task")) == threads
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0


def test_f12_the_application_is_told_before_the_new_code_is_loaded(tmp_path):
    """In one worker, and the reload waits for its handler; a replacement of one worker tells nobody."""
    rules = [{"name": "worker 0", "ignore_event": True}]
    with Running(tmp_path, process_mode(), rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        asked = tree.wait(since, event="asked", who="worker 0")
        assert (asked["name"], asked["arguments"]) == ("before_reload", ["SIGHUP"])
        old = tree.child("worker 0")
        tree.command(old, "send", op="handled", answer=77)  # of a reload that was given up, say
        tree.command(old, "send", op="nonsense")
        tree.wait_log("the child message 'nonsense' is refused", since)
        assert not tree.find(since, event="born")
        tree.command(old, "send", op="handled", answer=2)
        tree.wait_log("reload: done", since)
        assert len(tree.find(since, event="asked")) == 1
        since = tree.mark()
        tree.command(tree.child("worker 1"), "send", op="replace", why="it is old")
        tree.wait_log("done, it is gone", since)
        assert not tree.find(since, event="asked")
        assert tree.find(since, event="got", op="stop")[0]["fields"]["reason"] == "replaced: it is old"


def test_f12_a_reload_does_not_wait_for_ever_for_the_application(tmp_path):
    rules = [{"name": "worker 0", "ignore_event": True}]
    with Running(tmp_path, process_mode(), rules, event_timeout=0.3) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGHUP)
        tree.wait_log("the 'before_reload' handler in worker 0")
        tree.wait_log("reload: done")


def test_f12_a_reload_goes_on_when_the_worker_that_was_told_dies(tmp_path):
    rules = [{"name": "worker 0", "ignore_event": True}]
    with Running(tmp_path, process_mode(), rules) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGHUP)
        os.kill(tree.wait(event="asked")["pid"], signal.SIGKILL)
        tree.wait_log("reload: done")
        assert not tree.lines("did not end within")


def test_f12_a_stop_while_the_application_is_told_of_a_reload(tmp_path):
    rules = [{"name": "worker 0", "ignore_event": True}]
    with Running(tmp_path, process_mode(), rules) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGHUP)
        tree.wait(event="asked")
        tree.signal(signal.SIGTERM)
        assert tree.ended(limit=5) == 0
        assert not tree.find(event="born", generation=2)


def test_f11_task_workers_that_are_worn_meanwhile_are_replaced_together(tmp_path):
    """They take no tasks any more: none waits until the others are done. Workers go one at a time."""
    tasks = [{"role": "task worker", "number": n, "worker": 2 + n} for n in range(3)]
    rules = [{"name": "task worker 0", "generation": 2, "start": "hang"}]
    with Running(tmp_path, process_mode() + tasks, rules) as tree:
        tree.wait_ready()
        since = tree.mark()
        old = {n: tree.child(f"task worker {n}") for n in range(3)}
        tree.command(old[0], "send", op="replace", why="0 is worn")
        first = tree.wait(since, event="born", who="task worker 0")["pid"]
        for who in ("worker 0", "worker 1", "task worker 1", "task worker 2"):
            tree.command(tree.child(who), "send", op="replace", why=f"{who} is worn")
            tree.wait(since, event="sent", op="replace", who=who)
        tree.command(old[0], "send", op="nonsense")  # behind theirs in time; what was sent before is read
        tree.wait_log("the child message 'nonsense' is refused", since)
        tree.command(first, "ready")
        for who in ("worker 0", "worker 1", "task worker 1", "task worker 2"):
            tree.wait(since, event="log", line=lambda line, who=who: f"replacing {who} " in line and "done" in line)
        served = [line.partition(": generation")[0] for line in tree.lines(": generation")]
        assert sorted(served) == sorted(
            [
                f"replacing task worker 0 (pid {old[0]})",
                f"replacing task worker 1 (pid {old[1]}), task worker 2 (pid {old[2]})",
                f"replacing worker 0 (pid {tree.find(event='born', who='worker 0')[0]['pid']})",
                f"replacing worker 1 (pid {tree.find(event='born', who='worker 1')[0]['pid']})",
            ]
        )
