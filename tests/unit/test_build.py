"""A build shows the sources as they are, is found by whoever runs its interpreter, and says how far it is."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support.tools import load

build = load("build")
CORE = ("_core/ws.pyx", "_core/ws.pyi", "_core/http.pxd")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A checkout whose core is compiled already."""
    package = tmp_path / "src" / "mooring"
    for file in (
        "__init__.py",
        "server.py",
        "py.typed",
        "app/forms.py",
        "_core/ws.pyx",
        "_core/ws.pyi",
        "_core/http.pxd",
    ):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text("")
    core = tmp_path / "build" / "debug" / "lib" / "mooring" / "_core"
    core.mkdir(parents=True)
    (core / f"ws{SUFFIX}").write_text("compiled")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "PACKAGE", package)
    return tmp_path


def shown(tree: Path) -> list[str]:
    lib = tree / "build" / "debug" / "lib"
    return sorted(
        str(Path(folder, name).relative_to(lib))
        for folder, _, names in os.walk(lib, followlinks=True)
        for name in names
    )


def test_a_build_has_what_is_compiled_and_links_to_the_rest(tree):
    build.link(tree / "build" / "debug")
    files = ["__init__.py", f"_core/ws{SUFFIX}", "_core/ws.pyi", "app/forms.py", "py.typed", "server.py"]
    assert shown(tree) == sorted(f"mooring/{file}" for file in files)
    (tree / "src" / "mooring" / "app" / "new.py").write_text("")
    assert "mooring/app/new.py" in shown(tree)
    tree.rename(tree.parent / "moved")
    assert "mooring/server.py" in shown(tree.parent / "moved")


def test_what_is_gone_goes(tree):
    build.link(tree / "build" / "debug")
    package = tree / "src" / "mooring"
    for file in ("server.py", "_core/ws.pyx", "_core/ws.pyi"):
        (package / file).unlink()
    (package / "run.py").write_text("")
    build.link(tree / "build" / "debug")
    files = ["__init__.py", "app/forms.py", "py.typed", "run.py"]
    assert shown(tree) == sorted(f"mooring/{file}" for file in files)


def test_a_build_that_is_behind_its_sources_says_what_to_do(tree):
    source, made = tree / "src" / "mooring" / "_core" / "ws.pyx", tree / "build" / "debug" / "built"
    os.utime(source, (1000, 1000))
    os.utime(source.with_name("http.pxd"), (1000, 1000))
    build.link(made.parent)
    assert "tools/build.py debug" in build.lacks("debug")
    made.touch()
    assert build.lacks("debug") == ""
    os.utime(source, (2**33, 2**33))
    assert "older than src/mooring/_core/ws.pyx" in build.lacks("debug")
    os.utime(source, (1000, 1000))
    (tree / "src" / "mooring" / "run.py").write_text("")
    assert "has no src/mooring/run.py" in build.lacks("debug")


def test_what_a_build_writes_of_a_table_is_in_it(tree, monkeypatch):
    """Whoever adds a counter or a record builds once."""
    folder, made = tree / "build" / "debug", tree / "src" / "mooring" / "_core" / "counters.pxd"
    begun = folder / "begun"

    def write() -> None:
        made.write_text("")
        if begun.exists():  # then it is newer, which the clocks of file systems do not always show
            os.utime(made, ns=(begun.stat().st_mtime_ns + 10**6,) * 2)

    monkeypatch.setattr(build.counters, "main", write)
    monkeypatch.setattr(build.records, "main", lambda _root: 0)
    monkeypatch.setattr(build, "compile_core", lambda _name, _folder: 0)
    monkeypatch.setattr(build, "make_interpreter", lambda _folder: None)
    monkeypatch.setattr(build, "show_to_environment", lambda: None)
    monkeypatch.setattr(sys, "argv", ["build.py", "debug"])
    assert build.main() == 0
    assert build.lacks("debug") == ""


def test_the_interpreter_of_a_build_has_it_whatever_its_environment(tree, monkeypatch):
    folder = tree / "build" / "debug"
    build.link(folder)
    (tree / "src" / "mooring" / "__init__.py").write_text("NAME = 'of the tree'")
    build.make_interpreter(folder)
    build.make_interpreter(folder)  # nothing is to be done
    program = "import mooring, msgspec, sys; print(mooring.NAME, sys.executable)"
    command = [str(folder / "bin" / "python"), "-c", program]
    done = subprocess.run(command, env={}, cwd="/", capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["of", "the", "tree", command[0]]


def test_only_the_environment_of_the_checkout_is_told(tree, monkeypatch):
    """Another one may have a build of another checkout."""
    own, other = tree / ".venv" / "site-packages", tree.parent / "other" / "site-packages"
    for site in (own, other):
        site.mkdir(parents=True)
        (site.parent / "bin").mkdir()
        monkeypatch.setattr(sysconfig, "get_path", lambda name, site=site: str(site))
        monkeypatch.setattr(sys, "prefix", str(site.parent))
        build.show_to_environment()
    assert list(other.iterdir()) == []
    lines = (own / "mooring.pth").read_text().splitlines()
    assert [(own / line).resolve() for line in lines] == [
        tree / "build" / name / "lib" for name in ("debug", "release")
    ]


@pytest.mark.parametrize("spaces", [False, True])
def test_the_command_of_a_build(tmp_path, spaces):
    folder = tmp_path / ("a b" if spaces else "ab")
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    build.write_command(folder / "mooring", folder / "python")
    done = subprocess.run([folder / "mooring", "--version"], capture_output=True, text=True, timeout=30)
    # the link is no environment: it finds no mooring, but it runs
    assert "mooring" in done.stderr + done.stdout
    assert "No such file" not in done.stderr


@pytest.mark.parametrize("terminal", [False, True])
def test_progress(capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    progress = build.Progress("release")
    for line in ("[ 1/2] Cythonizing src/ws.pyx\n", "gcc -c ws.c\n", "[1/1] Compiling mooring._core.ws\n"):
        progress.read(line)
    progress.end()
    said = capsys.readouterr().out
    assert "gcc" not in said
    lines = ["release build: translating 1 of 2 modules", "release build: compiling 1 of 1 modules"]
    assert said == ("".join(f"\r{line}\033[K" for line in lines) + "\n" if terminal else "\n".join(lines) + "\n")
