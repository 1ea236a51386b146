"""Programs of this repository that are no package: as modules, and as what they are."""

import importlib.util
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

from support.serving import HOME, ROOT

TOOLS = ROOT / "tools"


def load(name: str) -> ModuleType:
    """tools/NAME.py"""
    if str(TOOLS) not in sys.path:
        sys.path.append(str(TOOLS))  # what it imports from beside it
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def verdict(name: str, *arguments: str) -> dict[str, Any]:
    """What tools/NAME.py has found, one of those that check a server; and its log, for the reader of a failure."""
    done = subprocess.run(
        [sys.executable, str(TOOLS / f"{name}.py"), "--json", "-", *arguments],
        env={**os.environ, "PYTHONPATH": HOME},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert (result["verdict"] == "PASS") == (done.returncode == 0)
    return {**result, "log": done.stderr}
