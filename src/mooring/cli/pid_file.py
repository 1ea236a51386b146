"""status, stop and reload of a server that has no control socket: by its pid file and signals.

Exit codes are those that the LSB has for init scripts.
"""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from mooring.errors import ConfigError
from mooring.supervisor.pid_file import Found, find_server

STOP_TIMEOUT = 60.0  # seconds; longer than the default of graceful_timeout
DEAD, NOT_RUNNING, UNKNOWN = 1, 3, 4  # of status
CAN_NOT_RELOAD = 7

Act = Callable[[str, float | None], tuple[dict[str, Any], str, int]]
"""act(path of the pid file, timeout if one was given): what to print as JSON, to a person, and the exit code."""


def also_by_pid_file(command: click.Command, act: Act, about: str) -> None:
    """Gives a command that asks on a control socket the option --pid-file, and does that with it."""
    [socket] = [parameter for parameter in command.params if parameter.name == "path"]
    socket.required = False
    ask = command.callback
    assert ask is not None

    def run(pid_file: str | None, path: str | None, timeout: float, as_json: bool, **arguments: Any) -> None:
        context = click.get_current_context()
        given = {
            name: context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ("path", "timeout")
        }
        if pid_file is None:
            if path is None:
                raise click.UsageError("give --socket PATH (control_socket), or --pid-file PATH", context)
            ask(path=path, timeout=timeout, as_json=as_json, **arguments)
            return
        if given["path"]:
            raise click.UsageError("give --socket or --pid-file, not both", context)
        result, text, code = act(pid_file, timeout if given["timeout"] else None)
        if as_json:
            click.echo(msgspec.json.encode(result).decode())
        else:
            click.echo(text, err=code != 0)
        raise SystemExit(code)

    command.callback = run
    command.params.insert(1, click.Option(["--pid-file", "pid_file"], metavar="PATH", help=about))


class _Unknown(click.ClickException):
    exit_code = UNKNOWN


@contextlib.contextmanager
def _server(path: str, failure: type[click.ClickException] = click.ClickException) -> Iterator[Found | None]:
    try:
        found = find_server(path)
    except ConfigError as error:
        raise failure(str(error)) from None
    try:
        yield found
    finally:
        if found is not None:
            os.close(found.pidfd)


def _send(found: Found, number: int) -> None:
    try:
        if not found.known:
            raise PermissionError
        signal.pidfd_send_signal(found.pidfd, number)
    except ProcessLookupError:
        pass  # it has just ended
    except PermissionError:
        raise click.ClickException(f"no permission to signal process {found.pid}: it is another user's") from None


def status_by_lock(path: str, _timeout: float | None) -> tuple[dict[str, Any], str, int]:
    with _server(path, _Unknown) as found:
        if found is not None:
            return {"running": True, "pid": found.pid}, f"running, process {found.pid}", 0
    nothing = {"running": False, "pid": None}
    if os.path.exists(path):
        return nothing, f"not running; it has left {path}", DEAD
    return nothing, "not running", NOT_RUNNING


def stop_by_signal(path: str, timeout: float | None) -> tuple[dict[str, Any], str, int]:
    limit = STOP_TIMEOUT if timeout is None else timeout
    with _server(path) as found:
        if found is None:
            return {"running": False, "pid": None}, "not running", 0
        _send(found, signal.SIGTERM)
        ended = select.poll()
        ended.register(found.pidfd, select.POLLIN)
        if ended.poll(limit * 1000):
            return {"running": False, "pid": found.pid}, f"process {found.pid} has ended", 0
        text = f"process {found.pid} was told to stop, and runs still after {limit:g} s: --timeout waits longer"
        return {"running": True, "pid": found.pid}, text, 1


def reload_by_signal(path: str, _timeout: float | None) -> tuple[dict[str, Any], str, int]:
    with _server(path) as found:
        if found is None:
            return {"running": False, "pid": None}, "not running", CAN_NOT_RELOAD
        _send(found, signal.SIGHUP)
        return (
            {"running": True, "pid": found.pid},
            f"process {found.pid} was told to reload; its log says how it goes",
            0,
        )
