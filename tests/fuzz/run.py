"""`make fuzz`: each target for a while, one line for each, exit code 1 when something was found.

The targets run on a build of their own, by clang with the sanitizers for addresses and undefined behaviour and with
counters at every branch (build/fuzz/lib). atheris brings libFuzzer and what these call, and counts the branches of
mooring's Python too. Inputs that reach something new are kept in tests/fuzz/new and are where the next run begins.

    tests/fuzz/run.py --seconds 60 ws_frames           these targets, so long each; all if none is named
    tests/fuzz/run.py --replay ws_frames FILE          one input, with the sanitizer's report or the traceback
    tests/fuzz/run.py --keep ws_frames                 writes the fewest inputs that reach everything to corpus/
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from fuzz.harness import HERE, inputs, names

ROOT = HERE.parent.parent
MADE = ROOT / "build" / "fuzz"
FINDINGS, NEW = HERE / "findings", HERE / "new"  # not in build: what took hours to find outlives `make clean`
LONGEST = 4096  # bytes of an input
LIMITS = ["-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=128"]  # a hang, a leak, memory for a mere promise
KEPT = 60  # inputs of a corpus
STATUS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)", re.M)
NOISE = re.compile(
    r"#\d+|INFO:|\s+NEW_FUNC|stat::|0x\w\w,|\s+#\d+ .*(pybind11|/compiler-rt/|/atheris/|/Python-3|/csu/)"
)


@dataclass
class Result:
    code: int
    output: str
    runs: int
    rate: int
    covered: int
    features: int


def environment() -> dict[str, str]:
    found = importlib.util.find_spec("atheris")
    if found is None or found.origin is None:
        raise SystemExit("atheris is missing: run `make fuzz`, or pip install --group fuzz")
    preload = Path(found.origin).parent.parent / "asan_with_fuzzer.so"
    symbolizer = next(filter(None, map(shutil.which, ("llvm-symbolizer-14", "llvm-symbolizer"))), "")
    return {
        **os.environ,
        "LD_PRELOAD": str(preload),
        "PYTHONPATH": str(HERE.parent),
        "PYTHONMALLOC": "malloc",  # else what Python allocates lies in arenas, which no sanitizer looks into
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "ASAN_SYMBOLIZER_PATH": symbolizer,
    }


def seeded(name: str) -> Path:
    """A folder with seeds and corpus, one file each."""
    folder = MADE / "seeds" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for data in inputs(name):
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    return folder


def start(name: str, *options: str) -> Result:
    command = [str(MADE / "bin" / "python"), "-m", "fuzz.one", name, f"-max_len={LONGEST}", *LIMITS, *options]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, errors="replace")
    output = done.stdout + done.stderr
    last = (STATUS.findall(output) or [("0", "0", "0", "0")])[-1]
    count = re.search(r"number_of_executed_units: (\d+)", output)
    rate = re.search(r"average_exec_per_sec: *(\d+)", output)
    return Result(
        done.returncode,
        output,
        int(count[1]) if count else int(last[0]),
        int(rate[1]) if rate else 0,
        int(last[1]),
        int(last[2]),
    )


def look(name: str, seconds: int) -> bool:
    """Whether nothing was found."""
    new, findings = NEW / name, FINDINGS / name
    new.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    result = start(
        name,
        f"-max_total_time={seconds}",
        "-print_final_stats=1",
        f"-artifact_prefix={findings}/",
        str(new),
        str(seeded(name)),
    )
    found = [file for file in sorted(set(findings.iterdir()) - before) if not file.name.startswith("slow-unit")]
    good = result.code == 0 and not found
    print(
        f"{name:16} {result.runs:>10,} runs {result.rate:>8,}/s   {result.covered:>6,} branches "
        f"{result.features:>7,} features   {'nothing found' if good else 'FOUND SOMETHING'}",
        flush=True,
    )
    if not good:
        print("\n".join("    " + line for line in gist(result.output)))
        for file in found:
            print(f"    to see it again: {sys.executable} tests/fuzz/run.py --replay {name} {file.relative_to(ROOT)}")
    return good


def gist(output: str) -> list[str]:
    """The part of the output that says what happened."""
    kept = [line for line in output.splitlines() if line and not NOISE.match(line)]
    return [line[:200] for line in kept[:40]]


def keep(name: str) -> None:
    """What the runs have found interesting, as few of it as reach everything, becomes the committed corpus."""
    with tempfile.TemporaryDirectory() as folder:
        result = start(name, "-merge=1", folder, str(NEW / name))
        if result.code:
            raise SystemExit(result.output)
        few = sorted((file.read_bytes() for file in Path(folder).iterdir()), key=len)
    file = HERE / "corpus" / f"{name}.txt"
    old = file.read_text() if file.exists() else ""
    lines = [line for line in map(repr, few[:KEPT]) if line not in old.splitlines()]
    file.write_text(old + "".join(f"{line}\n" for line in lines))
    print(f"{name}: {len(lines)} inputs more, of {len(few)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("targets", nargs="*")
    wanted = parser.parse_args()
    if wanted.replay:
        result = start(*wanted.targets)
        print(result.output)
        return int(result.code != 0)
    unknown = set(wanted.targets) - set(names())
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    targets = wanted.targets or names()
    if wanted.keep:
        for name in targets:
            keep(name)
        return 0
    found = [name for name in targets if not look(name, wanted.seconds)]
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
