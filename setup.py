"""Builds the compiled core. Everything else about the package is in pyproject.toml.

MOORING_BUILD names the build: `release` (what users get), `debug` (bounds checks, assertions and
live counters; what the tests run on), `asan` (address and undefined-behaviour sanitizers) or `fuzz` (the same by clang,
and it counts which branches are taken; see tests/fuzz/run.py, which has it built into a folder of its own).
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

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

extensions = [
    Extension(
        f"mooring._core.{source.stem}",
        [str(source)],
        include_dirs=[str(CORE)],
        depends=[str(header) for header in CORE.glob("*.h")],
        extra_compile_args=[*build["compile"], "-Wno-unused-function"],
        extra_link_args=build["link"],
    )
    for source in sorted(CORE.glob("*.pyx"))
]

setup(
    options={"build_ext": {"parallel": os.cpu_count()}},
    ext_modules=cythonize(
        extensions,
        build_dir=f"build/cython-{name}",
        compiler_directives={
            "language_level": 3,
            "boundscheck": checked,
            "wraparound": checked,
            "initializedcheck": checked,
            "cdivision": True,
            "embedsignature": False,
            "auto_pickle": False,
            "autotestdict": False,
            "freethreading_compatible": False,
        },
        include_path=["src"],
        nthreads=os.cpu_count() or 1,
    ),
)
