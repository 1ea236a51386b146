"""The section `tasks` of the settings: task workers and their queues."""

from dataclasses import dataclass

from .option import GIB, HOUR, Section, option


@dataclass(frozen=True)
class Tasks(Section):
    """Task workers: processes for blocking work."""

    task_worker_num: int = option(
        0,
        "Processes that run the `task` handler, one task at a time each; 0: there are no tasks.",
        "processes",
        bounds=(0, 256),
    )
    task_timeout: float = option(
        60.0,
        "How long `task`, `task_wait` and `task_map` wait for a result unless told otherwise; then TaskTimeout.",
        "s",
        bounds=(0.001, 24 * HOUR),
    )
    task_max_request: int = option(
        0,
        "Tasks after which a task worker ends and another takes its place; 0 means never.",
        "tasks",
        bounds=(0, 1 << 40),
    )
    task_queue_limit: int = option(
        1024, "Tasks of one worker that are not finished; more raise TaskQueueFull.", "tasks", bounds=(1, 1 << 20)
    )
    task_queue_bytes: int = option(
        64 << 20, "The same in bytes of packed data; one task is always let through.", "bytes", bounds=(4096, GIB)
    )
    dispatcher_memory_limit: int = option(
        512 << 20,
        "What the dispatcher keeps at most, over all workers: tasks that wait, results and messages between workers "
        "that are not read yet. Nearly there, new tasks raise TaskQueueFull and messages PipeFull.",
        "bytes",
        bounds=(1 << 20, 64 * GIB),
    )
