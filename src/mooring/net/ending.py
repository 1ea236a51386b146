"""The end of an interpreter, in bounded time.

When a process has done its part in the server, the interpreter waits for what the application has left: threads that
are no daemons, executors, children that multiprocessing joins, functions of `atexit`. All of them have their time. When
it is over, so is the process: else a thread that never ends would keep a server for ever that has said that it stops.
"""

import os
import sys
import threading
import time
from contextlib import suppress

from mooring._core.orphan import exit_after
from mooring.journal import own_logger

log = own_logger("mooring.runtime")

FAILED_LIMIT = 3.0  # seconds for one that has not served
HELPERS_LIMIT = 2.0  # seconds
MARGIN = 0.1  # seconds; then C code ends what does not even run Python any more

_begun = False


def end_within(seconds: float, code: int) -> None:
    """This process ends with `code` so many seconds from now, if not by itself before. The first call counts."""
    global _begun
    if _begun:
        return
    _begun = True
    exit_after(seconds + MARGIN, code)
    with suppress(RuntimeError):  # there are too many threads already, or the interpreter is past that
        threading.Thread(target=_watch, args=(seconds, code), name="mooring-end", daemon=True).start()


def _watch(seconds: float, code: int) -> None:
    time.sleep(seconds)
    _terminate_helpers()
    with suppress(Exception):
        log.warning("%s did not end in time: this process ends all the same", _who() or "what the application has left")
    os._exit(code)


def end_helpers() -> None:
    """Ends the processes by which this one has had its work done: a Pool's, a Manager's, an executor's, daemons. The
    interpreter does that at its end, which does not come where a program becomes another one: nobody would talk to
    them any more, and they would wait for ever. Children that are no daemons may be meant to go on."""
    if "multiprocessing.process" not in sys.modules:
        return
    with suppress(RuntimeError):
        ender = threading.Thread(target=_end_helpers, name="mooring-helpers", daemon=True)
        ender.start()
        ender.join(HELPERS_LIMIT)


def _end_helpers() -> None:
    with suppress(Exception):
        sys.modules["multiprocessing.util"]._run_finalizers(0)  # those of pools and managers
    _terminate_helpers()


def _terminate_helpers() -> None:
    """Only a signal, which takes no time. A Manager's process is not known by that."""
    with suppress(Exception):
        processes = sys.modules["multiprocessing.process"]
        found = {child for child in processes.active_children() if child.daemon}
        executors = sys.modules.get("concurrent.futures.process")
        for manager in list(getattr(executors, "_threads_wakeups", ())):
            found |= set((getattr(manager, "processes", None) or {}).values())
        for child in found:
            child.terminate()


def _who() -> str:
    main = threading.main_thread()
    threads = [one.name for one in threading.enumerate() if one is not main and not one.daemon]
    found = [f"threads of the application ({', '.join(threads)})"] if threads else []
    processes = sys.modules.get("multiprocessing.process")  # who has not imported it has none
    if processes is not None:
        children = [str(child.pid) for child in processes.active_children() if not child.daemon]
        found += [f"its child processes ({', '.join(children)})"] if children else []
    return " and ".join(found)
