"""A process role that is added: one row in the table of roles, and its part."""

import json
import os
import signal
import urllib.request
from pathlib import Path

from support.serving import HOME, LIMIT, Serving, eventually

ROW = """    Role("beacon", ("mooring.parts.beacon:BeaconPart",), lambda _settings, _needs: 2, counts_as=("beacon",)),
)
ROLES = {"""
PART = '''
"""Two processes that shine."""

from mooring.journal import own_logger
from mooring.parts import Part

log = own_logger("mooring.beacon")


class BeaconPart(Part):
    def serve(self):
        log.info("%s shines", self.host.boot.name)

    def depart(self):
        log.info("%s goes out", self.host.boot.name)
'''
APP = """
@server.on("request")
def page(request, response):
    response.json({name: number for name, number in server.stats()["tree"].items() if "beacon" in name})
"""


def counted(server: Serving) -> dict[str, int]:
    """What the application is told of beacons."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=LIMIT) as answer:
        found: dict[str, int] = json.load(answer)
    return found


def with_role(folder: Path) -> Path:
    """A copy of the package in which two places are not as they were."""
    package, home = folder / "mooring", Path(HOME) / "mooring"
    (package / "parts").mkdir(parents=True)
    for there, here in ((home, package), (home / "parts", package / "parts")):
        for path in there.iterdir():
            if path.name not in ("parts", "roles.py", "__pycache__"):
                (here / path.name).symlink_to(path.resolve())
    table = (home / "roles.py").read_text()
    assert table.count(")\nROLES = {") == 1
    (package / "roles.py").write_text(table.replace(")\nROLES = {", ROW))
    (package / "parts" / "beacon.py").write_text(PART)
    changed = [path for path in package.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(changed) == 2, "a row and a part"
    return folder


def test_a_role_is_a_row_and_a_part(tmp_path):
    """It is started, counted, listed, started again when it dies, spared by a reload, and ended in order."""
    home = str(with_role(tmp_path))
    with Serving(APP, mode="process", worker_num=1, gateway_num=1, env={"PYTHONPATH": home}) as server:
        for number in (0, 1):
            server.wait_log(f"beacon {number} shines")
        eventually(lambda: counted(server) == {"beacons_wanted": 2, "beacons_running": 2})
        killed, kept = server.pid_of("beacon 0"), server.pid_of("beacon 1")
        os.kill(killed, signal.SIGKILL)
        server.wait_log(r"beacon 0 \(pid \d+\) serves in place of the one that ended")
        os.kill(server.pid, signal.SIGHUP)
        server.wait_log("reload: done")
        assert server.pid_of("beacon 1") == kept
        assert server.stop() == 0
        eventually(lambda: sum("goes out" in line for line in server.lines) == 2)
        assert not any("did not end in time" in line for line in server.lines)


def test_in_base_mode_too(tmp_path):
    home = str(with_role(tmp_path))
    with Serving(APP, mode="base", worker_num=2, env={"PYTHONPATH": home}) as server:
        server.wait_log("beacon 1 shines")
        assert server.stop() == 0
