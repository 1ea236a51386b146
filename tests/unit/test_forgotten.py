"""A script that makes a server and never starts it is told so at its end; nobody else is."""

import subprocess
import sys
from pathlib import Path

import pytest

WORDS = "chat.py has made a Server and ended without start()"
MAKES = "from mooring import Server\nserver = Server()\n"


def said(folder: Path, text: str, *options: str) -> str:
    """What the script, or what is given instead of it, writes to stderr."""
    (folder / "chat.py").write_text(text)
    command = [sys.executable, *(options or ("chat.py",))]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False).stderr


@pytest.mark.parametrize(
    "text",
    [MAKES, "from mooring import Server\ndef main():\n    return Server()\nmain()\n"],
    ids=["at once", "function"],
)
def test_a_script_that_forgets(tmp_path: Path, text: str) -> None:
    found = said(tmp_path, text)
    assert found.startswith(f"mooring: {WORDS}, so nothing is served: call server.start() at its end, or run it with")
    assert found.endswith("`mooring run chat:server`\n")
    assert found.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        MAKES + "def main():\n    server.start()\nif len('--help') == 6:\n    raise SystemExit\nmain()\n",
        MAKES + "from mooring.testing import in_process\n@server.on('message')\ndef said(server, frame): pass\n"
        "with in_process(server): pass\n",
        "import os, sys\n" + MAKES + "if os.fork() == 0: sys.exit()\nos.wait()\nos._exit(0)\n",
    ],
    ids=["it has a start", "in a test", "forked"],
)
def test_a_script_that_does_not(tmp_path: Path, text: str) -> None:
    assert WORDS not in said(tmp_path, text)


def test_what_has_ended_a_script_is_enough(tmp_path: Path) -> None:
    found = said(tmp_path, MAKES + "1 / 0\n")
    assert found.rstrip().endswith("ZeroDivisionError: division by zero")


def test_who_imports_the_script(tmp_path: Path) -> None:
    assert said(tmp_path, MAKES, "-c", "import chat") == ""
