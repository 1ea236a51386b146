"""Commands for a server that runs: each is one request on its control socket, and prints the answer."""

import functools
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from mooring.admin.client import TIMEOUT, ControlClient
from mooring.app.search import LISTED_LIMIT, SORTS, STATES
from mooring.cli.pid_file import also_by_pid_file, reload_by_signal, status_by_lock, stop_by_signal
from mooring.cli.text import duration, number, plain, seconds, size, table
from mooring.counters import ROWS, TABLE
from mooring.errors import AdminError

COMMANDS: list[click.Command] = []

Show = Callable[[Any], None]
"""Prints a result for people."""
Column = tuple[str, Callable[[dict[str, Any]], str]]


def as_fd(context: click.Context, param: click.Parameter | None, value: str | None) -> int | None:
    """A connection's id, of an argument."""
    try:
        return None if value is None else int(value)
    except ValueError:
        instead = f"; for the user of that name --user {value}" if context.command.name in ("kick", "push") else ""
        text = f"{value!r} is no fd, which is a number, as `mooring connections` shows it{instead}"
        raise click.BadParameter(text, context, param) from None


def asking(function: Callable[..., None]) -> Callable[..., None]:
    """Options of whatever asks a server; the function is given a client and whether to print JSON."""

    @click.option("--socket", "path", metavar="PATH", envvar="MOORING_SOCKET", required=True, help="Control socket.")
    @click.option("--timeout", type=click.FloatRange(0.001), default=TIMEOUT, show_default=True, help="In seconds.")
    @click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
    @functools.wraps(function)
    def run(path: str, timeout: float, **arguments: Any) -> None:
        function(ControlClient(path, timeout), **arguments)

    return run


def command(function: Callable[..., tuple[Any, Show]]) -> click.Command:
    """A command that is given a client, asks, and returns what came and how people shall see it."""

    @asking
    @functools.wraps(function)
    def run(client: ControlClient, as_json: bool, **arguments: Any) -> None:
        try:
            result, show = function(client, **arguments)
        except AdminError as error:
            raise click.ClickException(str(error)) from error
        if as_json:
            click.echo(msgspec.json.encode(result).decode())
        else:
            show(result)
        if not result and (result is not None or function.__name__ == "inspect"):  # nobody is there
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
    return client.stats(), lambda stats: click.echo("\n".join(status_lines(stats)))


also_by_pid_file(status, status_by_lock, "Say instead whether the server with this pid file runs.")


def status_lines(stats: dict[str, Any]) -> list[str]:
    """For people."""
    tree = stats["tree"]
    get = stats.get
    lines = {
        "processes": ", ".join(
            f"{tree.get(f'{role}s_running')} of {tree.get(f'{role}s_wanted')} {role}s" for role in ("gateway", "worker")
        )
        + f" serve; generation {get('generation')}",
        "connections": f"{number(get('connections'))}, {number(get('websockets'))} of them WebSockets; "
        f"{number(get('connections_accepted'))} since the start",
        "topics": f"{number(get('topics'))}, and {number(get('users'))} users",
        "messages": f"{number(get('messages_received'))} in, {number(get('messages_sent'))} out",
        "bytes": f"{size(get('bytes_received'))} in, {size(get('bytes_sent'))} out, {size(get('bytes_queued'))} queued",
        "handled": f"{number(get('accepted'))} messages and requests: {number(get('finished'))} finished, "
        f"{number(get('in_flight'))} in flight, {number(get('uncertain'))} uncertain, {number(get('dropped'))} dropped",
        "refused": by_reason(refused(stats)) or "nothing",
        **(
            {"spares": f"{tree.get('spares_running')} of {tree['spares_wanted']} wait"}
            if tree.get("spares_wanted")
            else {}
        ),
        "so far": f"{plural(tree, 'restarts')}, {plural(tree, 'replacements')}, {plural(tree, 'reloads')}, "
        f"{plural(tree, 'reloads_failed')}, {plural(tree, 'hangs')}",
    }
    if tree.get("degraded"):
        lines["degraded"] = f"{', '.join(tree['degraded'])}: ends again and again, the log says why"
    return [f"{name:<13}{text}" for name, text in lines.items()]


def plural(counts: dict[str, Any], name: str) -> str:
    count = counts.get(name, 0)
    words = name.replace("reloads_failed", "failed reloads")
    return f"{number(count)} {words[:-1] if count == 1 else words}"


def refused(stats: dict[str, Any]) -> dict[str, int]:
    """What was refused so far, by reason."""
    counts = _counted(stats)
    return {name: n for name, n in counts.items() if "refused" in name and n}


def _counted(stats: dict[str, Any]) -> dict[str, Any]:
    """What of it is one number and stands in the table of counters, in the order of the table."""
    counts = stats["tree"] | stats
    return {row.name: counts[row.name] for row in TABLE if row.name in counts and not row.label}


def by_reason(counts: dict[str, int]) -> str:
    """For people; empty for nothing."""
    return ", ".join(f"{number(n)} {_refusals(name, n)}" for name, n in counts.items())


def _refusals(name: str, count: int) -> str:
    text = "requests on the control socket" if name == "control_refused" else name.replace("_refused", "")
    noun, *rest = text.replace("_", " ").split(" ")
    return " ".join([noun.removesuffix("s") if count == 1 else noun, *rest])


@command
@click.argument("name", nargs=-1)
def counters(client: ControlClient, name: tuple[str, ...]) -> tuple[Any, Show]:
    """Every counter, and what it is; with NAME those whose names have that in them."""
    found = {one: n for one, n in _counted(client.stats()).items() if not name or any(part in one for part in name)}
    none = f"no counter has {' or '.join(map(repr, name))} in its name; `mooring counters` shows all"
    return found, lambda found: click.echo("\n".join(counter_lines(found)) if found else none, err=not found)


def counter_lines(counts: dict[str, Any]) -> list[str]:
    """For people."""
    rows = [(name, _amount(ROWS[name].unit, count), ROWS[name].text) for name, count in counts.items()]
    return table(("counter", "", "what it is"), rows, ("counter", "what it is"))


def _amount(unit: str, count: float) -> str:
    return size(count) if unit == "bytes" else duration(count) if unit == "seconds" else number(count)


@command
@click.option("--path", "path_", metavar="PATH", help="Opened for this path; '/room/*' for all that begin so.")
@click.option("--address", help="Of this address, or network such as 10.0.0.0/8.")
@click.option("--user", help="Of this user.")
@click.option("--topic", help="In this topic.")
@click.option("--worker", type=click.IntRange(0), help="Served by this worker, by its number.")
@click.option("--gateway", type=click.IntRange(0), help="Of this gateway, by its number.")
@click.option("--state", type=click.Choice(list(STATES)), help="Open WebSockets, HTTP, or about to close.")
@click.option("--older", callback=seconds, metavar="TIME", help="Connected at least so long: 90, 30s, 2h.")
@click.option("--younger", callback=seconds, metavar="TIME", help="Connected for less than this.")
@click.option("--idle", callback=seconds, metavar="TIME", help="Silent for at least so long.")
@click.option("--sort", type=click.Choice(SORTS), default="age", show_default=True, help="The largest come first.")
@click.option("--reverse", is_flag=True, help="The smallest come first.")
@click.option("--limit", type=click.IntRange(0, LISTED_LIMIT), default=1000, show_default=True, help="At most so many.")
def connections(client: ControlClient, user: str | None, path_: str | None, **terms: Any) -> tuple[Any, Show]:
    """List connections: all of them, or those that fit."""

    def show(listing: dict[str, Any]) -> None:
        rows = listing["connections"]
        if rows:
            click.echo("\n".join(connection_lines(rows)))
        if listing["total"] == 0:
            click.echo("no connection fits" if any(given.values()) or user else "there are no connections")
        elif listing["total"] > len(rows):
            click.echo(f"{number(len(rows))} of {number(listing['total'])}; --limit shows more")

    given = {name: value for name, value in terms.items() if name not in ("sort", "reverse", "limit")}
    given["path"] = path_
    search: Any = {name: value for name, value in (terms | given).items() if value is not None}
    return client.listing(user, **search), show


COLUMNS: Sequence[Column] = (
    ("fd", lambda one: str(one["fd"])),
    ("state", lambda one: "websocket" if one["state"] == "OPEN" else one["state"].lower()),
    ("path", lambda one: plain(one["path"], 30) or "-"),
    ("user", lambda one: plain(one["user"], 20) or "-"),
    ("from", lambda one: remote(one)),
    ("worker", lambda one: number(one["worker_id"])),
    ("age", lambda one: duration(one["age"])),
    ("idle", lambda one: duration(one["idle"])),
    ("msgs in", lambda one: number(one["messages_received"])),
    ("out", lambda one: number(one["messages_sent"])),
    ("bytes in", lambda one: size(one["bytes_received"])),
    ("out ", lambda one: size(one["bytes_sent"])),
    ("queued", lambda one: size(one["bytes_queued"])),
    ("rtt", lambda one: duration(one["round_trip"])),
    ("spawned", lambda one: number(one["spawned"])),
)
"""What is shown of a connection, and how."""
LEFT = ("fd", "state", "path", "user", "from")


def connection_lines(rows: Iterable[dict[str, Any]], columns: Sequence[Column] = COLUMNS) -> list[str]:
    return table([name for name, _ in columns], [[show(one) for _, show in columns] for one in rows], LEFT)


def remote(one: dict[str, Any]) -> str:
    host = one["remote_ip"]
    if not host:
        return one["unix_socket"] or "unix"
    return f"[{host}]:{one['remote_port']}" if ":" in host else f"{host}:{one['remote_port']}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@command
@click.argument("fd", callback=as_fd)
def inspect(client: ControlClient, fd: int) -> tuple[Any, Show]:
    """Show what is known of a connection; exit code 1 when it is gone."""

    def show(info: dict[str, Any] | None) -> None:
        if info is None:
            click.echo(f"connection {fd} is gone", err=True)
        for name, value in (info or {}).items():
            text = _time(value) if name.endswith("_time") else "-" if value in (None, "") else plain(str(value))
            click.echo(f"{name:<20}{text}")

    return client.inspect(fd), show


@command
@click.argument("fd", callback=as_fd, required=False)
@click.option("--user", help="All connections of this user.")
@click.option("--code", type=int, default=1000, show_default=True, help="Close code, for WebSockets.")
@click.option("--reason", default="", help="Reason that the client is told.")
def kick(client: ControlClient, fd: int | None, user: str | None, code: int, reason: str) -> tuple[Any, Show]:
    """Disconnect a client, or all of a user; exit code 1 when there is none."""
    _one_target(FD=fd, user=user)
    if user is not None:
        count = client.disconnect_user(user, code, reason)
        done = f"closing {number(count)} connection{'' if count == 1 else 's'}"
        nobody = f"the user {plain(user, 100)!r} has no connection"
        return count, lambda _count: click.echo(done if count else nobody, err=not count)
    return client.disconnect(fd or 0, code, reason), there(fd or 0, "closing it")


@command
@click.argument("words", nargs=-1, metavar="[FD] TEXT")
@click.option("--user", help="To all connections of this user, instead of FD.")
@click.option("--topic", help="To all connections in this topic, instead of FD.")
def push(client: ControlClient, words: tuple[str, ...], user: str | None, topic: str | None) -> tuple[Any, Show]:
    """Send TEXT as one message; exit code 1 when nobody is there to get it.

    Before a TEXT that begins with a minus write "--".
    """
    *target, text = words or ("",)
    if not words or len(target) > 1:
        raise click.UsageError("give one TEXT, in quotes if there are spaces in it")
    _one_target(FD=target[0] if target else None, user=user, topic=topic)
    if user is not None:
        client.push_user(user, text)
        nobody = f"the user {plain(user, 100)!r} has no connection"
        return _sent_to(client.listing(user, limit=0)["total"], nobody)
    if topic is not None:
        client.publish(topic, text)
        nobody = f"no connection is in the topic {plain(topic, 100)!r}"
        return _sent_to(client.listing(topic=topic, limit=0)["total"], nobody)
    fd = as_fd(click.get_current_context(), None, target[0]) or 0
    return client.push(fd, text), there(fd, "sent")


def _sent_to(count: int, nobody: str) -> tuple[int, Show]:
    """To so many that were there a moment later."""
    sent = f"sent to {number(count)} connection{'' if count == 1 else 's'}"
    return count, lambda _count: click.echo(sent if count else nobody, err=not count)


@command
def reload(client: ControlClient) -> tuple[Any, Show]:
    """Replace the workers by new ones that load the application anew."""
    client.reload()
    return None, say("the reload has been asked for; `mooring status` counts those that are done")


also_by_pid_file(reload, reload_by_signal, "Signal the server with this pid file instead.")


@command
def stop(client: ControlClient) -> tuple[Any, Show]:
    """Stop the server in order."""
    client.shutdown()
    return None, say("the stop has been asked for")


also_by_pid_file(stop, stop_by_signal, "Signal the server with this pid file instead, and wait for its end.")


def _one_target(**given: object) -> None:
    if sum(value is not None for value in given.values()) != 1:
        names = [name if name == "FD" else f"--{name}" for name in given]
        raise click.UsageError(f"give exactly one of {', '.join(names)}")
