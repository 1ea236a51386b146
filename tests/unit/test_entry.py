"""What each role loads: every process of it pays for that at its start, and a worker at each reload."""

import subprocess
import sys

import pytest

from mooring.roles import ROLES

APART = {
    "click",
    "mooring.cli",
    "mooring.testing",
    "prometheus_client",
}
OF_AN_APPLICATION = {
    "asyncio",
    "mooring._core.inlet",
    "mooring.app.handlers",
    "mooring.app.request",
    "mooring.app.response",
    "mooring.server",
    "mooring.worker",
}
OF_CLIENTS = {
    "mooring._core.acceptor",
    "mooring._core.relay",
    "mooring.gateway",
}
OF_A_TREE = {
    "mooring.dispatcher",
    "mooring.single",
    "mooring.supervise",
    "mooring.supervisor.supervisor",
    "mooring.supervisor.tree",
}
FORBIDDEN = {
    "supervisor": APART
    | OF_AN_APPLICATION
    | OF_CLIENTS
    | {"httptools", "ssl", "mooring.runtime", "mooring.dispatcher"},
    "gateway": APART | OF_AN_APPLICATION | OF_A_TREE,
    "worker": APART | OF_CLIENTS | OF_A_TREE,
    "task worker": APART | OF_CLIENTS | OF_A_TREE,
    "process": APART | OF_CLIENTS | OF_A_TREE,
    "dispatcher": APART | OF_AN_APPLICATION | OF_CLIENTS | (OF_A_TREE - {"mooring.dispatcher"}) | {"ssl"},
}
JOINED = """
import sys
import mooring.entry, mooring.runtime, mooring.supervised
from pkgutil import resolve_name
from mooring.roles import ROLES
row = ROLES[{role!r}]
if row.worker:
    from mooring import Server
    Server().on("message", lambda server, frame: None)
for part in row.parts:
    resolve_name(part)
"""
SUPERVISED = "import sys, mooring.entry, mooring.supervise\n"
TOLD = "print(*sys.modules)"


@pytest.mark.parametrize("role", FORBIDDEN)
def test_a_role_loads_only_what_it_needs(role: str) -> None:
    code = (SUPERVISED if role == "supervisor" else JOINED.format(role=role)) + TOLD
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split())
    assert "mooring.entry" in loaded
    assert sorted(name for name in loaded if name in FORBIDDEN[role]) == []


def test_what_is_forbidden_is_there() -> None:
    """Else nobody would be forbidden anything."""
    every = set().union(*FORBIDDEN.values()) - {"prometheus_client"}
    code = f"import importlib\nfor name in {sorted(every)}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
    assert set(FORBIDDEN) <= {"supervisor", *ROLES}


def test_who_has_loaded_everything_collects_garbage() -> None:
    code = "import gc; gc.disable(); from mooring.boot import loaded; loaded(); "
    code += "print(gc.isenabled(), gc.get_freeze_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    enabled, kept = done.stdout.split()
    assert enabled == "True"
    assert int(kept) > 1000
