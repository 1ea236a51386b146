"""What belongs to a server alone, which no change of the application can be."""

import os

from mooring.app.shared import Declared
from mooring.boot import Boot
from mooring.config import Settings
from mooring.supervise import _own_files


def test_the_files_that_a_server_writes_itself() -> None:
    settings = Settings.from_options(
        {"log_file": "a.log", "pid_file": "/run/a.pid", "control_socket": "c", "metrics_listen": "unix:/run/m"}
        | {"listeners": [{"unix_socket": "/run/u"}]}
    )
    told = Boot("supervisor", None, {}, shared=Declared(folder="/tmp/shared"))
    here = os.getcwd()
    assert _own_files(told, settings) == [f"{here}/a.log", "/run/a.pid", f"{here}/c", "/tmp/shared", "/run/u", "/run/m"]
