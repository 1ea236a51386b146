"""Run a supervisor over toy children, as a program: signals need a main thread, and exit codes a process.

The only argument is a JSON file: specs, rules, settings, report, folder, watch, subreaper.
"""

import ctypes
import json
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from mooring.net.listener import bind_listener
from mooring.roles import ProcessSpec
from mooring.supervisor.supervisor import Supervisor

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Settings:
    graceful_timeout: float = 5.0
    boot_timeout: float = 20.0
    event_timeout: float = 10.0
    restart_free: int = 3
    restart_window: float = 10.0
    restart_backoff_max: float = 5.0
    degraded_after: int = 10
    worker_hang_timeout: float = 0.0
    gateway_hang_timeout: float = 0.0
    worker_memory_limit: int = 0
    spare_worker_num: int = 0


class Reporter(logging.Handler):
    def __init__(self, path):
        super().__init__()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.connect(path)

    def emit(self, record):
        event = {"event": "log", "who": "supervisor", "level": record.levelname, "line": record.getMessage()}
        self.socket.send(json.dumps(event | {"pid": os.getpid()}).encode())


def main():
    plan = json.loads(Path(sys.argv[1]).read_text())
    log = logging.getLogger("mooring.supervisor")
    log.setLevel(logging.INFO)
    log.addHandler(Reporter(plan["report"]))
    if plan["subreaper"]:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    extra = {"report": plan["report"], "folder": plan["folder"], "rules": plan["rules"]}
    supervisor = Supervisor(
        [ProcessSpec(**spec) for spec in plan["specs"]],
        [bind_listener("127.0.0.1", 0)],
        lambda spec, generation: extra,
        Settings(**plan["settings"]),
        plan["argv"] or [sys.executable, str(Path(__file__).with_name("child.py"))],
        plan["watch"],
    )
    sys.exit(supervisor.run())


main()
