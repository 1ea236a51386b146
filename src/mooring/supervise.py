"""What this process does when it is to be the supervisor: it takes what is the server's alone (the listeners, the pid
file, the control socket) and starts the others."""

import os
from contextlib import ExitStack

from mooring.app.launched import launched
from mooring.app.shared import remove
from mooring.boot import Boot, clock_offset, command, loaded
from mooring.config import Settings
from mooring.errors import ConfigError
from mooring.journal import own_logger
from mooring.monitor.scoreboard import new_scoreboard
from mooring.net.bind import bind_all, bind_control, bind_metrics
from mooring.net.descriptors import raise_descriptor_limit
from mooring.net.listener import ListenError
from mooring.roles import Needs, specs
from mooring.supervisor.pid_file import take_pid_file
from mooring.supervisor.scores import Scores
from mooring.supervisor.service import Service
from mooring.supervisor.supervisor import Supervisor

log = own_logger("mooring.runtime")


def supervise(told: Boot, settings: Settings) -> int:
    """Supervises a server until it has stopped; the exit code."""
    process = settings.process
    wanted = list(specs(settings, Needs(told.dispatcher, told.engine, told.processes)))
    extra = {
        "application": told.application,
        "settings": told.settings,
        "parent": os.getpid(),
        "clock": clock_offset(),
        "shared": told.shared,
        "place": told.place,
        "terminal": told.terminal,
        "engine": told.engine,
        # in base mode a process has one with each other one for its gateway, and one for its worker
        "link_num": sum(spec.worker is not None or spec.row.links_gateways for spec in wanted)
        + (len(wanted) if process.mode == "base" else 0),
    }
    if b"LC_CTYPE" not in launched.environment:
        os.environb.pop(b"LC_CTYPE", None)  # the interpreter has set it (PEP 538), as it does in each process itself
    with ExitStack() as ours:
        ours.callback(remove, told.shared)
        service = Service.from_environment()
        ours.callback(service.close)
        try:
            raise_descriptor_limit()
            pid_file = take_pid_file(settings.operation.pid_file)
            if pid_file is not None:
                ours.callback(pid_file.close)
            control = bind_control(process.control_socket)
            if control is not None:
                ours.callback(control.close)
            scores = _scores(settings, ours)
            listeners = bind_all([one.listen for one in settings.per_listener])
            watch = [os.path.abspath(path) for path in process.watch]
            own = _own_files(told, settings)
            if told.place:
                assert told.application is not None
                os.chdir(told.application.folder)  # where Python shall begin in what is started now
            loaded()
            return Supervisor(
                wanted, listeners, lambda _spec, _gen: extra, process, command(), watch, control, service, own, scores
            ).run()
        except (ListenError, ConfigError) as error:
            log.error("%s", error)
            return error.exit_code if isinstance(error, ListenError) else 1


def _scores(settings: Settings, ours: ExitStack) -> Scores:
    """With the listener of /metrics, if there shall be one; `ours` closes it. Raises ListenError."""
    listener = bind_metrics(settings.operation.metrics_listen)
    if listener is None:
        return Scores()
    ours.callback(listener.close)
    file = new_scoreboard()
    ours.callback(os.close, file)
    return Scores(file, listener.fileno())


def _own_files(told: Boot, settings: Settings) -> list[str]:
    """What the server itself writes, by absolute paths: no change of the application."""
    operation = settings.operation
    written = [operation.log_file, operation.access_log_file, operation.pid_file, settings.process.control_socket]
    written += [told.shared.folder, *(one.listen.unix_socket for one in settings.per_listener)]
    if operation.metrics_listen.startswith("unix:"):
        written.append(operation.metrics_listen.removeprefix("unix:"))
    return [os.path.abspath(path) for path in written if path]
