"""Assembly: which processes there are, and what is in each. The only module that knows the mode.

    process mode   supervisor ─┬─ gateway 0 ..            base mode   supervisor ─┬─ server 0 ..
                               └─ worker 0 ..             (one worker: everything in the process that was started)

With task workers there are in both modes a dispatcher and `task worker 0 ..`, and always a supervisor. The dispatcher
is also there when workers send messages to one another. A spare is what can become a worker or task worker.

How a server starts. The application runs up to `start()`, which calls `launch`. What must be known of it (settings, how
to find it again) goes into a memory file, and this process becomes the supervisor by exec: the same process id, without
a line of the application in it, and without what it has done to its process (mooring.app.launched). The supervisor
(mooring.supervise) starts gateways and workers as fresh interpreters; all of them enter by mooring.entry, and come here
by `join`. A worker runs the application again, up to its `start()`, which leads here again and becomes the worker's
loop.

What not every process needs is imported where it is needed: whatever stands at the top here, each of them loads.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

import msgspec

from mooring._core.orphan import die_with_parent
from mooring.app.debugging import Breakpoints, own_terminal
from mooring.app.launched import current_folder, launched, was_forked
from mooring.app.loader import identify, load_function
from mooring.boot import Boot, command, loaded, wait_for_place
from mooring.config import Settings
from mooring.errors import BootError, ConfigError, StateError
from mooring.journal import own_logger
from mooring.net import forks
from mooring.net.ending import FAILED_LIMIT, end_helpers, end_within
from mooring.net.log import (
    check_log_files,
    fill_standard_streams,
    leave_level,
    lend_level,
    log_stacks,
    log_to,
    reopen_logs,
)
from mooring.net.report import finish_output
from mooring.net.signals import handle, ignore
from mooring.roles import SPARE, SUPERVISOR
from mooring.supervisor.signals import hold_signals
from mooring.types import Guarantees

if TYPE_CHECKING:
    from mooring.parts import Server
    from mooring.process_host import ProcessHost

log = own_logger("mooring.runtime")

_boot: Boot | None = None  # of this process, when a supervisor started it
_breakpoints: Breakpoints | None = None  # those of the application in it
_host: ProcessHost | None = None  # what it has become

CONTROL_FRAMES = ("open_websocket_ping_frame", "open_websocket_pong_frame", "open_websocket_close_frame")


def check_handlers(server: Server, settings: Settings) -> None:
    """Raises ConfigError for handlers that a server with these settings can't start with."""
    if settings.operation.tracing and find_spec("opentelemetry") is None:
        raise ConfigError("tracing needs opentelemetry-api: pip install 'mooring-server[otel]'")
    further = [listener._handlers for listener in server._listeners]
    server._handlers.check(
        further,
        tasks=settings.tasks.task_worker_num > 0,
        files=any(one.http.document_root for one in settings.per_listener),
    )
    for handlers, here in zip([server._handlers, *further], settings.per_listener, strict=True):
        handed = [name for name in CONTROL_FRAMES if getattr(here.websocket, name)]
        if handed and handlers.is_typed("message"):
            raise ConfigError(
                f"{handed[0]} hands control frames to 'message', whose handler takes JSON of a type: register it "
                "without `type`, and call frame.json(type) where it is a message"
            )
        if handlers.get("ended") is not None and here.flow.close_records == "off" and not handlers.falls_back("ended"):
            raise ConfigError(
                "there is a handler for 'ended' and no close records are kept: set close_records to on or log, or "
                "remove the handler"
            )


def launch(server: Server, target: str | None = None) -> NoReturn:
    """What `Server.start` does; it ends with the process. Raises ConfigError for what cannot be started."""
    settings = server.settings
    check_handlers(server, settings)
    if _boot is not None:
        if forks.is_child():
            raise StateError("start() was called in a process that the application has forked while it was loaded")
        if _boot.role == SPARE.name:
            wait_for_place(_boot)
        if _boot.worker is None or _host is not None:
            raise StateError("start() was called twice")
        _check_caller()
        _become(_boot, server)
    _check_caller()
    application, tool = None, ""
    if _supervised(server):
        _check_process()
        application, tool = identify(target, launched)
    fill_standard_streams()
    _check_settings(settings)
    if application is None:
        log_to(settings, "server")
        lend_level(settings)
        if not own_terminal():
            Breakpoints("", os.getpid())
        from mooring.single import run_single

        code = run_single(server)
        finish_output(log)
        sys.exit(code)
    talks = server._handlers.get("pipe_message") is not None
    boot = Boot(SUPERVISOR, application, settings.to_dict())
    boot.dispatcher = talks or settings.tasks.task_worker_num > 0
    boot.engine = bool(server._topics)
    boot.processes = len(server._handlers.processes)
    boot.terminal = own_terminal()
    boot.shared = server._shared.create()
    if boot.shared.lock >= 0:
        os.set_inheritable(boot.shared.lock, True)  # across the exec; the supervisor keeps it
    if tool:
        boot.notes.append(
            f"{tool} ends here: workers run {application.name} without it; "
            "it sees everything with mode='base' and worker_num=1"
        )
    end_helpers()
    place = current_folder()
    kept = launched.restore()
    if kept:
        what = "; ".join(kept)
        boot.notes.append(f"what the application did before start() can't be undone and counts everywhere: {what}")
    if place != current_folder():
        boot.place = place
    file = os.memfd_create("mooring-boot", 0)  # inherited by exec
    try:
        os.write(file, msgspec.msgpack.encode(boot))
    except UnicodeEncodeError as error:
        raise ConfigError(f"{error.object!r} is no UTF-8, and no other process can be told of it") from None
    os.lseek(file, 0, os.SEEK_SET)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a full disk, a reader that is gone, a stream of the application's that is closed
            if stream is not None:  # it was closed from the beginning
                stream.flush()
    hold_signals()
    os.execv(launched.executable, [*command(), str(file)])


def _check_settings(settings: Settings) -> None:
    """Raises ConfigError for what they name and is not there: that belongs here, not into the log of each process."""
    from mooring.app.static import Documents
    from mooring.monitor.metrics import check_client
    from mooring.net.tls import new_context

    check_log_files(settings)
    if ":" in settings.process.dispatch:
        load_function(settings.process.dispatch)
    if settings.operation.metrics_listen:
        check_client()
    if settings.topics.engine != "memory":
        _check_engine(settings.topics.engine)
    for one in settings.per_listener:
        new_context(one.tls)
        if one.http.document_root:
            Documents(one.http.document_root).close()


def _check_engine(url: str) -> None:
    """Raises ConfigError. Whether the server can be reached is seen later: it may be started after us."""
    shown = re.sub(r"//[^@/ ]*@", "//***@", url)  # without user and password
    try:
        from mooring.engine.redis.servers import resolver_of
    except ImportError as error:
        raise ConfigError(f"engine={shown!r} wants redis: pip install 'mooring-server[redis]' ({error})") from error
    for one in url.split():
        try:
            resolver_of(one)
        except ValueError as error:
            raise ConfigError(f"engine={shown!r} is no URL of a server: {error}") from None


def _check_caller() -> None:
    """Raises ConfigError where nobody can serve: signals come to the main thread, and no loop runs inside another."""
    import asyncio

    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            f"start() was called in the thread {threading.current_thread().name!r}, and needs the main thread: call it "
            "there, and run what shall go on beside it in a thread, with add_process(), or in a program of its own"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(
        "start() was called in a coroutine, and runs an event loop of its own: call it outside, and do in the "
        "'worker_start' handler what has to be awaited first"
    )


def _check_process() -> None:
    """Raises ConfigError for a process that can't become the supervisor, or is no program that can be started again."""
    advice = "start the server as a program of its own, such as `mooring run app:server`, by subprocess"
    alone = "or use mode='base' with worker_num=1, which serves in this very process"
    if getattr(sys, "frozen", False) or not launched.executable:
        raise ConfigError(f"there is no Python interpreter that could run the workers: use one, {alone}")
    processes = sys.modules.get("multiprocessing.process")
    if was_forked() or (processes is not None and processes.parent_process() is not None):
        raise ConfigError(f"start() was called in a child process that another program has forked: {advice}, {alone}")


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
    more = tasks.task_worker_num or server._handlers.processes
    # as process 1 there has to be somebody who reaps orphans, and can tell them from children of the application
    wanted = process.watch or process.max_request or process.worker_memory_limit or os.getpid() == 1
    return bool(several or more or wanted)


def join(told: Boot, settings: Settings) -> None:
    """Becomes the process of the tree that it is told to be. One with a worker loads the application first, whose
    `start()` leads to `launch`."""
    from mooring.supervised import ORPHAN_GRACE

    global _boot, _breakpoints
    log_stacks(settings)
    # a terminal's Ctrl-C is for the supervisor, which tells everybody else in order
    ignore(signal.SIGINT)
    # the supervisor passes it on in words; who sends it to everybody shall not end everybody
    handle(signal.SIGRTMIN, lambda *_: reopen_logs())
    # those that can leave do so within a second after ORPHAN_GRACE; this is for those that are stuck
    die_with_parent(told.parent, int(ORPHAN_GRACE) + 2)
    _boot = told
    assert told.application is not None
    forks.in_child(_give_back)
    if told.worker is None and told.role != SPARE.name:
        if ":" in settings.process.dispatch:
            told.application.find()  # the function stands beside the application
            lend_level(settings)
        _become(told, None)
    lend_level(settings)
    _breakpoints = Breakpoints(told.terminal, told.parent)
    loaded()  # from here on it is the application's
    try:
        told.application.run()
    except (BootError, ConfigError) as error:
        log.error("%s", error)
        sys.exit(1)
    except Exception:
        # in one write: those of several workers, which fail at the same moment, would mix
        log.exception("the application has failed")
        sys.exit(1)
    finally:
        if not forks.is_child():
            end_within(FAILED_LIMIT, 1)  # nothing, if it has become something


def _become(told: Boot, server: Server | None) -> NoReturn:
    """Serves, as one of the processes of the tree, and ends with it."""
    from mooring.supervised import Supervised

    global _host
    leave_level()
    _host = Supervised(told, server).host
    if server is None:
        loaded()
    if _breakpoints is not None:
        _breakpoints.beat = _host.pulse.beat
    try:
        _host.run()
    except BaseException as error:
        forks.end_child(error)  # it comes from a handler that has forked
        raise
    end_within(_host.settings.process.graceful_timeout, 0)  # the supervisor counts from the beginning of the stop
    finish_output(log)
    sys.exit(0)


def _give_back() -> None:
    """This process was forked off one of the tree."""
    if _host is not None:
        _host.abandon()
    elif _boot is not None:
        _boot.give_back()
