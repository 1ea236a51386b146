"""Does each test fail when what it tests is gone? `make mutants` takes away one behaviour after the other, and looks.

tools/mutants.toml lists the mutants. One is a replacement of a few lines that removes one behaviour, and the test that
must fail then. Each is applied alone, in a copy of the tree in a temporary folder; the checkout is not touched. First
the tests run on the copy as it is: one that fails there can prove nothing.

    killed     the test fails: it does prove something
    SURVIVED   the test passes without the behaviour: it is too weak; or something else protects the same, and then
               both belong into the entry
    gone       the text to be replaced is not there, or not once: the entry has to follow the source
    unfit      the test fails without any mutant
    broken     no test ran: the mutant does not compile, no server starts with it, or the test does not exist

Exit code 0 when all are killed, else 1.

    .venv/bin/python tools/mutants.py              all of them, an hour on a small machine
    .venv/bin/python tools/mutants.py F31 F38      those of these numbers
    .venv/bin/python tools/mutants.py --list
    .venv/bin/python tools/mutants.py --trust      the tests have just passed: do not run them first
    .venv/bin/python tools/mutants.py --python     without those of the compiled core, which are compiled for it
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "tools" / "mutants.toml"
CORE = "src/mooring/_core"
BUILD = "build/debug"
TEST_LIMIT = 180.0  # seconds for one test; its own limits are shorter
BUILD_LIMIT = 900.0
NO_START = (
    r"no '\\bready\\b' within"  # what support/serving.py says: such a mutant removes everything, and not one behaviour
)
PASSED, FAILED = 0, 1  # exit codes of pytest; all others mean that no test decided anything


class Gone(Exception):
    """A text that is to be replaced is not in its file exactly once."""


@dataclass(frozen=True)
class Edit:
    """One replacement in one file; both texts are whole lines or parts of them."""

    file: str
    find: str
    put: str

    def of(self, text: str) -> str:
        """`text` without the behaviour. Raises Gone."""
        found = text.count(self.find)
        if found != 1:
            raise Gone(f"{self.file} has this text {found} times, and not once: {self.find.strip()!r}")
        return text.replace(self.find, self.put)


@dataclass(frozen=True)
class Mutant:
    """A behaviour that is taken away, and the test that must notice."""

    guards: str
    """The number of the fault (F1 to F48), attack (C1 to C23) or guarantee (G1 to G9) that asks for it, or a word for
    what the manual promises besides."""
    removes: str
    """What does not happen any more."""
    test: str
    """The id of a test, for pytest."""
    edits: tuple[Edit, ...]
    starts: bool = True
    """Whether a server starts with it. If that is what the test sees, False; else such a mutant proves nothing."""

    @property
    def is_compiled(self) -> bool:
        return any(edit.file.startswith(CORE) for edit in self.edits)


def read(path: Path = LIST) -> list[Mutant]:
    """The mutants of a list. Raises KeyError or TypeError for an entry that is none."""
    mutants = []
    for entry in tomllib.loads(path.read_text())["mutant"]:
        edits = [entry, *entry.get("also", [])]
        unknown = set(entry) - {"guards", "removes", "test", "file", "find", "put", "also", "starts"}
        if unknown:
            raise TypeError(f"unknown keys {unknown} in the entry {entry['removes']!r}")
        each = tuple(Edit(edit["file"], edit["find"], edit["put"]) for edit in edits)
        starts = entry.get("starts", True)
        mutants.append(Mutant(entry["guards"], entry["removes"], entry["test"], each, starts))
    return mutants


class Copy:
    """The tree with what was built of it, in a folder of its own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._folder = folder / "tree"
        self._kept = folder / "kept"  # the same, for what has to be put back: the checkout may change meanwhile
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
        names = [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]
        # what the compiler made, and what it needs not to make all of it again
        for pattern in (f"{BUILD}/lib/mooring/_core/*.so", f"{BUILD}/c/**/*.c"):
            names += [str(path.relative_to(root)) for path in root.glob(pattern)]
        _take(names, root, self._kept)
        _take(names, self._kept, self._folder)
        self._built = [name for name in names if name.endswith((".so", ".c"))]
        self._python = sys.executable
        if self._built:
            problem = self.build()  # compiles nothing: it makes what else belongs to a build
            if problem:
                raise SystemExit(f"the tree as it is: {problem}")
            self._python = str(self._folder / BUILD / "bin" / "python")

    @contextlib.contextmanager
    def without(self, mutant: Mutant) -> Iterator[None]:
        """The behaviour is gone until the end of the block. Raises Gone."""
        changed: dict[str, str] = {}
        for edit in mutant.edits:
            changed[edit.file] = edit.of(changed.get(edit.file) or self.text(edit.file))
        try:
            for name, text in changed.items():
                (self._folder / name).write_text(text)
            yield
        finally:
            _take([*changed, *(self._built if mutant.is_compiled else [])], self._kept, self._folder)

    def text(self, name: str) -> str:
        """A file as it is now."""
        return (self._folder / name).read_text()

    def build(self) -> str:
        """Compiles what has changed; what went wrong, empty if nothing."""
        code, output = self._run([sys.executable, "tools/build.py", "debug"], BUILD_LIMIT)
        return "" if code == 0 else f"it does not compile: {last_line(output)}"

    def test(self, *tests: str, limit: float = TEST_LIMIT) -> tuple[int | None, str]:
        """pytest's exit code, None if it did not come to an end, and what it printed."""
        command = [self._python, "-m", "pytest", "-qx", "--no-header", "--tb=short", "-p", "no:cacheprovider", *tests]
        return self._run(command, limit)

    def _run(self, command: Sequence[str], limit: float) -> tuple[int | None, str]:
        with (self._folder / "output").open("w+", errors="replace") as output:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # the servers of a test that was cut short, too
                process.wait()
            output.seek(0)
            return code, output.read()


def _take(names: Iterable[str], source: Path, target: Path) -> None:
    """Copies files with their times: what is older than its source is compiled again."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)


def last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "nothing was printed"


def reason(output: str) -> str:
    """Why a test failed: the first line of its exception."""
    found = re.search(r"^E +(\S.*)", output, re.MULTILINE)
    return found[1][:160] if found else last_line(output)


def judge(copy: Copy, mutant: Mutant) -> tuple[str, str]:
    """The verdict, and what there is to say of it."""
    try:
        with copy.without(mutant):
            for edit in mutant.edits:
                if edit.file.endswith(".py"):
                    compile(copy.text(edit.file), edit.file, "exec")
            problem = copy.build() if mutant.is_compiled else ""
            if problem:
                return "broken", problem
            code, output = copy.test(mutant.test)
    except Gone as problem_:
        return "gone", str(problem_)
    except SyntaxError as problem_:
        return "broken", f"it is no Python: {problem_}"
    if code is None:
        return "killed", f"the test did not end within {TEST_LIMIT:.0f} s"
    if code == FAILED:
        return "broken" if mutant.starts and NO_START in output else "killed", reason(output)
    return ("SURVIVED", "") if code == PASSED else ("broken", f"pytest ended with {code}: {last_line(output)}")


def unfit(copy: Copy, mutants: Sequence[Mutant]) -> dict[str, str]:
    """The tests that fail as the tree is, and why."""
    tests = list(dict.fromkeys(mutant.test for mutant in mutants))
    code, output = copy.test(*tests, limit=TEST_LIMIT * len(tests))
    if code == PASSED:
        return {}
    # one at a time, to see which
    found = {}
    for test in tests:
        code, output = copy.test(test)
        if code != PASSED:
            found[test] = reason(output) if code == FAILED else f"pytest ended with {code}: {last_line(output)}"
    return found


def chosen(mutants: Sequence[Mutant], names: Sequence[str], *, python_only: bool) -> list[Mutant]:
    """Those of these numbers; all without any."""
    wanted = {name.upper() for name in names}
    return [
        mutant
        for mutant in mutants
        if (not wanted or mutant.guards.upper() in wanted) and not (python_only and mutant.is_compiled)
    ]


def run(mutants: Sequence[Mutant], root: Path = ROOT, *, trust: bool = False) -> Counter[str]:
    """Judges each, prints a line for each and a sum; how many of which verdict there are. `trust`: the tests are
    known to pass as the tree is."""
    sums: Counter[str] = Counter()
    with TemporaryDirectory(prefix="mooring-mutants-") as folder:
        copy = Copy(root, Path(folder))
        print(f"{len(mutants)} mutants{'' if trust else '; first their tests as they are'}", flush=True)
        weak = {} if trust else unfit(copy, mutants)
        for mutant in mutants:
            start = time.monotonic()
            verdict, why = ("unfit", weak[mutant.test]) if mutant.test in weak else judge(copy, mutant)
            sums[verdict] += 1
            print(f"{verdict:<9} {mutant.guards:<4} {mutant.removes} ({time.monotonic() - start:.0f} s)")
            print(f"{'':<14} {mutant.test.removeprefix('tests/')}" + (f"\n{'':<14} {why}" if why else ""), flush=True)
    print(", ".join(f"{number} {verdict}" for verdict, number in sums.most_common()))
    return sums


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NUMBER", help="such as F31, C12, G1 or sessions; all without any")
    parser.add_argument("--list", action="store_true", help="print what there is, and do nothing")
    parser.add_argument("--python", action="store_true", help="leave out those of the compiled core")
    parser.add_argument("--trust", action="store_true", help="the tests have just passed: do not run them first")
    told = parser.parse_args(arguments)
    mutants = chosen(read(), told.names, python_only=told.python)
    if not mutants:
        print("there is no such mutant; see --list", file=sys.stderr)
        return 1
    if told.list:
        for mutant in mutants:
            print(f"{mutant.guards:<4} {mutant.removes}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the folder goes, and what runs in it
    return 0 if set(run(mutants, trust=told.trust)) == {"killed"} else 1


if __name__ == "__main__":
    sys.exit(main())
