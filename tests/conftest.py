"""For all tests. `make test` runs them in several processes (pytest-xdist), `pytest tests/unit/test_ws.py` in one."""

import gc
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import mooring
from support.bytecode import compile_package
from support.tools import load

pytest_plugins = ["support.alone", "support.progress"]

# Each process of a run would rewrite the assertions of all test modules, ten seconds' work, where nobody may keep it.
sys.dont_write_bytecode = False

# A shell that starts a command in the background has it ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No example has to be quick: the machine has other things to do.
settings.register_profile("mooring", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mooring")

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Ends here if the build is not what the sources say, when it is one of tools/build.py."""
    if hasattr(config, "workerinput"):
        return  # the process that has started this one has looked
    home = Path(mooring.__file__).parents[1]
    if home.is_relative_to(ROOT / "build"):
        name = home.relative_to(ROOT / "build").parts[0]
        if name == "release":
            pytest.exit(
                f"the tests need the checks of the debug build: {ROOT}/.venv/bin/python tools/build.py debug", 4
            )
        problem = load("build").lacks(name)
        if problem:
            pytest.exit(problem, 4)
    compile_package()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that start a tree of toy processes; tests/contract has a rule of its own. What takes long comes
    first: begun last, it would keep one process busy while the others have nothing left to take."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"each process would have another address in {item.nodeid}: give it `ids`")
        if hasattr(getattr(item, "module", None), "Running"):
            item.add_marker("own_server")


def pytest_collection_finish() -> None:
    """Nine thousand tests stay until the end: whoever collects garbage need not look at them each time."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: two for each processor, as most tests wait about half of their time for a server."""
    return 2 * len(os.sched_getaffinity(0))
