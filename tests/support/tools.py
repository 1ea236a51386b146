"""Programs of this repository that are no package, as modules."""

import importlib.util
import sys
from types import ModuleType

from support.serving import ROOT

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
