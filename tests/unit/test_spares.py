"""Spares: processes that wait, and take the place of a worker that has ended."""

import os
import signal

from toys.harness import Running, process_mode


def warm(tree, number=0, since=0, **more):
    """The pid of the spare of that number, once it waits."""
    return tree.wait(since, who=f"spare {number}", event="sent", op="warm", **more)["pid"]


def test_a_spare_takes_the_place_at_once_and_another_is_warmed(tmp_path):
    with Running(tmp_path, process_mode(gateways=2), spare_worker_num=1) as tree:
        tree.wait_ready()
        spare = warm(tree)
        tree.wait_log("is ready to take the place of a worker")
        since = tree.mark()
        old = tree.child("worker 1")
        os.kill(old, signal.SIGKILL)
        serve = tree.wait(since, event="got", op="serve", who="worker 1")
        assert (serve["pid"], serve["generation"], serve["incarnation"]) == (spare, 1, 1)
        # it had its links before it was told which process it is, and gateways hear of it only when it is ready
        place = tree.wait(since, event="got", op="place", pid=spare)
        assert len(tree.find(since, event="got", op="attach", pid=spare)) == 2
        assert all(one["index"] < place["index"] for one in tree.find(since, event="got", op="attach", pid=spare))
        ready = tree.wait(since, event="sent", op="ready", pid=spare)
        for g in (0, 1):
            attach = tree.wait(since, event="got", op="attach", who=f"gateway {g}")
            assert attach["fields"].pop("link")
            assert attach["fields"] == {"worker": 1, "gateway": g, "generation": 1, "pid": spare, "service": "gateway"}
            assert attach["index"] > ready["index"]
        tree.command(spare, "write", gateway=1, data="here I am")
        assert tree.wait(since, event="bytes", who="gateway 1")["data"] == "here I am"
        tree.command(tree.child("gateway 0"), "write", worker=1, data="welcome")
        assert tree.wait(since, event="bytes", who="worker 1", pid=spare)["data"] == "welcome"
        # the next one
        other = warm(tree, since=since)
        assert other != spare
        since = tree.mark()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        assert tree.wait(since, event="got", op="serve", who="worker 0")["pid"] == other
        assert not tree.find(event="born", who="worker 0", incarnation=1), "no process was started for it"


def test_a_worker_that_dies_before_a_spare_is_warm_gets_the_one_on_its_way(tmp_path):
    rules = [{"name": "spare 0", "incarnation": 0, "start": "hang"}]
    with Running(tmp_path, process_mode(), rules, spare_worker_num=1) as tree:
        tree.wait_ready()
        spare = tree.wait(event="born", who="spare 0")["pid"]
        since = tree.mark()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        # its first `warm` comes when it has the slot already, and says nothing about that
        tree.wait(since, event="got", op="place", pid=spare)
        tree.wait(since, event="got", op="serve", who="worker 0", pid=spare)


def test_gateways_and_those_that_are_replaced_while_they_serve_take_no_spare(tmp_path):
    with Running(tmp_path, process_mode(), spare_worker_num=1) as tree:
        tree.wait_ready()
        spare = warm(tree)
        since = tree.mark()
        os.kill(tree.child("gateway 0"), signal.SIGKILL)
        tree.wait(since, event="got", op="serve", who="gateway 0", incarnation=1)
        tree.command(tree.child("worker 0"), "send", op="replace", why="it has worked long enough")
        tree.wait_log("done, it is gone", since)
        assert not tree.find(event="got", op="place")
        since = tree.mark()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        serve = tree.wait(since, event="got", op="serve", who="worker 0")
        assert (serve["pid"], serve["generation"]) == (spare, 2), "it has the number of what it takes the place of"


def test_a_reload_replaces_spares_when_the_new_generation_serves(tmp_path):
    with Running(tmp_path, process_mode(), spare_worker_num=2) as tree:
        tree.wait_ready()
        old = {warm(tree, 0), warm(tree, 1)}
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        tree.wait_log("reload: done", since)
        new = {warm(tree, 0, since, generation=2), warm(tree, 1, since, generation=2)}
        serve = tree.wait(since, event="got", op="serve", who="worker 0", generation=2)
        assert all(event["index"] > serve["index"] for event in tree.find(since, event="born", generation=2)[2:])
        since = tree.mark()
        for w in (0, 1):
            os.kill(tree.child(f"worker {w}"), signal.SIGKILL)
        taken = {tree.wait(since, event="got", op="serve", who=f"worker {w}")["pid"] for w in (0, 1)}
        assert taken == new
        assert not set(tree.alive()) & old


def test_a_reload_that_fails_keeps_the_spares_of_the_code_that_serves(tmp_path):
    rules = [{"generation": 2, "name": "worker 1", "start": "exit", "code": 3}]
    with Running(tmp_path, process_mode(), rules, spare_worker_num=1) as tree:
        tree.wait_ready()
        spare = warm(tree)
        since = tree.mark()
        tree.signal(signal.SIGHUP)
        tree.wait_log("reload failed", since)
        os.kill(tree.child("worker 0", generation=1), signal.SIGKILL)
        assert tree.wait(since, event="got", op="serve", who="worker 0")["pid"] == spare


def test_a_spare_that_dies_is_started_again_more_and_more_slowly(tmp_path):
    rules = [{"name": "spare 0", "incarnation": n, "start": "exit", "code": 5} for n in range(1, 4)]
    settings = {"spare_worker_num": 1, "restart_free": 1, "restart_backoff_max": 0.2, "degraded_after": 3}
    with Running(tmp_path, process_mode(), rules, restart_window=0.3, **settings) as tree:
        tree.wait_ready()
        since = tree.mark()
        os.kill(warm(tree), signal.SIGKILL)
        tree.wait_log("ended with exit code 5 before it was ready: restarting it in 0.", since)
        tree.wait_log("spare 0 is degraded", since)
        spare = warm(tree, since=since, incarnation=4)
        tree.wait_log(f"spare 0 (pid {spare}) is not degraded any more", since)
        assert not tree.find(since, who="worker 0")
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        assert tree.wait(since, event="got", op="serve", who="worker 0")["pid"] == spare


def test_a_spare_that_fails_in_its_place_is_a_crash_of_that_slot(tmp_path):
    rules = [{"name": "worker 0", "incarnation": n, "start": "exit", "code": 5} for n in (1, 2, 3)]
    settings = {"spare_worker_num": 1, "restart_free": 1, "restart_backoff_max": 0.2}
    # it has waited for longer than the window: that ends no series of crashes
    with Running(tmp_path, process_mode(), rules, restart_window=0.0, **settings) as tree:
        tree.wait_ready()
        warm(tree)
        tree.wait_log("is ready to take the place of a worker")
        since = tree.mark()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        tree.wait(since, event="got", op="serve", who="worker 0", incarnation=4)
        ended = tree.lines("ended with exit code 5 before it was ready: restarting it in 0.")
        assert len(ended) == 3
        warm(tree, since=since)


def test_a_slot_that_is_degraded_leaves_the_spares_to_the_others(tmp_path):
    settings = {"spare_worker_num": 1, "restart_free": 10, "degraded_after": 3}
    with Running(tmp_path, process_mode(), restart_window=60.0, **settings) as tree:
        tree.wait_ready()
        taken = set()

        def waiting():
            return tree.wait(event="sent", op="warm", pid=lambda pid: pid not in taken)["pid"]

        for n in (1, 2, 3, 4):
            spare = waiting()
            os.kill(tree.child("worker 0"), signal.SIGKILL)
            served = tree.wait(event="got", op="serve", who="worker 0", incarnation=n)["pid"]
            assert (served == spare) == (n < settings["degraded_after"])
            taken.add(served)
        assert tree.lines("worker 0 is degraded")
        os.kill(tree.child("worker 1"), signal.SIGKILL)
        assert tree.wait(event="got", op="serve", who="worker 1", incarnation=1)["pid"] == spare


def test_a_spare_that_never_gets_ready_in_its_place_is_given_up(tmp_path):
    rules = [{"name": "worker 0", "incarnation": 1, "start": "hang"}]
    with Running(tmp_path, process_mode(), rules, spare_worker_num=1, boot_timeout=5.0) as tree:
        tree.wait_ready()
        spare = warm(tree)
        tree.wait_log("is ready to take the place of a worker")
        since = tree.mark()
        os.kill(tree.child("worker 0"), signal.SIGKILL)
        tree.wait_log(f"worker 0 (pid {spare}) was not ready within 5 s: restarting it", since)
        tree.wait(since, event="got", op="serve", who="worker 0", incarnation=2)


def test_a_stop_ends_spares(tmp_path):
    rules = [{"name": "spare 1", "start": "hang"}, {"name": "spare 0", "ignore_stop": True}]
    with Running(tmp_path, process_mode(), rules, spare_worker_num=2) as tree:
        tree.wait_ready()
        warm(tree)
        tree.wait(event="born", who="spare 1")
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        assert tree.alive() == []
        assert not tree.lines("did not end in time")


def test_without_workers_of_their_own_there_are_none(tmp_path):
    specs = [{"role": "server", "number": 0, "gateway": 0, "worker": 0}]
    with Running(tmp_path, specs, spare_worker_num=1) as tree:
        tree.wait_ready()
        tree.signal(signal.SIGTERM)
        assert tree.ended() == 0
        assert not tree.find(event="born", who="spare 0")
