"""For all tests."""

import signal
from pathlib import Path

import pytest

import mooring
from support.tools import load

# A shell that starts a command in the background has it ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Ends here if the build is not what the sources say, when it is one of tools/build.py."""
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
