"""Runs one target in this process, under libFuzzer: `run.py` starts it with the sanitizers preloaded.

python -m fuzz.one NAME [libFuzzer's options and folders]
"""

import logging
import sys

import atheris

from fuzz.harness import load

logging.disable(logging.CRITICAL)  # what is refused would be logged a thousand times a second
with atheris.instrument_imports(include=["mooring"]):
    target = load(sys.argv[1])
atheris.Setup([sys.argv[0], *sys.argv[2:]], target.one)
atheris.Fuzz()
