"""What `make test` adds to pytest: processes side by side, tests that are alone, how long it will take, bytecode."""

import json
import os
import subprocess
import sys

import pytest

from support.bytecode import compile_package
from support.progress import USUAL, Estimate, clock, in_words, read, write
from support.serving import ROOT

LIMIT = 60

CONFTEST = """
import os, time
import pytest
pytest_plugins = ["support.alone", "support.progress"]

def pytest_configure(config):
    config.addinivalue_line("markers", "alone: alone")

@pytest.fixture(autouse=True)
def noted(request):
    note("begins", request)
    time.sleep(0.05)
    yield
    note("ends", request)

def note(what, request):
    file = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{what} {request.node.name} {os.getpid()}\\n".encode())
    os.close(file)
"""
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(12))
def test_beside_others(number): ...

@pytest.mark.alone
@pytest.mark.parametrize("number", range(4))
def test_alone(number): ...

def test_that_fails():
    assert False
"""


@pytest.fixture
def run(tmp_path):
    """Runs these tests in three processes; gives what pytest printed."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(*options):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "-p",
                "xdist",
                "-n3",
                "--dist=load",
                "--maxschedchunk=1",
                *options,
            ],
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": f"{ROOT}/tests", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT,
        ).stdout

    return run


def test_a_marked_test_has_no_other_beside_it(run, tmp_path):
    run()
    notes = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert len(notes) == 2 * 17
    assert len({pid for _, _, pid in notes}) == 3
    running, together = set(), 0
    for what, name, _ in notes:
        if what == "begins":
            running.add(name)
            together = max(together, len(running))
            assert len(running) == 1 or not any("alone" in other for other in running), notes
        else:
            running.remove(name)
    assert together > 1, "nothing ran side by side, so nothing was seen"


def test_it_says_how_long_it_takes_and_what_failed(run, tmp_path):
    first = run()
    assert "17 tests by 3 processes: about 10 s, at a first guess" in first
    assert first.count("FAILED test_it.py::test_that_fails\n") == 1  # at once; the summary adds the reason
    assert "1 failed, 16 passed" in first.splitlines()[-1]
    tests, rate = read(tmp_path / "build" / "durations.json")
    assert len(tests) == 17
    assert all(0.05 <= took < LIMIT for took in tests.values())
    assert rate is None  # of so short a run
    assert "17 tests by 3 processes: about 10 s\n" in run()


def test_without_processes_pytest_is_as_ever(run):
    printed = run("-n0")
    assert "17 tests by" not in printed
    assert "test_it.py ................F" in printed


# ------------------------------------------------------------------------------------------------ the estimate


def test_what_the_last_run_took_counts_first_and_then_what_is_seen():
    estimate = Estimate({"a": 60.0, "b": 60.0, "c": 60.0}, rate=2)
    estimate.expect(["a", "b", "c"])
    assert estimate.left(0) == 90
    estimate.done("a")
    assert estimate.left(30) == 60  # just as fast as it was
    estimate.done("b")
    assert estimate.left(90) == 60 / (180 / 120)  # slower
    estimate.done("c")
    assert estimate.left(100) == 0


def test_an_unknown_test_counts_as_those_of_its_folder():
    estimate = Estimate({"tests/e2e/test_a.py::test": 9}, rate=1)
    assert estimate.of("tests/e2e/test_a.py::test") == 9
    assert estimate.of("tests/e2e/test_b.py::test") == USUAL["e2e"]
    assert estimate.of("tests/unit/test_b.py::test") == USUAL["unit"]
    assert {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("**/test_*.py"))} == set(USUAL)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "10 s"), (44, "40 s"), (49, "50 s"), (60, "1 min"), (89, "1 min"), (91, "2 min"), (540, "9 min")],
)
def test_an_estimate_in_words(seconds, words):
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (600, "10:00")]
)
def test_a_time_on_the_clock(seconds, shown):
    assert clock(seconds) == shown


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"tests": 1, "rate": 1}', '{"tests": {}}'])
def test_a_record_that_cant_be_read_is_none(tmp_path, text):
    path = tmp_path / "durations.json"
    path.write_text(text)
    assert read(path) == ({}, None)
    assert read(tmp_path / "missing") == ({}, None)


def test_a_short_run_leaves_the_rate_of_a_long_one(tmp_path):
    path = tmp_path / "build" / "durations.json"
    write(path, {"a": 1.0}, 3.5)
    write(path, {"a": 2.0}, None)
    assert read(path) == ({"a": 2.0}, 3.5)
    assert json.loads(path.read_text())
    assert os.listdir(path.parent) == [path.name]


# ------------------------------------------------------------------------------------------------ bytecode


def test_what_is_compiled_is_valid_for_what_the_source_says_and_not_for_its_time(tmp_path):
    source = tmp_path / "package" / "module.py"
    source.parent.mkdir()
    source.write_text("value = 1\n")
    assert compile_package(source.parent) == 1
    assert compile_package(source.parent) == 0
    was = source.stat()

    def value():
        code = "import module; print(module.value, module.__spec__.cached)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=source.parent, capture_output=True, text=True, timeout=LIMIT, check=True
        )
        return done.stdout.split()[0]

    assert value() == "1"
    source.write_text("value = 2\n")
    os.utime(source, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert value() == "2"
    assert compile_package(source.parent) in (0, 1)  # the interpreter may have done it
    assert compile_package(source.parent) == 0
