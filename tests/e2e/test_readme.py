"""What the README says is true: its example runs, its commands exist, its figures are those that were measured."""

import importlib.util
import json
import re
import sys
import tomllib
import urllib.request

import pytest
from websockets.sync.client import connect

from support.serving import ROOT, Serving

README = (ROOT / "README.md").read_text()
LIMIT = 10.0


@pytest.fixture
def example(tmp_path):
    """The README's example in a file `chat.py`, on a port that is free."""
    text = re.search(r"<!-- example: .*? -->\n```python\n(.*?)```", README, re.DOTALL)[1]
    assert '127.0.0.1", 9501' in text
    (tmp_path / "chat.py").write_text(text.replace('"127.0.0.1", 9501', '"127.0.0.1", 0'))
    return tmp_path


@pytest.mark.parametrize("way", ["python chat.py", "mooring run chat:server"])
def test_the_example_does_what_it_says(example, way):
    assert f"`{way}`" in README
    argv = (
        (sys.executable, "chat.py") if way.startswith("python") else (sys.executable, "-m", "mooring", *way.split()[1:])
    )
    with Serving(example / "chat.py", argv=argv, cwd=example) as server:
        with (
            connect(f"{server.url}/?name=Ada", open_timeout=LIMIT) as ada,
            connect(server.url, open_timeout=LIMIT) as other,
        ):
            # each is answered when it is in
            ada.send("hello")
            assert ada.recv(LIMIT) == "Ada: hello"
            other.send("hi")
            assert ada.recv(LIMIT) == "anonymous: hi"
            while other.recv(LIMIT) != "anonymous: hi":
                pass
            ada.send("again")
            assert ada.recv(LIMIT) == other.recv(LIMIT) == "Ada: again"
        assert server.stop() == 0


def test_the_first_example_of_the_page_on_http_runs(tmp_path):
    text = re.search(r"```python\n(.*?)```", (ROOT / "docs/http.md").read_text(), re.DOTALL)[1]
    (tmp_path / "page.py").write_text(text.replace('"127.0.0.1", 9502', '"127.0.0.1", 0'))
    with Serving(tmp_path / "page.py", argv=(sys.executable, "page.py"), cwd=tmp_path) as server:
        with urllib.request.urlopen(f"{server.http}/hello?name=Ada", timeout=LIMIT) as answer:
            assert json.load(answer) == {"hello": "Ada"}
            assert answer.headers["Set-Cookie"] == "seen=yes; Path=/; SameSite=Strict; HttpOnly"
        assert server.stop() == 0


def test_the_program_that_checks_an_installation(tmp_path):
    text = re.search(r'title="hello.py"\n(.*?)```', (ROOT / "docs/install.md").read_text(), re.DOTALL)[1]
    (tmp_path / "hello.py").write_text(text.replace('"127.0.0.1", 9501', '"127.0.0.1", 0'))
    with Serving(tmp_path / "hello.py", argv=(sys.executable, "hello.py"), cwd=tmp_path) as server:
        with urllib.request.urlopen(f"http{server.url[2:]}", timeout=LIMIT) as answer:
            assert answer.read() == b"hello\n"
        with connect(server.url, open_timeout=LIMIT) as client:
            client.send("again")
            assert client.recv(LIMIT) == "again"
        assert server.stop() == 0


def test_the_page_on_installing_names_every_extra():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/install.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(told["optional-dependencies"])
    assert f"pip install {told['name']}\n" in README


def test_the_first_example_of_the_manual_runs(tmp_path):
    text = re.search(r"<!-- run by .*? -->\n```python\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL)[1]
    (tmp_path / "chat.py").write_text(text.replace('"127.0.0.1", 9501', '"127.0.0.1", 0'))
    with Serving(tmp_path / "chat.py", argv=(sys.executable, "chat.py"), cwd=tmp_path) as server:
        with connect(server.url, open_timeout=LIMIT) as client:
            client.send("hello")
            assert client.recv(LIMIT) == "hello"
        with urllib.request.urlopen(f"http{server.url[2:]}", timeout=LIMIT) as answer:
            assert answer.read() == b"hello\n"
        assert server.stop() == 0


def test_its_commands_are_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", README)) - {"make"}
    assert named
    assert named <= targets | {"everything"}


def test_the_files_it_names_are_there():
    for name in re.findall(r"`((?:docs|examples|bench|tests|\.ci)/[\w./-]*|[A-Z]+\.md)`", README):
        assert (ROOT / name).exists(), name


def test_its_figures_are_those_that_were_measured():
    spec = importlib.util.spec_from_file_location("publish", ROOT / "bench" / "publish.py")
    publish = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(publish)
    published = json.loads(publish.PUBLISHED.read_text())
    pages = [page.read_text() for page in publish.PAGES]
    for text in pages:
        assert publish.with_tables(text, published) == text, "run: python bench/publish.py"
    for table in publish.TABLES:
        assert f"<!-- {table}: written by bench/publish.py -->" in "".join(pages)
    for scenario in ("echo-100x1-32", "echo-1000x1-256", "echo-100x16-32"):
        assert {"mooring-base", "mooring-process", "picows"} <= set(published["rows"][scenario])
