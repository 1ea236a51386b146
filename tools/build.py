"""Makes one build of mooring, beside the others, and says how far it is: `.venv/bin/python tools/build.py debug`.

A build is a folder, build/NAME, with everything that runs it (docs/adr/0018 says why):

    lib/mooring/     the compiled modules, and links to everything else in src/mooring: an edit shows at once. A file
                     that is new beside the compiled modules, or right in src/mooring, is linked by the next build
    lib/*.dist-info  by which `mooring --version` knows the version
    bin/python       an interpreter that finds this build first, then the packages of the environment that made it;
                     so every process that a server starts by its own interpreter has the same build
    bin/mooring      the command
    c/, temp/        C and object files

The environment itself, .venv, finds the debug build, and until there is one the release build. What the compiler says
is shown when it fails, and is in build/NAME/log.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import counters
import records

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "mooring"
NAMES = ("release", "debug", "asan", "fuzz")
PREFERRED = ("debug", "release")  # what the environment finds, the first that exists
SOURCES = (".pyx", ".pxd", ".pxi", ".h", ".so")  # what is no part of a build
STEP = re.compile(r"^\[ *(\d+)/(\d+)\] (Cythonizing|Compiling)")
DOES = {"Cythonizing": "translating", "Compiling": "compiling"}
PAUSE = 5.0  # seconds between two lines, where lines can't be written over

COMMAND = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys

from mooring.cli import main

sys.exit(main())
"""  # a #! line has a limited length, and no spaces


def compile_core(name: str, folder: Path) -> int:
    """Brings the compiled modules up to date, and the text of the package; the exit code."""
    command = [sys.executable, "setup.py", "dist_info", "--output-dir", str(folder / "lib")]
    command += ["build_ext", "--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    environment = {**os.environ, "MOORING_BUILD": name, "PYTHONUNBUFFERED": "1"}
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    for former in (folder / "lib").glob("*.dist-info"):  # of another version, perhaps
        shutil.rmtree(former)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        progress = Progress(name)
        for line in process.stdout:
            log.write(line)
            progress.read(line)
    progress.end()
    return process.returncode


class Progress:
    """One line that changes on a terminal, else a line now and then; nothing when there is nothing to compile."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._changes = sys.stdout.isatty()
        self._doing, self._last = "", 0.0

    def read(self, line: str) -> None:
        """A line of setup.py."""
        step = STEP.match(line)
        if step is None:
            return
        done, number, doing = int(step[1]), int(step[2]), DOES[step[3]]
        text = f"{self._name} build: {doing} {done} of {number} modules"
        now = time.monotonic()
        if self._changes:
            print(f"\r{text}\033[K", end="", flush=True)
        elif doing != self._doing or done == number or now - self._last >= PAUSE:
            print(text, flush=True)
            self._last = now
        self._doing = doing

    def end(self) -> None:
        """The next line is somebody else's."""
        if self._changes and self._doing:
            print(flush=True)


def link(folder: Path) -> None:
    """Everything of src/mooring that is not compiled, as links; what is not there any more goes."""
    package = folder / "lib" / "mooring"
    wanted = {entry.name: entry for entry in PACKAGE.iterdir() if entry.name not in ("_core", "__pycache__")}
    _link(package, wanted, {"_core", "__pycache__"})
    core = [entry for entry in (PACKAGE / "_core").iterdir() if entry.name != "__pycache__"]
    compiled = {f"{entry.stem}{sysconfig.get_config_var('EXT_SUFFIX')}" for entry in core if entry.suffix == ".pyx"}
    _link(
        package / "_core",
        {entry.name: entry for entry in core if entry.suffix not in SOURCES},
        {"__pycache__", *compiled},
    )


def _link(folder: Path, wanted: dict[str, Path], kept: set[str]) -> None:
    for entry in folder.iterdir():
        if entry.name not in kept and entry.name not in wanted:
            _remove(entry)
    for name, target in wanted.items():
        entry, relative = folder / name, os.path.relpath(target, folder)  # relative: a tree that is moved still fits
        if not entry.is_symlink() or os.readlink(entry) != relative:
            _remove(entry)
            entry.symlink_to(relative)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def make_interpreter(folder: Path) -> None:
    """bin/python, which finds this build and what is installed for the interpreter that runs this."""
    packages = list(dict.fromkeys(path for path in sys.path if path.endswith("site-packages")))
    made = folder / "bin" / "python"
    if not made.exists() or made.resolve() != Path(sys.executable).resolve():
        for entry in (folder / "bin", folder / "lib" / f"python{sysconfig.get_python_version()}"):
            if entry.exists():
                shutil.rmtree(entry)
        venv.EnvBuilder(symlinks=True).create(folder)
    (site,) = (folder / "lib").glob(f"python{sysconfig.get_python_version()}/site-packages")
    _write(site / "mooring.pth", "".join(f"{line}\n" for line in (os.path.relpath(folder / "lib", site), *packages)))
    write_command(folder / "bin" / "mooring", made)


def show_to_environment() -> None:
    """Has the environment of this checkout find a build; site leaves out a line whose folder is not there."""
    site = Path(sysconfig.get_path("purelib"))
    if not site.is_relative_to(ROOT) or site.is_relative_to(ROOT / "build"):
        return
    _write(
        site / "mooring.pth",
        "".join(f"{os.path.relpath(ROOT / 'build' / name / 'lib', site)}\n" for name in PREFERRED),
    )
    write_command(Path(sys.prefix) / "bin" / "mooring", Path(sys.prefix) / "bin" / "python")


def write_command(file: Path, python: Path) -> None:
    """The command `mooring`, of an interpreter."""
    _write(file, COMMAND.format(python=python))
    file.chmod(0o755)


def _write(file: Path, text: str) -> None:
    if not file.exists() or file.read_text() != text:
        file.write_text(text)


def lacks(name: str) -> str:
    """Why a build does not show the sources as they are, and what mends it; empty if it does."""
    folder = ROOT / "build" / name
    made = folder / "built"
    core = [entry for entry in (PACKAGE / "_core").iterdir() if entry.suffix in (".pyx", ".pxd", ".pxi", ".h")]
    for entry in core:
        if not made.exists() or entry.stat().st_mtime > made.stat().st_mtime:
            return f"the {name} build is older than {entry.relative_to(ROOT)}: {sys.executable} tools/build.py {name}"
    for entry in PACKAGE.iterdir():
        if not (folder / "lib" / "mooring" / entry.name).exists() and entry.name != "__pycache__":
            return f"the {name} build has no {entry.relative_to(ROOT)}: {sys.executable} tools/build.py {name}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=NAMES)
    name = parser.parse_args().name
    folder = ROOT / "build" / name
    begun = folder / "begun"  # what is edited meanwhile is newer
    folder.mkdir(parents=True, exist_ok=True)
    counters.main()
    if records.main(ROOT):
        return 1
    begun.touch()
    code = compile_core(name, folder)
    if code:
        print((folder / "log").read_text(), end="", file=sys.stderr)
        print(f"the {name} build has failed; its log is above, and in {folder.relative_to(ROOT)}/log", file=sys.stderr)
        return 1
    make_interpreter(folder)
    link(folder)  # last: without it there is no package, and the environment has another build
    show_to_environment()
    begun.replace(folder / "built")
    return 0


if __name__ == "__main__":
    sys.exit(main())
