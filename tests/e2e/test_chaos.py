"""A short form of `make chaos`: each nemesis for some seconds, and applications that do one thing wrong on purpose."""

from functools import partial

import pytest

from support.tools import verdict

run = partial(verdict, "nothing_lost")


@pytest.mark.parametrize("nemesis", ["kill", "reload", "stop", "descriptors", "bytes", "misdeeds", "mixed"])
def test_nothing_is_lost(nemesis):
    result = run("--nemesis", nemesis, "--duration", "2", "--clients", "12", "--gateways", "2")
    assert not any(result["faults"].values()), (result["seed"], result["faults"], result["log"])
    assert result["sent"] == result["answered"] + result["uncertain"] > 100
    # one that was killed may have had no time for its note
    assert result["sent"] - result["uncertain"] <= result["begun"] <= result["sent"]
    assert result["acts"] or nemesis == "bytes"


def test_handlers_that_are_interrupted_are_reported():
    """Slow handlers, so that a kill finds one running: at most one each."""
    result = run("--nemesis", "kill", "--duration", "3", "--clients", "12", "--work", "30", "--window", "2")
    assert not any(result["faults"].values()), (result["seed"], result["faults"], result["log"])
    assert 0 < result["uncertain"] <= result["acts"]["kill"]


def test_suspended_handlers_are_reported():
    result = run("--nemesis", "kill", "--duration", "3", "--clients", "12", "--handlers", "async", "--work", "20")
    assert not any(result["faults"].values()), (result["seed"], result["faults"], result["log"])
    assert 0 < result["uncertain"] <= 12 * result["acts"]["kill"]


def test_what_is_interrupted_is_handled_again():
    arguments = ("--clients", "12", "--work", "30", "--window", "2", "--redeliver")
    result = run("--nemesis", "kill", "--duration", "3", *arguments)
    assert not any(result["faults"].values()), (result["seed"], result["faults"], result["log"])
    assert result["sent"] == result["answered"] + result["quarantined"]
    assert result["begun"] > result["sent"]


@pytest.mark.parametrize(("mode", "nemesis"), [("process", "gateway"), ("base", "kill")])
def test_only_what_was_in_flight_is_in_doubt_when_a_gateway_dies(mode, nemesis):
    # so many clients that each process has some when the first one is killed: of few, one may have taken all
    result = run("--nemesis", nemesis, "--mode", mode, "--duration", "5", "--clients", "40", "--window", "4")
    assert not any(result["faults"].values()), (result["seed"], result["faults"], result["log"])
    assert result["indeterminate"] <= 4 * result["reconnects"]
    assert result["reconnects"] > 0


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        ("lose", "silently_lost"),
        ("double", "duplicated"),
        ("swap", "reordered"),
        ("corrupt", "corrupted"),
        ("misdirect", "cross_talk"),
        ("invent", "phantom"),
        ("cut", "disconnected"),
        ("repeat", "handled_twice"),
    ],
)
def test_a_fault_that_was_planted_is_found(plant, fault):
    arguments = ("--messages", "900", "--clients", "4", "--grace", "1", "--workers", "1")
    result = run("--nemesis", "none", "--plant", plant, "--duration", "2", *arguments)
    assert result["verdict"] == "FAIL"
    assert result["faults"][fault] > 0, result["faults"]
