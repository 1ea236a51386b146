"""The parts of the supervisor that need no process: signals, delays, deadlines, specs, the watcher."""

import itertools
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from mooring.errors import ConfigError
from mooring.roles import ProcessSpec
from mooring.supervisor.child import Child, ChildState, Exit
from mooring.supervisor.deadlines import Deadlines
from mooring.supervisor.restarts import Restarts
from mooring.supervisor.signals import HANDLED, Signals
from mooring.supervisor.watcher import Watcher
from support.descriptors import open_descriptors

# -- signals


def test_signals_arrive_in_order_however_many_there_were():
    """300 processes that end at once must not hide the SIGTERM behind them."""
    with Signals() as signals:
        assert signals.take() == []
        for _ in range(5000):
            signal.raise_signal(signal.SIGCHLD)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert select.select([signals.fileno()], [], [], 5)[0]
        taken = signals.take()
        assert len(taken) == 5002
        assert taken[-2:] == [signal.SIGTERM, signal.SIGINT]
        assert signals.take() == []


def test_the_handlers_of_before_are_back_afterwards():
    before = [signal.getsignal(number) for number in HANDLED]
    descriptors = open_descriptors()
    with Signals():
        assert [signal.getsignal(number) for number in HANDLED] != before
    assert [signal.getsignal(number) for number in HANDLED] == before
    assert open_descriptors() == descriptors
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    assert wakeup == -1


# -- restarts


def delays(restarts, *served):
    return [restarts.delay(seconds) for seconds in served]


def test_the_first_crashes_are_free_and_the_others_wait_twice_as_long_each():
    found = delays(Restarts(2, 10.0, 5.0), *[0.0] * 12)
    assert found[:2] == [0.0, 0.0]
    for delay, whole in zip(found[2:], (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0), strict=True):
        assert whole * 0.75 <= delay <= whole


def test_a_series_ends_when_a_process_has_served_long_enough():
    restarts = Restarts(1, 10.0, 5.0)
    assert [bool(delay) for delay in delays(restarts, 0.0, 9.9, 9.9, 10.0, 0.0)] == [
        False,
        True,
        True,
        False,
        True,
    ]
    restarts.reset()
    assert restarts.delay(0.0) == 0.0


def test_a_process_that_never_served_ends_no_series_whatever_the_window():
    assert [bool(delay) for delay in delays(Restarts(1, 0.0, 5.0), 0.0, 0.0, 0.0)] == [False, True, True]


def test_a_long_night_of_crashes_overflows_nothing():
    restarts = Restarts(0, 10.0, 5.0)
    assert max(delays(restarts, *[0.0] * 3000)) <= 5.0


# -- deadlines


def test_deadlines_run_in_order_of_time_and_each_once():
    deadlines, ran = Deadlines(), []
    assert deadlines.timeout() is None
    for name, seconds in (("late", 0.02), ("soon", 0.0), ("soon too", 0.0), ("never", 3600.0)):
        deadlines.after(seconds, lambda name=name: ran.append(name))
    assert deadlines.timeout() == 0.0
    deadlines.run()
    assert ran == ["soon", "soon too"]
    waited = deadlines.timeout()
    assert waited is not None
    assert 0.0 < waited <= 0.02
    end = time.monotonic() + 5
    while "late" not in ran and time.monotonic() < end:
        select.select([], [], [], deadlines.timeout())
        deadlines.run()
    assert ran == ["soon", "soon too", "late"]


def test_a_cancelled_deadline_is_not_waited_for_and_does_not_run():
    deadlines, ran = Deadlines(), []
    first = deadlines.after(0.0, lambda: ran.append(1))
    second = deadlines.after(0.0, lambda: ran.append(2))
    # The first takes the second back when both are due already.
    first.action = lambda: (ran.append(1), second.cancel())
    deadlines.run()
    assert ran == [1]
    deadlines.after(60.0, lambda: None).cancel()
    assert deadlines.timeout() is None
    first.cancel()  # after it ran: nothing happens


def test_what_an_action_sets_for_now_runs_in_the_next_turn():
    """Else an action that sets itself again would never let the loop go on."""
    deadlines, ran = Deadlines(), []

    def again():
        ran.append(1)
        deadlines.after(0.0, again)

    deadlines.after(0.0, again)
    deadlines.run()
    assert ran == [1]
    deadlines.run()
    assert ran == [1, 1]


# -- specs and states


@pytest.mark.parametrize(
    ("role", "gateway", "worker"),
    [
        ("gateway", None, None),
        ("gateway", 0, 0),
        ("worker", 0, 0),
        ("worker", None, None),
        ("server", 0, None),
        ("task", None, None),
    ],
)
def test_a_spec_that_is_no_process(role, gateway, worker):
    with pytest.raises(ValueError, match=role):
        ProcessSpec(role, 0, gateway, worker)


def test_the_state_of_a_child_never_goes_back():
    order = list(ChildState)
    for before, after in itertools.product(order, order):
        child = Child(ProcessSpec("worker", 0, None, 0), 1, 0)
        child.state = before
        if after is ChildState.GONE:
            child.become(after)
        elif order.index(after) <= order.index(before):
            with pytest.raises(AssertionError, match="can't go from"):
                child.become(after)


def test_an_end_is_named_as_a_person_would():
    assert str(Exit(3, None)) == "exit code 3"
    assert str(Exit(None, 9)) == "SIGKILL"
    assert str(Exit(None, 40)) == "signal 40"


# -- watcher


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no '.*nowhere'"):
        Watcher([tmp_path, tmp_path / "nowhere"])


def test_without_watchfiles_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"mooring-server\[watch\]"):
        Watcher([tmp_path])


def test_a_watch_that_fails_is_logged_and_ends_nothing(tmp_path, monkeypatch, caplog):
    def fails(*paths, **options):
        raise OSError("no inotify watches left")
        yield

    monkeypatch.setattr("watchfiles.watch", fails)
    watcher = Watcher([tmp_path])
    watcher.close()
    assert caplog.messages[0].startswith("watch: files are looked at each 1 s")
    assert all("no inotify watches left" in message for message in caplog.messages)


def test_f10_a_signal_never_meets_the_process_that_got_the_number():
    """As if the kernel had given the pid of a child that has ended to a stranger: before it is reaped, and after."""
    child = Child(ProcessSpec("worker", 0, worker=0), 1, 0)
    child.launch([sys.executable, "-c", "pass"], {}, [])
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        child.pid = stranger.pid
        child.signal(signal.SIGKILL)
        assert child.reap() == Exit(0, None), "not the stranger's end"
        child.signal(signal.SIGKILL)
        child.forget()
        child.signal(signal.SIGKILL)
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.2)
    finally:
        stranger.kill()
        stranger.wait()
