"""Builds the compiled core. Everything else about the package is in pyproject.toml.

MOORING_BUILD names the build: `release` (what users get), `debug` (bounds checks, assertions and live counters; what
the tests run on), `asan` (address and undefined-behaviour sanitizers) or `fuzz` (the same by clang, and it counts
which branches are taken; see tests/fuzz/run.py). In a checkout tools/build.py makes each in a folder of its own.
"""

import filecmp
import itertools
import os
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

CORE = Path("src/mooring/_core")
HARDENING = ["-D_FORTIFY_SOURCE=2", "-fstack-protector-strong"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
BUILDS = {
    "release": {"compile": ["-O3", "-g0", *HARDENING], "link": ["-Wl,-z,relro,-z,now"]},
    "debug": {"compile": ["-Og", "-g", "-UNDEBUG", "-DMOORING_DEBUG=1"], "link": []},
    # -fno-wrapv: Python's own -fwrapv would silence the check for signed overflow.
    "asan": {
        "compile": ["-O1", "-g", "-UNDEBUG", "-DMOORING_DEBUG=1", "-fno-omit-frame-pointer", "-fno-wrapv", *SANITIZE],
        "link": SANITIZE,
    },
    # What the sanitizers call is in the library that is preloaded, so nothing is linked. Cython adds 0 to NULL where a
    # function has no arguments, which one of clang's checks reports.
    "fuzz": {
        "compile": [
            "-O1",
            "-g",
            "-UNDEBUG",
            "-DMOORING_DEBUG=1",
            "-fno-omit-frame-pointer",
            "-fno-wrapv",
            "-fsanitize=address,undefined,fuzzer-no-link",
            "-fno-sanitize=pointer-overflow",
            "-fno-sanitize-recover=undefined",
        ],
        "link": [],
    },
}

name = os.environ.get("MOORING_BUILD", "release")
if name not in BUILDS:
    raise SystemExit(f"MOORING_BUILD={name}: no such build; choose one of {', '.join(BUILDS)}")
build = BUILDS[name]
checked = name != "release"
processors = len(os.sched_getaffinity(0))
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": checked,
    "wraparound": checked,
    "initializedcheck": checked,
    "cdivision": True,
    "embedsignature": False,
    "auto_pickle": False,
    "autotestdict": False,
    "freethreading_compatible": False,
}


class BuildExt(build_ext):
    """Translates only what it compiles: for a source distribution or its metadata nothing has to be.

    It says how far it is, in the words that cythonize uses: the first build takes half a minute or more. What it has
    compiled is kept, since pip builds in a folder that it throws away: whoever builds next need not compile it again.
    """

    def build_extensions(self) -> None:
        translated = cythonize(
            self.extensions,
            build_dir=f"build/{name}/c",
            compiler_directives=DIRECTIVES,
            include_path=["src"],
            nthreads=processors,
        )
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
        stale = [extension for extension in self.extensions if self._is_stale(extension)]
        self._all, self._numbers = len(stale), itertools.count(1)
        super().build_extensions()

    def build_extension(self, extension: Extension) -> None:
        kept, wanted = self._kept(extension), Path(self.get_ext_fullpath(extension.name))
        if self._is_stale(extension):
            print(f"[{next(self._numbers):2}/{self._all}] Compiling {extension.name}", flush=True)
            wanted.unlink(missing_ok=True)  # else one that is newer than its sources, of whatever build, would do
            super().build_extension(extension)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(wanted, kept)
        elif not wanted.exists() or not filecmp.cmp(kept, wanted, shallow=False):
            wanted.parent.mkdir(parents=True, exist_ok=True)
            wanted.unlink(missing_ok=True)  # not overwritten: a server that runs has it mapped
            shutil.copy(kept, wanted)

    def _is_stale(self, extension: Extension) -> bool:
        return self.force or newer_group([*extension.sources, *extension.depends], str(self._kept(extension)))

    def _kept(self, extension: Extension) -> Path:
        return Path(f"build/{name}/kept", Path(self.get_ext_filename(extension.name)).name)


def weight(source: Path) -> int:
    """About how long it takes to compile; what is long comes first, so that no processor waits for it in the end."""
    return sum(part.stat().st_size for part in (source, *CORE.glob(f"{source.stem}_*.pxi")))


extensions = [
    Extension(
        f"mooring._core.{source.stem}",
        [str(source)],
        include_dirs=[str(CORE)],
        depends=["setup.py", *(str(header) for header in CORE.glob("*.h"))],
        extra_compile_args=[*build["compile"], "-Wno-unused-function"],
        extra_link_args=build["link"],
    )
    for source in sorted(CORE.glob("*.pyx"), key=weight, reverse=True)
]

setup(
    options={"build_ext": {"parallel": processors}},
    cmdclass={"build_ext": BuildExt},
    ext_modules=extensions,
)
