"""The section `process` of the settings: which processes there are, and when they are replaced."""

import os
from dataclasses import dataclass

from .option import HOUR, Section, check_dispatch, check_filled, check_path, option


def usable_cpus() -> int:
    """The CPUs this process may run on, which a container or taskset may have made fewer."""
    return min(len(os.sched_getaffinity(0)), 256)


@dataclass(frozen=True)
class Process(Section):
    """The process tree."""

    mode: str = option(
        "process",
        "`process`: gateways keep the connections and workers run the application, so that a worker can be "
        "reloaded or die without a client noticing. `base`: each process does both; fewer processes, and the "
        "end of one closes its connections.",
        choices=("process", "base"),
    )
    worker_num: int = option(
        usable_cpus(), "Processes that run the application.", "processes", bounds=(1, 256), shown="usable CPUs"
    )
    spare_worker_num: int = option(
        0,
        "Processes that have loaded the application and wait. When a worker or task worker dies, one of them takes its "
        "place at once, however long the application takes to load; then another is started. In `base` mode for task "
        "workers only.",
        "processes",
        bounds=(0, 64),
    )
    gateway_num: int = option(
        1, "Processes that keep the connections; not used in `base` mode.", "processes", bounds=(1, 32)
    )
    dispatch: str = option(
        "connection",
        "Which worker serves a connection: `connection`: the least loaded one when it comes; `address`: the same for "
        "all of an address; `user`: the same for all that are bound to a user (until then the least loaded one); or "
        "MODULE:FUNCTION, which is given what is known of a connection (`fd`, `remote_ip`, `server_port`, `user`) and "
        "returns a key, the same worker for the same key, or None. That function runs in the gateways: keep it small; "
        "it is loaded when they start. Not used in `base` mode.",
        check=check_dispatch,
    )
    graceful_timeout: float = option(
        30.0,
        "How long a stop or a reload waits for running handlers, and for work that connections own (`spawn`).",
        "s",
        bounds=(0, HOUR),
    )
    event_timeout: float = option(
        5.0,
        "How long a reload waits for the handler of `before_reload`, and a worker that ends for `worker_exit`.",
        "s",
        bounds=(0, HOUR),
    )
    boot_timeout: float = option(
        30.0, "How long a new process may take to import the application and be ready.", "s", bounds=(0.1, HOUR)
    )
    restart_free: int = option(
        3,
        "Restarts of one process without delay; the next ones in the same series wait longer each time.",
        "restarts",
        bounds=(0, 1000),
    )
    restart_window: float = option(
        10.0, "A process that has served for so long ends its series of restarts.", "s", bounds=(0, HOUR)
    )
    restart_backoff_max: float = option(
        5.0, "The longest delay before a process that keeps ending is started again.", "s", bounds=(0, HOUR)
    )
    degraded_after: int = option(
        10,
        "Restarts in one series after which a process is reported as degraded, in the log and in `stats()`. While all "
        "workers are, and none is there, requests are refused with 503.",
        "restarts",
        bounds=(1, 10_000),
    )
    degraded_hold_time: float = option(
        10.0,
        "How long the messages of a WebSocket wait for a worker while all are degraded; then it is closed with 1013.",
        "s",
        bounds=(0, HOUR),
    )
    max_request: int = option(
        0,
        "Messages and requests after which a worker is replaced, one at a time, as by a reload; 0 means never.",
        "events",
        bounds=(0, 1 << 40),
    )
    max_request_grace: int = option(
        -1,
        "Up to so many more, at random for each worker, so that they are not all replaced at one time; -1 means half "
        "of `max_request`.",
        "events",
        bounds=(-1, 1 << 40),
    )
    worker_memory_limit: int = option(
        0,
        "A worker with more memory (resident) is replaced, as by a reload; 0: no limit.",
        "bytes",
        bounds=(0, 1 << 50),
    )
    worker_hang_timeout: float = option(
        30.0,
        "A worker whose loop does not turn for so long (a blocking call, C code that holds the interpreter) writes its "
        "stacks to the log and is aborted, then killed; 0 means never. Not in `base` mode with one process.",
        "s",
        bounds=(0, HOUR),
    )
    blocked_after: float = option(
        1.0,
        "A handler that blocks the loop of its worker for so long is named in the log, and when it has ended, how long "
        "it took and how many events waited; 0 means never. Task workers and processes of your own may block.",
        "s",
        bounds=(0, HOUR),
    )
    overdue_after: float = option(
        0.0,
        "A handler that has not ended after so long is reported, once, and goes on; 0 means never.",
        "s",
        bounds=(0, HOUR),
    )
    gateway_hang_timeout: float = option(
        10.0,
        "The same for a gateway; its connections end. Shorter, because it keeps all its clients waiting and runs no "
        "handlers: of the application only a `dispatch` function, which must not block.",
        "s",
        bounds=(0, HOUR),
    )
    watch: tuple[str, ...] = option(
        (),
        "Files and directories: a change in one reloads the workers. Needs `mooring-server[watch]`.",
        "paths",
        check=check_filled,
    )
    control_socket: str = option(
        "",
        "Path of a Unix socket on which other programs of this user can ask for counts and connections, push, reload "
        "and stop: `mooring status --socket PATH`, `mooring.connect(PATH)`. Its permissions are 0600. One that a dead "
        "server has left is replaced; anything else there is left alone, and the start fails. Empty: there is none.",
        check=check_path,
    )
    log_level: str = option(
        "info", "The least serious line that is logged.", choices=("debug", "info", "warning", "error", "critical")
    )

    @property
    def beat_period(self) -> float:
        """Seconds between two signs of life of a process, often enough for the shortest hang timeout."""
        return min(1.0, (self.worker_hang_timeout or 4.0) / 4, (self.gateway_hang_timeout or 4.0) / 4)
