"""Assembly: which processes there are, and what is in each. The only module that knows the mode.

    process mode   supervisor ─┬─ gateway 0 ..            base mode   supervisor ─┬─ server 0 ..
                               └─ worker 0 ..             (one worker: everything in the process that was started)

With task workers there are in both modes a dispatcher and `task worker 0 ..`, and always a supervisor. The dispatcher
is also there when workers send messages to one another. A spare is what can become a worker or task worker.

How a server starts. The application runs up to `start()`, which calls `launch`. What must be known of it (settings, how
to find it again) goes into a memory file, and this process becomes the supervisor by exec: the same process id, without
a line of the application in it. The supervisor starts gateways and workers as fresh interpreters; all of them enter by
`boot`. A worker runs the application again, up to its `start()`, which leads here again and becomes the worker's loop.
"""

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

import msgspec
import setproctitle

from mooring._core.process import die_with_parent
from mooring.alone import run_alone
from mooring.app.loader import identify, load_function
from mooring.app.shared import remove
from mooring.app.static import Documents
from mooring.boot import Boot, wait_for_place
from mooring.config import Settings
from mooring.errors import BootError, ConfigError, StateError
from mooring.member import ORPHAN_GRACE, Member
from mooring.net.bind import bind_all, bind_control
from mooring.net.listener import ListenError
from mooring.net.log import check_log_files, fill_standard_streams, log_stacks, log_to, reopen_logs
from mooring.net.tls import new_context
from mooring.parts import Server, clock_offset
from mooring.supervisor import ProcessSpec, Supervisor
from mooring.supervisor.pid_file import take_pid_file
from mooring.supervisor.service import Service
from mooring.supervisor.signals import hold_signals
from mooring.types import Guarantees

log = logging.getLogger("mooring.runtime")

_boot: Boot | None = None  # of this process, when a supervisor started it
_member: Member | None = None  # what it has become


def launch(server: Server, target: str | None = None) -> NoReturn:
    """What `Server.start` does; it ends with the process. Raises ConfigError for what cannot be started."""
    settings = server.settings
    server.handlers.check(tasks=settings.tasks.task_worker_num > 0)
    if _boot is not None:
        if _boot.role == "spare":
            wait_for_place(_boot)
        if _boot.worker is None or _member is not None:
            raise StateError("start() was called twice")
        _become(_boot, server)
    fill_standard_streams()
    # these errors belong here, not into the log of each process
    check_log_files(settings)
    if ":" in settings.process.dispatch:
        load_function(settings.process.dispatch)
    for one in settings.per_listener:
        new_context(one.tls)
        if one.http.document_root:
            Documents(one.http.document_root).close()
    if not _supervised(server):
        log_to(settings, "server")
        sys.exit(run_alone(server))
    talks = server.handlers.get("pipe_message") is not None
    boot = Boot("supervisor", identify(target), settings.to_dict())
    boot.dispatcher = talks or settings.tasks.task_worker_num > 0
    boot.processes = len(server.handlers.processes)
    boot.shared = server.shared.create()
    file = os.memfd_create("mooring-boot", 0)  # inherited by exec
    os.write(file, msgspec.msgpack.encode(boot))
    os.lseek(file, 0, os.SEEK_SET)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # a full disk, a reader that is gone
            if stream is not None:  # it was closed from the beginning
                stream.flush()
    hold_signals()
    os.execv(sys.executable, [*_command(), str(file)])


def guarantees(server: Server) -> Guarantees:
    """What holds in the mode that the settings say."""
    settings = server.settings
    apart = settings.process.mode == "process"  # clients and application are in different processes
    return Guarantees(
        connections_outlive_workers=apart,
        connections_outlive_reloads=apart,
        can_reload=_boot is not None or _supervised(server),
        reports_uncertain=apart,
        at_least_once=tuple(apart and one.flow.redeliver for one in settings.per_listener),
        works_while_blocked=apart,
    )


def _supervised(server: Server) -> bool:
    """Whether there is a supervisor, or everything in one process."""
    process, tasks = server.settings.process, server.settings.tasks
    several = process.mode == "process" or process.worker_num > 1
    more = tasks.task_worker_num or server.handlers.processes
    # as process 1 there has to be somebody who reaps orphans, and can tell them from children of the application
    wanted = process.watch or process.max_request or process.worker_memory_limit or os.getpid() == 1
    return bool(several or more or wanted)


def boot(fd: int) -> None:
    """`python -m mooring _process FD`: becomes what the memory file says."""
    global _boot
    fill_standard_streams()
    with open(fd, "rb") as file:
        told = msgspec.msgpack.decode(file.read(), type=Boot)
    settings = Settings.from_options(told.settings)
    setproctitle.setproctitle(f"mooring: {told.name}")
    log_to(settings, told.name)
    if told.role == "supervisor":
        sys.exit(_supervise(told, settings))
    log_stacks(settings)
    # a terminal's Ctrl-C is for the supervisor, which tells everybody else in order
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # the supervisor passes it on in words; who sends it to everybody shall not end everybody
    signal.signal(signal.SIGRTMIN, lambda *_: reopen_logs())
    # those that can leave do so within a second after ORPHAN_GRACE; this is for those that are stuck
    die_with_parent(told.parent, int(ORPHAN_GRACE) + 2)
    _boot = told
    if told.worker is None and told.role != "spare":
        if ":" in settings.process.dispatch:
            sys.path.insert(0, told.application.folder)  # the function stands beside the application
        _become(told, None)
    try:
        told.application.run()
    except (BootError, ConfigError) as error:
        log.error("%s", error)
        sys.exit(1)
    except Exception:
        # in one write: those of several workers, which fail at the same moment, would mix
        log.exception("the application has failed")
        sys.exit(1)


def _become(told: Boot, server: Server | None) -> NoReturn:
    """Serves, as one of the processes of the tree, and ends with it."""
    global _member
    _member = Member(told, server)
    sys.exit(_member.run())


def _command() -> list[str]:
    # the standard library's own way to start a child with the flags of its parent (-X dev, -W error, ...)
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, "-P", "-m", "mooring", "_process"]


def _supervise(told: Boot, settings: Settings) -> int:
    process = settings.process
    if process.mode == "base":
        specs = [ProcessSpec("server", n, gateway=n, worker=n) for n in range(process.worker_num)]
    else:
        specs = [ProcessSpec("gateway", n, gateway=n) for n in range(process.gateway_num)]
        specs += [ProcessSpec("worker", n, worker=n) for n in range(process.worker_num)]
    if told.dispatcher:
        specs.append(ProcessSpec("dispatcher", 0))
    first = process.worker_num
    specs += [ProcessSpec("task worker", n, worker=first + n) for n in range(settings.tasks.task_worker_num)]
    first += settings.tasks.task_worker_num
    specs += [ProcessSpec("process", n, worker=first + n) for n in range(told.processes)]
    if told.shared.lock >= 0:
        os.set_inheritable(told.shared.lock, False)
    extra = {
        "application": told.application,
        "settings": told.settings,
        "parent": os.getpid(),
        "clock": clock_offset(),
        "shared": told.shared,
        # in base mode a process has one with each other one for its gateway, and one for its worker
        "link_num": sum(spec.worker is not None for spec in specs) + (len(specs) if process.mode == "base" else 0),
    }
    service = Service.from_environment()
    control = pid_file = None
    try:
        pid_file = take_pid_file(settings.operation.pid_file)
        control = bind_control(process.control_socket)
        listeners = bind_all([one.listen for one in settings.per_listener])
        return Supervisor(
            specs, listeners, lambda _spec, _gen: extra, process, _command(), process.watch, control, service
        ).run()
    except (ListenError, ConfigError) as error:
        log.error("%s", error)
        return error.exit_code if isinstance(error, ListenError) else 1
    finally:
        if control is not None:
            control.close()
        if pid_file is not None:
            pid_file.close()
        service.close()
        remove(told.shared)
