"""Programs of this repository that are no package, as modules."""

import importlib.util
import sys
from types import ModuleType

from support.serving import ROOT


def load(name: str) -> ModuleType:
    """tools/NAME.py"""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
