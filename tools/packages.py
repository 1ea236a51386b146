"""Can it be installed? Builds the source distribution and a wheel from it, and runs what is in the wheel.

    .venv/bin/python tools/packages.py [--keep FOLDER]

The wheel is built from the unpacked source distribution, as each wheel that is published is, so that nothing which is
missing there goes unnoticed. It is installed into an environment that holds nothing, with no program on the PATH but
those of that environment: no compiler. There the README's example is run; see tools/smoke.py.

Needs the packages of the group `package`. `--keep` writes both files to a folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "mooring"
PROGRAMS = ("cc", "gcc", "clang", "ld", "make")
BESIDE = ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py", "tools/smoke.py")
UNBUILT = {".pyx", ".pxd", ".pxi", ".h", ".toml", ".md"}  # what a wheel is built from, and what its readers want


def run(*command: str | Path, **environment: str) -> None:
    """Raises SystemExit with what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{' '.join(map(str, command))}: exit code {done.returncode}")


def expect(what: str, wanted: Iterable[str], found: Iterable[str]) -> None:
    """Raises SystemExit if a file is missing or too many."""
    required, there = set(wanted), set(found)
    missing, more = sorted(required - there), sorted(there - required)
    if missing or more:
        raise SystemExit(f"{what} lacks {missing or 'nothing'}, and should not have {more or 'nothing'}")


def sources() -> list[Path]:
    """The files of the package in the checkout; without what is made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "src/mooring"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    files = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [file.relative_to(ROOT / "src") for file in files if file.is_file()]


def check_source(file: Path) -> None:
    """The source distribution holds everything of the package, and what builds it."""
    with tarfile.open(file) as archive:
        names = [Path(*Path(member.name).parts[1:]) for member in archive.getmembers() if member.isfile()]
    package = [str(name.relative_to("src")) for name in names if name.is_relative_to("src/mooring")]
    expect(file.name, map(str, sources()), package)
    rest = {str(name) for name in names if name.parts[0] != "src"}
    expect(file.name, {*BESIDE, "setup.cfg", "PKG-INFO"}, rest)


def check_wheel(file: Path) -> None:
    """A wheel holds the Python sources, the stubs, and the core compiled; nothing it was compiled from."""
    with zipfile.ZipFile(file) as archive:
        names = [Path(name) for name in archive.namelist() if ".dist-info/" not in name]
    compiled = {f"{name.parent}/{name.name.partition('.')[0]}" for name in names if name.suffix == ".so"}
    text = [name for name in sources() if name.suffix not in UNBUILT]
    expect(file.name, map(str, text), [str(name) for name in names if name.suffix != ".so"])
    expect(file.name, [str(name.with_suffix("")) for name in sources() if name.suffix == ".pyx"], compiled)


def build(folder: Path) -> Path:
    """The wheel; beside it is the source distribution."""
    print("building the source distribution", flush=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", folder, ROOT)
    (source,) = folder.glob("*.tar.gz")
    check_source(source)
    print("building a wheel from it", flush=True)
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (tree,) = (folder / "unpacked").iterdir()
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, tree)
    (wheel,) = folder.glob("*.whl")
    check_wheel(wheel)
    return wheel


def try_out(wheel: Path, folder: Path) -> None:
    """Installs it where there is nothing, and serves."""
    print("installing the wheel into an empty environment, without a compiler", flush=True)
    venv.EnvBuilder(symlinks=True, with_pip=True).create(folder)
    path = str(folder / "bin")
    found = [program for program in PROGRAMS if shutil.which(program, path=path)]
    assert not found, found
    python = folder / "bin" / "python"
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
        wheel,
        PATH=path,
    )
    run(python, "-m", "pip", "check", PATH=path)
    subprocess.run([sys.executable, ROOT / "tools" / "smoke.py", python], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the two files are to go")
    told = parser.parse_args()
    with TemporaryDirectory(prefix="mooring-packages-") as name:
        folder = Path(name)
        wheel = build(folder)
        try_out(wheel, folder / "environment")
        if told.keep:
            told.keep.mkdir(parents=True, exist_ok=True)
            for file in (wheel, *folder.glob("*.tar.gz")):
                shutil.copy2(file, told.keep)


if __name__ == "__main__":
    main()
