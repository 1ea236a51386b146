"""The list of mutants fits the sources and the tests; the tool tells strong tests from weak ones."""

import ast
import subprocess
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest

from support.tools import load

mutants = load("mutants")
ROOT = Path(__file__).resolve().parents[2]
LISTED = mutants.read()


def test_the_list_fits_the_sources():
    """Whoever changes a line that an entry names changes the entry, too; what is left is still a program."""
    for mutant in LISTED:
        changed: dict[str, str] = {}
        for edit in mutant.edits:
            changed[edit.file] = edit.of(changed.get(edit.file) or (ROOT / edit.file).read_text())
        for name, text in changed.items():
            assert text != (ROOT / name).read_text()
            if name.endswith(".py"):
                compile(text, name, "exec")


@cache
def functions_of(file):
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_list_names_tests_that_exist():
    for mutant in LISTED:
        file, _, name = mutant.test.partition("::")
        assert name.partition("[")[0] in functions_of(file), mutant.test


def test_no_mutant_is_there_twice():
    told = [(mutant.removes, mutant.test) for mutant in LISTED]
    assert len(told) == len(set(told))


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A project of one function and two tests, of which only one looks at what it does."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # what is installed here takes half of the time
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_timeout")
    files = {
        "pyproject.toml": "[tool.pytest.ini_options]\ntimeout = 60\n",
        "add.py": "def add(a, b):\n    return a + b\n",
        "test_add.py": """
            from add import add
            def test_strong(): assert add(1, 2) == 3
            def test_weak(): assert add(0, 0) == 0
            def test_wrong(): assert add(1, 1) == 3
            """,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(dedent(text))
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("find", "put", "test", "verdict", "says"),
    [
        ("a + b", "a - b", "test_strong", "killed", "assert -1 == 3"),
        ("a + b", "a - b", "test_weak", "SURVIVED", ""),
        ("a * b", "a - b", "test_strong", "gone", "add.py has this text 0 times, and not once: 'a * b'"),
        ("a + b", "a +", "test_strong", "broken", "it is no Python"),
        ("a + b", "a - b", "test_that_is_not_there", "unfit", "pytest ended with 4"),
        ("a + b", "a - b", "test_wrong", "unfit", "assert 2 == 3"),
    ],
)
def test_verdicts(tree, capsys, find, put, test, verdict, says):
    before = sorted((path.name, path.read_bytes()) for path in tree.iterdir() if path.is_file())
    edit = mutants.Edit("add.py", find, put)
    sums = mutants.run(
        [mutants.Mutant("F0", "adding", f"test_add.py::{test}", (edit,))], tree, trust=verdict != "unfit"
    )
    assert dict(sums) == {verdict: 1}
    assert says in capsys.readouterr().out
    assert sorted((path.name, path.read_bytes()) for path in tree.iterdir() if path.is_file()) == before


def test_two_edits_of_one_file_add_up(tree):
    """A behaviour that two lines protect."""
    edits = (mutants.Edit("add.py", "return a + b", "c = a\n    return c"), mutants.Edit("add.py", "c = a", "c = b"))
    assert (
        mutants.judge(copy_of(tree), mutants.Mutant("F0", "adding", "test_add.py::test_strong", edits))[0] == "killed"
    )


def test_a_server_that_does_not_start_proves_nothing(tree):
    """Unless that is what the test looks at."""
    said = "raise AssertionError(r\"no '\\\\bready\\\\b' within 20 s\")"
    copy = copy_of(tree)
    for starts, verdict in ((True, "broken"), (False, "killed")):
        edit = mutants.Edit("add.py", "return a + b", said)
        mutant = mutants.Mutant("F0", "adding", "test_add.py::test_strong", (edit,), starts)
        assert mutants.judge(copy, mutant)[0] == verdict


def copy_of(tree):
    folder = tree / "copy"
    folder.mkdir()
    return mutants.Copy(tree, folder)


def test_numbers_choose():
    assert {mutant.guards for mutant in mutants.chosen(LISTED, ["f20", "F39"], python_only=False)} == {"F20", "F39"}
    assert mutants.chosen(LISTED, [], python_only=False) == LISTED
    assert not any(mutant.is_compiled for mutant in mutants.chosen(LISTED, [], python_only=True))
    assert mutants.main(["--list", "F20"]) == 0
    assert mutants.main(["F99"]) == 1
