"""The interpreter's command line, read as the interpreter reads it: it says itself which arguments are left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mooring.app.command import Command

SHOW = "import json, sys; print(json.dumps([sys.orig_argv, sys.argv]))"

CASES: list[tuple[list[str], str, str, list[str]]] = [
    (["show.py", "a", "-b"], "script", "show.py", []),
    (["-B", "show.py", "-m", "x"], "script", "show.py", ["-B"]),
    (["-bBs", "-OO", "show.py"], "script", "show.py", ["-bBs", "-OO"]),
    (["-W", "ignore", "-Xdev", "show.py", "a"], "script", "show.py", ["-W", "ignore", "-X", "dev"]),
    (["-uWignore", "show.py"], "script", "show.py", ["-u", "-W", "ignore"]),
    (["-W", "-c", "show.py", "a"], "script", "show.py", ["-W", "-c"]),
    (["--check-hash-based-pycs", "always", "show.py", "a"], "script", "show.py", ["--check-hash-based-pycs", "always"]),
    (["-B", "--", "show.py", "a"], "script", "show.py", ["-B"]),
    (["-q", "show.py", "--", "a"], "script", "show.py", []),
    (["-m", "show", "a", "-c"], "module", "show", []),
    (["-Bmshow", "a"], "module", "show", ["-B"]),
    (["-u", "-m", "show", "-m", "a"], "module", "show", ["-u"]),
    (["-c", SHOW, "a", "-W"], "text", SHOW, []),
    (["-Bc", SHOW, "a"], "text", SHOW, ["-B"]),
    (["-uc" + SHOW], "text", SHOW, ["-u"]),
    (["folder", "a"], "archive", "folder", []),
    (["-u", "-", "a"], "", "", ["-u"]),
    ([], "", "", []),
]


@pytest.mark.parametrize(("words", "kind", "name", "options"), CASES, ids=[" ".join(one[0])[:30] for one in CASES])
def test_a_command_as_the_interpreter_reads_it(
    words: list[str], kind: str, name: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "folder").mkdir()
    for place in ("show.py", "folder/__main__.py"):
        (tmp_path / place).write_text(SHOW)
    run = subprocess.run(
        [sys.executable, *words], input=SHOW, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    orig_argv, argv = json.loads(run.stdout)
    monkeypatch.chdir(tmp_path)
    command = Command.read(orig_argv)
    assert (command.kind, command.name, command.options) == (kind, name, options)
    assert command.arguments == argv[1:]
    assert command.orig_argv == orig_argv


@pytest.mark.parametrize("words", [["-V"], ["-Bz", "show.py"], ["--version"], ["-h", "show.py"]])
def test_what_is_no_command_of_a_program_is_not_read(words: list[str]):
    """None runs one, or nobody knows yet what it does."""
    command = Command.read(["python", *words])
    assert (command.kind, command.options, command.arguments) == ("", None, [])


def test_an_option_whose_value_is_left_out():
    """The interpreter refuses it; who reads it must not fail."""
    assert Command.read(["python", "-m"]).name == ""
    assert Command.read(["python", "-W"]).options == ["-W", ""]


def test_without_a_command_line():
    """As in an embedded interpreter."""
    assert Command.read([]) == ("", "", None, [], [])


def test_the_command_of_this_process():
    assert Command.of_this_process().orig_argv == sys.orig_argv
