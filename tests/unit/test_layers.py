"""The layer rule, held by the tree as it is; and a tool that would notice if it were not."""

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "layers.py"

spec = importlib.util.spec_from_file_location("layers", TOOL)
assert spec is not None
assert spec.loader is not None
layers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(layers)

CLEAN = {
    "__init__.py": "from mooring.server import Server\nfrom mooring._core.ws import Frame\n",
    "__main__.py": "def main():\n    from .runtime import boot\n    from .cli import main\n",
    "errors.py": "class MooringError(Exception): ...\n",
    "types.py": "from enum import IntEnum\n",
    "config.py": "from .errors import MooringError\n",
    "runtime.py": "from mooring.supervisor import Supervisor\nfrom mooring.gateway.gateway import Gateway\n",
    "server.py": "import mooring.runtime\n",
    "cli/__init__.py": "import click\nfrom mooring import config\nfrom mooring.server import Server\n",
    "gateway/__init__.py": "",
    "gateway/gateway.py": "from mooring.gateway import other\nfrom mooring import config, errors\n",
    "gateway/other.py": "from . import gateway\nfrom .gateway import Gateway\nfrom ..config import HOME\n",
    "supervisor/__init__.py": "import mooring.config\n",
    "_core/__init__.py": "",
    "_core/buffer.pyx": 'cdef extern from "unistd.h" nogil:\n    int close(int fd)\n',
    "_core/ws.pyx": "from mooring._core.buffer cimport (\n    Buffer, free,\n)\nimport mooring.types\n",
    "_core/ws.pxd": "from mooring._core.buffer cimport Buffer\n",
    "_core/http.pyx": 'import re\ncimport cython\ninclude "http_lines.pxi"\n',
    "_core/http_lines.pxi": "from libc.string cimport memchr\n",
    "_core/relay.pyx": "import logging, mmap\nfrom mooring._core.ws cimport Frame\nimport mooring.errors\n",
}


@pytest.fixture
def tree(tmp_path):
    """Writes a small tree that is in order, with some files changed; what the tool says of it."""

    def write(**changes):
        for name, text in (CLEAN | changes).items():
            path = tmp_path / "mooring" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return [line.removeprefix(f"{tmp_path}/mooring/") for line in layers.violations(tmp_path)]

    return write


def test_the_layer_rule_holds():
    assert layers.violations(ROOT / "src") == []


def test_every_source_was_looked_at_and_its_imports_seen():
    """An expression that finds nothing would find no violation either."""
    package = ROOT / "src" / "mooring"
    seen = {}
    for path in package.rglob("*"):
        if path.suffix in layers.SUFFIXES:
            place = path.relative_to(package)
            seen[str(place)] = layers.imports(path, ["mooring", *place.with_suffix("").parts])
    assert {
        "mooring._core.ledger.Books",
        "mooring._core.hub.Hub",
        "mooring._core.http_exchange.Sink",
        "mooring.journal.own_logger",
    } <= seen["_core/relay.pyx"]
    assert "mooring._core.http.HttpCodec" in seen["_core/http_exchange.pyx"]
    assert "mooring.supervisor.child.Child" in seen["supervisor/tree.py"]
    for name, found in seen.items():
        text = (package / name).read_text()
        assert ("cimport mooring" in text or "from mooring" in text) <= bool(found), name


def test_the_manual_draws_the_same_table():
    text = (ROOT / "docs" / "architecture.md").read_text().partition("\n## Layers\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(layers.LAYERS) + 1))
    assert [set(re.findall(r"`(\w+)`", names)) for _, names in rows] == layers.LAYERS


def test_no_unit_stands_in_two_rows():
    for rows in (layers.LAYERS, layers.CORE):
        assert max(Counter(name for row in rows for name in row).values()) == 1


def test_a_tree_that_is_in_order(tree):
    assert tree() == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        # upwards
        ("errors.py", "from mooring.types import Opcode", "errors must not import mooring.types.Opcode"),
        ("config.py", "import mooring.gateway.gateway", "config must not import mooring.gateway.gateway"),
        ("config.py", "from mooring import gateway", "config must not import mooring.gateway"),
        ("config.py", "from . import runtime", "config must not import mooring.runtime"),
        ("runtime.py", "from .server import Server", "runtime must not import mooring.server.Server"),
        ("server.py", "from mooring import Server", "server must not import mooring.Server"),
        ("cli/__init__.py", "import mooring", "cli must not import mooring"),
        # sideways
        (
            "gateway/gateway.py",
            "from ..supervisor import Supervisor",
            "gateway must not import mooring.supervisor.Supervisor",
        ),
        # hidden in a function, and for the type checker only
        (
            "config.py",
            "def late():\n    import mooring.server as server",
            "config must not import mooring.server",
        ),
        (
            "supervisor/__init__.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mooring.runtime import boot",
            "supervisor must not import mooring.runtime.boot",
        ),
        # out of the core
        (
            "_core/relay.pyx",
            "from mooring.config import Settings",
            "_core must not import mooring.config.Settings",
        ),
        ("_core/relay.pxd", "cimport mooring.config", "_core must not import mooring.config"),
        # inside the core: import and cimport, in each kind of file
        (
            "_core/buffer.pyx",
            "from mooring._core.ws cimport Frame",
            "_core.buffer must not import mooring._core.ws.Frame",
        ),
        (
            "_core/buffer.pxd",
            "cdef int x\n    from mooring._core.relay cimport (Relay,\n    WorkerEnd)",
            "_core.buffer must not import mooring._core.relay.WorkerEnd",
        ),
        ("_core/http.pyx", "from mooring._core import ws", "_core.http must not import mooring._core.ws"),
        ("_core/http.pyx", "cimport mooring._core.ws", "_core.http must not import mooring._core.ws"),
        ("_core/http.pyx", "from . cimport relay", "_core.http must not import mooring._core.relay"),
        (
            "_core/http.pyi",
            "from .relay import Relay",
            "_core.http must not import mooring._core.relay.Relay",
        ),
        (
            "_core/http_lines.pxi",
            "from mooring._core.relay import Relay",
            "_core.http must not import mooring._core.relay.Relay",
        ),
        # codecs know no input and output
        ("_core/ws.pyx", "import time", "the codec ws must not know time"),
        ("_core/ws.pyx", "from logging import getLogger", "the codec ws must not know logging"),
        ("_core/http_lines.pxi", "import asyncio.base_events", "the codec http must not know asyncio"),
        (
            "_core/ws.pyx",
            'cdef extern from "sys/socket.h" nogil:\n    pass',
            "the codec ws must not know sys/socket.h",
        ),
        # places for nothing
        ("helpers.py", "", "helpers stands in no row of tools/layers.py"),
        ("_core/fast.pyx", "", "fast stands in no row of tools/layers.py"),
        ("_core/fast_parts.pxi", "", "fast stands in no row of tools/layers.py"),
    ],
)
def test_a_violation_is_found(tree, name, text, found):
    lines = tree(**{name: text + "\n"})
    assert f"{name}: {found}" in lines
    assert all(line.startswith(f"{name}: ") for line in lines), "and nothing else"


def test_comments_and_texts_are_no_imports(tree):
    assert tree(**{"_core/http.pyx": "# from mooring._core.relay import Relay\nx = 'import time'\n"}) == []


def test_as_a_program(tmp_path):
    def run(root):
        return subprocess.run([sys.executable, TOOL, root], capture_output=True, text=True, timeout=60)

    done = run(ROOT / "src")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    (tmp_path / "mooring").mkdir()
    (tmp_path / "mooring" / "helpers.py").touch()
    done = run(tmp_path)
    assert done.returncode == 1
    assert "helpers stands in no row" in done.stdout
