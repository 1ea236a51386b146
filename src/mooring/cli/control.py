"""Commands for a server that runs: each is one request on its control socket, and prints the answer."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from mooring.admin.client import TIMEOUT, ControlClient
from mooring.errors import AdminError

COMMANDS: list[click.Command] = []
COLUMNS = ("fd", "state", "remote", "worker", "connected", "received", "sent", "in flight")
SHOWN = ("connections", "websockets", "topics", "users", "accepted", "finished", "uncertain", "dropped", "in_flight")

Show = Callable[[Any], None]
"""Prints a result for people."""


def command(function: Callable[..., tuple[Any, Show]]) -> click.Command:
    """A command that is given a client, asks, and returns what came and how people shall see it."""

    @click.option("--socket", "path", metavar="PATH", envvar="MOORING_SOCKET", required=True, help="Control socket.")
    @click.option("--timeout", type=click.FloatRange(0.001), default=TIMEOUT, show_default=True, help="In seconds.")
    @click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
    @functools.wraps(function)
    def run(path: str, timeout: float, as_json: bool, **arguments: Any) -> None:
        try:
            result, show = function(ControlClient(path, timeout), **arguments)
        except AdminError as error:
            raise click.ClickException(str(error)) from error
        if as_json:
            click.echo(msgspec.json.encode(result).decode())
        else:
            show(result)
        if result is False or (result is None and function.__name__ == "inspect"):
            raise SystemExit(1)

    made = click.command()(run)
    COMMANDS.append(made)
    return made


def say(text: str) -> Show:
    return lambda _result: click.echo(text)


def there(fd: int, done: str) -> Show:
    """For what a connection may be gone for."""
    gone = f"connection {fd} is gone, or no open WebSocket"
    return lambda result: click.echo(done if result else gone, err=not result)


@command
def status(client: ControlClient) -> tuple[Any, Show]:
    """What the server is doing: processes, connections, counts."""

    def show(stats: dict[str, Any]) -> None:
        tree = stats["tree"]
        for role in ("gateway", "worker"):
            click.echo(f"{role + 's':<16}{tree.get(f'{role}s_running')} of {tree.get(f'{role}s_wanted')} serve")
        if tree.get("spares_wanted"):
            click.echo(f"{'spares':<16}{tree.get('spares_running')} of {tree['spares_wanted']} wait")
        for name in (*(name for name in SHOWN if name in stats), "generation"):
            click.echo(f"{name:<16}{stats[name]}")
        for name in ("restarts", "replacements", "reloads", "reloads_failed", "hangs"):
            click.echo(f"{name:<16}{tree.get(name, 0)}")
        if tree.get("degraded"):
            click.echo(f"degraded: {', '.join(tree['degraded'])}")

    return client.stats(), show


@command
@click.option("--user", help="Only those of this user.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=1000, show_default=True, help="So many at most.")
def connections(client: ControlClient, user: str | None, limit: int) -> tuple[Any, Show]:
    """List connections."""

    def show(listing: dict[str, Any]) -> None:
        rows = [COLUMNS, *(_row(one) for one in listing["connections"])]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        for row in rows:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if listing["total"] > limit:
            click.echo(f"{listing['total']} in all; --limit shows more")

    return client.listing(user, limit=limit), show


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    worker = one["worker_id"]
    return (
        str(one["fd"]),
        one["state"].lower(),
        f"{one['remote_ip']}:{one['remote_port']}" if one["remote_ip"] else one["unix_socket"] or "unix",
        "-" if worker is None else str(worker),
        _time(one["connect_time"]),
        str(one["messages_received"]),
        str(one["messages_sent"]),
        str(one["in_flight"]),
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@command
@click.argument("fd", type=int)
def inspect(client: ControlClient, fd: int) -> tuple[Any, Show]:
    """Show what is known of a connection; exit code 1 when it is gone."""

    def show(info: dict[str, Any] | None) -> None:
        if info is None:
            click.echo(f"connection {fd} is gone", err=True)
        for name, value in (info or {}).items():
            text = _time(value) if name.endswith("_time") else "-" if value is None else value
            click.echo(f"{name:<20}{text}")

    return client.inspect(fd), show


@command
@click.argument("fd", type=int, required=False)
@click.option("--user", help="All connections of this user.")
@click.option("--code", type=int, default=1000, show_default=True, help="Close code, for WebSockets.")
@click.option("--reason", default="", help="Reason that the client is told.")
def kick(client: ControlClient, fd: int | None, user: str | None, code: int, reason: str) -> tuple[Any, Show]:
    """Close a connection, or all of a user; exit code 1 when the connection is gone already."""
    _one_target(FD=fd, user=user)
    if user is not None:
        count = client.disconnect_user(user, code, reason)
        return count, say(f"closing {count} connections")
    return client.disconnect(fd or 0, code, reason), there(fd or 0, "closing it")


@command
@click.argument("words", nargs=-1, metavar="[FD] TEXT")
@click.option("--user", help="To all connections of this user, instead of FD.")
@click.option("--topic", help="To all connections in this topic, instead of FD.")
def push(client: ControlClient, words: tuple[str, ...], user: str | None, topic: str | None) -> tuple[Any, Show]:
    """Send TEXT as one message; exit code 1 when the connection is gone.

    Before a TEXT that begins with a minus write "--".
    """
    *target, text = words or ("",)
    if not words or len(target) > 1:
        raise click.UsageError("give one TEXT, in quotes if there are spaces in it")
    _one_target(FD=target[0] if target else None, user=user, topic=topic)
    if user is not None:
        client.push_user(user, text)
        return None, say("sent")
    if topic is not None:
        client.publish(topic, text)
        return None, say("sent")
    fd: int = click.types.convert_type(int)(target[0], None, click.get_current_context())
    return client.push(fd, text), there(fd, "sent")


@command
def reload(client: ControlClient) -> tuple[Any, Show]:
    """Replace the workers by new ones that load the application anew."""
    client.reload()
    return None, say("the reload has been asked for; `mooring status` counts those that are done")


@command
def stop(client: ControlClient) -> tuple[Any, Show]:
    """Stop the server in order."""
    client.shutdown()
    return None, say("the stop has been asked for")


def _one_target(**given: object) -> None:
    if sum(value is not None for value in given.values()) != 1:
        names = [name if name == "FD" else f"--{name}" for name in given]
        raise click.UsageError(f"give exactly one of {', '.join(names)}")
