"""The supervisor: binds nothing, serves nobody, keeps the processes alive that do.

`supervisor.py` holds the theory; `plans.py` the short plans, `reload.py` and `shutdown.py` the long ones; `slots.py`
repairs; `tree.py` is the mechanism below them; `process.py`, `links.py`, `slot.py`, `restarts.py`, `deadlines.py`,
`watchdog.py`, `bulletin.py`, `service.py`, `pid_file.py`, `signals.py` and `watcher.py` one thing each.
"""
