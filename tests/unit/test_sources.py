"""A cheap look at every source: its length, its docstring, its stub, the clocks it reads, what it left undone; and its
shape, of which tools/shape.py tells."""

import ast
import re
from pathlib import Path

import pytest

from support.tools import load

shape = load("shape")

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "tests", "tools")
PYTHON = {".py", ".pyi"}
CYTHON = {".pyx", ".pxd", ".pxi"}
FOREIGN = {"__pycache__", "node_modules"}
LONGEST = 650  # lines; one file is one thing

#: Who may read the wall clock, how often, and what for. Nothing that waits or limits is among them.
WALL_CLOCK = {
    "src/mooring/_core/table.pyx": 1,  # the epoch that turns monotonic times into those a user is shown
    "src/mooring/gateway/gateway.py": 1,  # when a request was received, as the application is told
    "src/mooring/app/dates.py": 1,  # the Date field (RFC 9110 section 6.6.1)
    "src/mooring/boot.py": 1,  # the first serial of a start, so that no fd comes back after a restart
}
WALL_CALLS = {
    "time": {"time", "time_ns", "ctime", "asctime", "localtime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
WALL_TEXT = re.compile(r"\btime\.time(?:_ns)?\(|\bCLOCK_REALTIME|\bgettimeofday\b|\bdatetime\.\w*now\(")

UNDONE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def sources(root, suffixes):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in suffixes and not FOREIGN & set(path.parts):
                yield path.relative_to(root).as_posix(), path.read_text()


def too_long(root):
    for name, text in sources(root, PYTHON | CYTHON | {".c", ".h", ".js"}):
        lines = text.count("\n")
        if lines > LONGEST:
            yield f"{name} has {lines} lines"


def undone(root):
    for name, text in sources(root, PYTHON | CYTHON | {".c", ".h", ".js", ".toml"}):
        for number, line in enumerate(text.splitlines(), 1):
            if UNDONE.search(line) and name != "tests/unit/test_sources.py":
                yield f"{name}:{number}: {line.strip()}"


def without_docstring(root):
    for name, text in sources(root, {".py"}):
        if ast.get_docstring(ast.parse(text)) is None:
            yield name
    for name, text in sources(root, CYTHON):
        # Cython takes a comment line with directives before it.
        if not re.match(r'(#.*\n|\s)*"""', text) and not (name.endswith(".pxi") and text.startswith("#")):
            yield name


def wall_clock_reads(name, text):
    if Path(name).suffix in CYTHON:
        return len(WALL_TEXT.findall(text))
    count = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute):
            # time.time, but also datetime.datetime.now
            holder = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            count += node.attr in WALL_CALLS.get(holder, ())
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            count += sum(alias.name in WALL_CALLS["time"] for alias in node.names)
    return count


def f18_wall_clocks(root):
    for name, text in sources(root, PYTHON | CYTHON):
        if not name.startswith("tests/"):
            count = wall_clock_reads(name, text)
            if count != WALL_CLOCK.get(name, 0):
                yield f"{name} reads the wall clock {count} times, {WALL_CLOCK.get(name, 0)} are allowed"


def without_stub(root):
    core = root / "src" / "mooring" / "_core"
    used = set()
    for _, text in sources(root, PYTHON):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module == "mooring._core":
                    used.update(alias.name for alias in node.names)
                elif node.module.startswith("mooring._core."):
                    used.add(node.module.split(".")[2])
            elif isinstance(node, ast.Import):
                used.update(alias.name.split(".")[2] for alias in node.names if alias.name.startswith("mooring._core."))
    for name in sorted(used):
        if (core / f"{name}.pyx").exists() and not (core / f"{name}.pyi").exists():
            yield f"{name}.pyx is imported by Python and has no {name}.pyi"
    for stub in sorted(core.glob("*.pyi")):
        if not stub.with_suffix(".pyx").exists():
            yield f"{stub.name} is the stub of nothing"


def stale_paths(root):
    """Files that the documents for contributors name and that are not there."""
    homes = [root, root / "src/mooring", root / "src/mooring/_core", root / "src/mooring/supervisor"]
    for page in [root / "CONTRIBUTING.md", root / "docs/architecture.md", *sorted((root / "docs/adr").glob("*.md"))]:
        if page.exists():
            for name in re.findall(r"`([\w/.]+\.(?:py|pyx|pxd|pxi|h))`", page.read_text()):
                if not any((home / name).exists() for home in homes):
                    yield f"{page.name} names {name}, which is not there"


CHECKS = [stale_paths, too_long, undone, without_docstring, f18_wall_clocks, without_stub, *shape.CHECKS]


@pytest.mark.parametrize("check", CHECKS)
def test_sources(check):
    assert list(check(ROOT)) == []


def test_every_source_was_looked_at():
    names = {name for name, _ in sources(ROOT, PYTHON | CYTHON)}
    assert {"src/mooring/_core/relay.pyx", "tests/unit/test_sources.py", "tools/layers.py"} <= names
    assert set(WALL_CLOCK) <= names
    assert {path.name for path in shape.package(ROOT, ".pyx", ".h")} >= {"relay.pyx", "bytes.h"}
    counts = shape.decisions((ROOT / "src/mooring/_core/ws.pyx").read_text())
    assert max(counts.values()) > 10, "Cython is read as well"


# -- a check that can't fail proves nothing

NEW = "src/mooring/new.py"
CORE = "src/mooring/_core/new.pyx"


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        (too_long, NEW, '"""New."""\n' * 651),
        (undone, NEW, "# TODO: later\n"),
        (undone, CORE, "    x = 1  # FIXME\n"),
        (without_docstring, NEW, "import time\n"),
        (without_docstring, NEW, ""),
        (without_docstring, CORE, "from libc.stdint cimport uint8_t\n"),
        (f18_wall_clocks, NEW, "import time\nlimit = time.time() + 5\n"),
        (f18_wall_clocks, NEW, "from time import monotonic, time\n"),
        (f18_wall_clocks, NEW, "import time\nclock = time.time_ns\n"),
        (f18_wall_clocks, NEW, "import datetime\nnow = datetime.datetime.now()\n"),
        (f18_wall_clocks, NEW, "from datetime import datetime\nnow = datetime.now(tz=None)\n"),
        (f18_wall_clocks, CORE, "cdef double now = time.time()\n"),
        (f18_wall_clocks, CORE, "clock_gettime(CLOCK_REALTIME, &now)\n"),
        (f18_wall_clocks, "src/mooring/boot.py", "import time\n"),
        (f18_wall_clocks, "src/mooring/boot.py", "import time\ntime.time()\ntime.time()\n"),
        (without_stub, CORE, '"""New."""\n'),
        (without_stub, "src/mooring/_core/gone.pyi", ""),
        (stale_paths, "CONTRIBUTING.md", "CONTRIBUTING: see `_core/old.pyx`\n"),
        (shape.long_units, CORE, "\n" * 600 + 'include "part.pxi"\n'),
        (shape.wide_lines, CORE, "x" * 121),
        (shape.wide_lines, "src/mooring/_core/new.h", "int x;\n" + "y" * 121),
        (shape.branchy, NEW, "def f(x):\n" + "    if x: pass\n" * 16),
        (shape.branchy, NEW, "class C:\n    def f(x):\n        return [" + "1 if x else 2, " * 16 + "]\n"),
        (
            shape.branchy,
            CORE,
            "cdef class C:\n    cdef int f(self, C* x) except -1:\n" + "        while x: pass\n" * 16,
        ),
        (
            shape.untyped_partners,
            CORE,
            "cdef class C:\n    cdef public object boss\n    def f(self): self.boss.ask()\n",
        ),
        (shape.circles, NEW, "from mooring.other import X\n"),
        (shape.untested, NEW, "X = 1\n"),
        (shape.retired_words, NEW, "def f(old): ...\n"),
    ],
)
def test_a_fault_is_found(tmp_path, check, name, text):
    (tmp_path / "src" / "mooring" / "_core").mkdir(parents=True)
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    (tmp_path / "src" / "mooring" / "parts").mkdir()
    (tmp_path / "docs").mkdir()
    if check in shape.CHECKS:
        (tmp_path / "src/mooring/_core/part.pxi").write_text("\n" * 60)
        (tmp_path / "src/mooring/other.py").write_text("import mooring.third\n")
        (tmp_path / "src/mooring/third.py").write_text("import mooring.other\n" * (check is shape.circles))
        (tmp_path / "docs/words.md").write_text("## Not said any more\n\n| `old` | `new` | why |\n")
        (tmp_path / "tests/unit/test_other.py").touch()
        (tmp_path / "tests/unit/test_third.py").touch()
    if check is shape.circles:
        (tmp_path / "src/mooring/third.py").write_text("import mooring.new\n")
        assert len(list(check(tmp_path))) == 0
        (tmp_path / name).write_text(text)
        assert len(list(check(tmp_path))) == 3, "new, other and third"
        return
    assert list(check(tmp_path)) == []
    if check is without_stub:
        (tmp_path / "src" / "mooring" / "user.py").write_text("from mooring._core.new import New\n")
    (tmp_path / name).write_text(text)
    (found,) = check(tmp_path)
    assert Path(name).stem in found or "old has 1 places" in found


def test_a_test_of_another_name_has_to_be_there_and_to_be_needed(tmp_path):
    for folder in ("src/mooring", "tests/unit", "tools"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / NEW).write_text("X = 1\n")
    (tmp_path / "src/mooring/words.py").write_text('"""Words, and no code."""\n')
    listed = tmp_path / "tools/shape.toml"
    listed.write_text('[tested_by]\n"new.py" = "tests/unit/test_old.py"\n')
    (found,) = shape.untested(tmp_path)
    assert found == "tools/shape.toml: new.py is not tested by tests/unit/test_old.py, take it out of [tested_by]"
    (tmp_path / "tests/unit/test_old.py").touch()
    assert list(shape.untested(tmp_path)) == []
    (tmp_path / "tests/unit/test_new.py").touch()
    assert len(list(shape.untested(tmp_path))) == 1, "it has one of its name"
    (tmp_path / NEW).unlink()
    (found,) = shape.untested(tmp_path)
    assert found == "tools/shape.toml: there is no new.py, take it out of [tested_by]"


@pytest.mark.parametrize("check", [shape.wide_lines, shape.branchy, shape.untested])
def test_what_is_known_may_only_become_less(tmp_path, check):
    """No more than shape.toml says; and what is mended is taken out of it."""
    (tmp_path / "src" / "mooring" / "_core").mkdir(parents=True)
    (tmp_path / "tools").mkdir()
    source = tmp_path / CORE
    bad = "def f(x):\n" + "    if x: pass\n" * 17 + f"# {'x' * 120}\n"
    source.write_text(bad)
    (found,) = check(tmp_path)
    name, count = re.match(r"(\S+) has (\d+)", found).groups()
    (tmp_path / "tools" / "shape.toml").write_text(f'[{check.__name__}]\n"{name}" = {count}\n')
    assert list(check(tmp_path)) == []
    if check is not shape.untested:
        source.write_text(bad.replace("if x: pass", "if x: pass\n    if x: pass", 1) + f"# {'x' * 120}\n")
        (found,) = check(tmp_path)
        assert f"at most {count} are allowed" in found
    source.unlink()
    (found,) = check(tmp_path)
    assert found.endswith(f"take it out of [{check.__name__}]")
