"""The supervisor: binds nothing, serves nobody, keeps the processes alive that do.

`supervisor.py` holds the theory and the plan; `slots.py` repairs; `reload.py` and `shutdown.py` are the two long plans;
`tree.py` is the mechanism below them; `process.py`, `links.py`, `slot.py`, `restarts.py`, `deadlines.py`,
`watchdog.py`, `bulletin.py`, `service.py`, `pid_file.py`, `signals.py` and `watcher.py` one thing each.
"""

from mooring.supervisor.supervisor import Limits, Supervisor
from mooring.supervisor.watcher import Watcher

__all__ = ["Limits", "Supervisor", "Watcher"]
