"""The manual holds together: its code is Python, its settings exist, its decisions are listed once each."""

import re
import textwrap

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
