"""The manual holds together: its code is Python, its settings exist, its decisions are listed once each."""

import ast
import re
import textwrap
import tomllib

import pytest

import mooring
import mooring.testing
from mooring.app.handlers import EVENTS
from mooring.config import HOME
from support.serving import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.parent.name != "adr")
DECISIONS = sorted((ROOT / "docs" / "adr").glob("0*.md"))
PYTHON = re.compile(r"```python[^\n]*\n(.*?)```", re.DOTALL)
TABLE_ROW = re.compile(r"^\| `([a-z_0-9]+)` \|", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_its_code_is_python(page):
    for number, code in enumerate(PYTHON.findall(page.read_text()), 1):
        code = textwrap.dedent(code)
        compile(code, f"{page.name}, example {number}", "exec", flags=0x2000)  # await at the top is allowed in a sketch


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_a_table_of_settings_names_those_there_are(page):
    for table in re.findall(r"^\| setting \|.*?(?=\n\n)", page.read_text() + "\n\n", re.MULTILINE | re.DOTALL):
        unknown = set(TABLE_ROW.findall(table)) - set(HOME)
        assert not unknown, f"{page.name} names settings that are not there"


def test_every_decision_is_listed_once():
    numbers = [page.name[:4] for page in DECISIONS]
    assert numbers == sorted(set(numbers))
    listed = re.findall(r"\((0\d+-[\w-]+\.md)\)", (ROOT / "docs" / "adr" / "index.md").read_text())
    assert listed == [page.name for page in DECISIONS]
    for page in DECISIONS:
        assert page.read_text().startswith(f"# {int(page.name[:4])}. "), page.name


def test_every_public_name_has_its_place_in_the_reference():
    text = "\n".join(page.read_text() for page in PAGES)
    for package in (mooring, mooring.testing):
        shown = re.findall(rf"^::: {package.__name__}\.(\w+)$", text, re.MULTILINE)
        assert sorted(shown) == sorted(package.__all__), "write `::: mooring.NAME` into a page of docs/api/, once"


def test_the_page_of_events_has_them_all_with_what_they_are_given():
    found = {}
    for row in re.findall(r"^\| (`.*)\|$", (DOCS / "events.md").read_text(), re.MULTILINE):
        names, _, parameters = row.split(" | ")
        given = re.findall(r"`([\w, ]+)`", parameters)
        for number, name in enumerate(re.findall(r"`(\w+)`", names)):
            found[name] = tuple(given[min(number, len(given) - 1)].split(", "))
    assert found == EVENTS


def test_the_page_of_faults_has_each_number_and_tests_that_exist():
    rows = dict(re.findall(r"^\| ([FC]\d+) \| (.*) \|$", (DOCS / "faults.md").read_text(), re.MULTILINE))
    assert list(rows) == [f"F{n}" for n in range(1, 49)] + [f"C{n}" for n in range(1, 24)]
    for number, row in rows.items():
        named = re.findall(r"<br>`(\S+\.py)` `(\w+)`$", row)
        assert len(named) == 1 or (not named and 40 <= int(number[1:]) <= 48), number
        for file, test in named:
            tree = ast.parse((ROOT / "tests" / file).read_text())
            assert test in {node.name for node in ast.walk(tree) if hasattr(node, "name")}, f"{number}: {file}::{test}"
            told = re.match(r"test_([fc])0?(\d+)_", test)
            assert told is None or number == f"{told[1].upper()}{told[2]}", f"{number} names a test of another"


def test_numbers_of_faults_are_on_their_page():
    """Those that tests are named after, and those that mutants guard."""
    known = set(re.findall(r"^\| ([FC]\d+) \|", (DOCS / "faults.md").read_text(), re.MULTILINE))
    mutants = tomllib.loads((ROOT / "tools" / "mutants.toml").read_text())["mutant"]
    words = {"help", "recovery", "sessions", "watching", "testing", "work"}  # of what the manual promises besides
    used = {mutant["guards"] for mutant in mutants if mutant["guards"][0] != "G"} - words
    for file in (ROOT / "tests").rglob("test_*.py"):
        named = re.findall(r"def test_([fc])0?(\d+)_", file.read_text())
        used.update(f"{kind.upper()}{number}" for kind, number in named)
    assert used <= known
    assert len(used) > 50


PACKAGES = sorted(path.parent for path in (ROOT / "src" / "mooring").glob("*/__init__.py"))
HEADS = ["## What it is for", "## How data goes through it", "## What may not happen"]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_each_package_has_a_page_of_its_own(package):
    text = (package / "README.md").read_text()
    assert text.startswith(f"# {package.name}: ")
    assert re.findall("^## .*", text, re.MULTILINE) == HEADS
    assert text.count("\n") <= 45, "half a page"
    for name in re.findall(r"(?<!/)\b(\w+\.(?:py|pyx))\b", text):
        assert any((package.parent).rglob(name)), f"{name} is not there"


def test_the_table_of_changes_names_what_is_there():
    """Files, and in the files of a row what it names in them."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Which files does a change touch?")[2]
    rows = re.findall(r"^\| (.*) \| (.*) \|$", text.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) > 20
    for change, row in rows:
        words = set(re.findall(r"`([^`]+)`", row)) - {".pyi"}
        paths = {word for word in words if re.search(r"/$|\.(py|pyi|pyx|pxd|md|toml|yml)$", word)}
        files = [path for word in paths for path in (ROOT / word, ROOT / "src/mooring" / word) if path.exists()]
        assert len(files) >= len(paths), f"{change}: one of {paths} is not there"
        there = "\n".join(file.read_text() for file in files if file.is_file())
        for word in words - paths - {"engine"}:
            name = word.rpartition(".")[2]
            if re.fullmatch(r"_?[A-Za-z]\w+(\.\w+)?", word) and not name.endswith("NAME"):
                assert re.search(rf"\b{name}\b", there), f"{change}: {word} is in none of {paths}"


OBJECTS = {
    "server": mooring.Server,
    "request": mooring.Request,  # but for pytest's, which has a `param`
    "response": mooring.Response,
    "frame": mooring.Frame,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_what_it_calls_is_there(page):
    """`server.push(...)` and the like, in the text and in its code."""
    text = re.sub(r"```(?!python).*?```", "", page.read_text(), flags=re.DOTALL)
    for word, kind in OBJECTS.items():
        end = r"(?=\()" if word == "server" else r"\b"  # the configuration of lighttpd has words like server.modules
        named = set(re.findall(rf"(?<![\w./-]){word}\.([a-z_]+){end}", text))
        missing = {name for name in named if not hasattr(kind, name)} - {"param"}
        assert not missing, f"{word}.{missing} in {page.name}: there is no such thing"
