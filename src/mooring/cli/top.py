"""`mooring top`: a server that runs, looked at each second.

A look is what the server says of itself: counters, processes, the connections that come first in the chosen order. They
only count, so a view is made of two looks: rates are differences. `view` knows no terminal and `lines` no server; the
screen is restored whatever ends the program, also while it is stopped (Ctrl-Z).
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from types import FrameType
from typing import Any

import click
import msgspec

from mooring.admin.client import ControlClient
from mooring.app.search import SORTS, Sort
from mooring.cli import control
from mooring.cli.text import duration, number, plain, rate, size, table
from mooring.errors import AdminError, ServerUnreachable
from mooring.roles import ROLES, SUPERVISOR, shown

ORDER: tuple[Sort, ...] = ("queued", "rate", "messages", "bytes", "idle", "rtt", "age")
"""What `s` goes through."""
LISTED = 20  # connections that are asked for
COUNTS = ("messages_received", "messages_sent", "bytes_received", "bytes_sent", "connections_accepted", "accepted")
ROLE_ORDER = (SUPERVISOR, *ROLES)


class Look(msgspec.Struct):
    """What the server has said, and when (monotonic seconds)."""

    at: float
    stats: dict[str, Any]
    processes: list[dict[str, Any]]
    listing: dict[str, Any]


def look(client: ControlClient, sort: Sort, *, reverse: bool = False) -> Look:
    """Asks a server. Raises AdminError."""
    listing = client.listing(sort=sort, reverse=reverse, limit=LISTED)
    return Look(time.monotonic(), client.stats(), client.processes(), listing)


# ---------------------------------------------------------------------------------------------- what is shown


def view(before: Look, now: Look, sort: str) -> dict[str, Any]:
    """What two looks say together; with --json this is what is printed."""
    seconds = max(0.001, now.at - before.at)
    stats = now.stats
    earlier = {row["pid"]: row for row in before.processes}
    gateways = {one["gateway"]: one for one in before.stats["gateways"]}
    shown = ("connections", "websockets", "in_flight", "bytes_queued", "uncertain", "dropped", "generation")
    return {
        "seconds": round(seconds, 3),
        "totals": {name: stats.get(name, 0) for name in shown},
        "rates": {name: _rate(before.stats, stats, name, seconds) for name in COUNTS},
        "refused": control.refused(stats),
        "tree": stats["tree"],
        "processes": [
            _process(row, earlier.get(row["pid"], {}), stats, gateways, seconds)
            for row in sorted(now.processes, key=lambda row: (ROLE_ORDER.index(row["role"]), row["number"], row["pid"]))
        ],
        "sort": sort,
        "connections_found": now.listing["total"],
        "connections": now.listing["connections"],
    }


def _rate(before: dict[str, Any], now: dict[str, Any], name: str, seconds: float) -> float:
    """Per second; what was counted by a process that is gone is not taken off."""
    counted: int = max(0, now.get(name, 0) - before.get(name, 0))
    return round(counted / seconds, 1)


def _process(
    row: dict[str, Any], before: dict[str, Any], stats: dict[str, Any], gateways: dict[int, Any], seconds: float
) -> dict[str, Any]:
    known = bool(before)
    made = dict(row)
    made["cpu_percent"] = round((row["cpu"] - before["cpu"]) / seconds * 100, 1) if known else None
    made["event_rate"] = _rate(before, row, "events", seconds) if known and row["events"] is not None else None
    made["connections"] = made["in_flight"] = made["receive_rate"] = made["send_rate"] = None
    for one in stats["gateways"]:
        if row["role"] in ("gateway", "server") and one["gateway"] == row["number"]:
            then = gateways.get(one["gateway"], {}) if known else {}
            made["connections"] = one["connections"]
            made["in_flight"] = one["in_flight"]
            if then:
                made["receive_rate"] = _rate(then, one, "messages_received", seconds)
                made["send_rate"] = _rate(then, one, "messages_sent", seconds)
        for worker in one["workers"]:
            if row["role"] == "worker" and worker["pid"] == row["pid"]:
                made["connections"] = (made["connections"] or 0) + worker["connections"]
                made["in_flight"] = (made["in_flight"] or 0) + worker["in_flight"]
    return made


def lines(seen: dict[str, Any], *, path: str, listed: int = LISTED, keys: bool = False) -> list[str]:
    """For people."""
    totals, rates, tree = seen["totals"], seen["rates"], seen["tree"]
    supervisor = min(seen["processes"], key=lambda row: ROLE_ORDER.index(row["role"]))
    made = [
        f"{plain(path)}  up {duration(supervisor['uptime'])}, generation {totals['generation']}; "
        f"{control.plural(tree, 'restarts')}, {control.plural(tree, 'reloads')}",
        "",
        f"connections  {number(totals['connections'])}, {number(totals['websockets'])} of them WebSockets; "
        f"{rate(rates['connections_accepted'])}/s new",
        f"messages     {rate(rates['messages_received'])}/s in, {rate(rates['messages_sent'])}/s out; "
        f"{number(totals['in_flight'])} in flight, {number(totals['uncertain'])} uncertain, "
        f"{number(totals['dropped'])} dropped",
        f"bytes        {size(rates['bytes_received'])}/s in, {size(rates['bytes_sent'])}/s out; "
        f"{size(totals['bytes_queued'])} queued",
        f"refused      {control.by_reason(seen['refused']) or 'nothing'}",
        "",
    ]
    if tree.get("degraded"):
        made.insert(-1, f"degraded     {', '.join(tree['degraded'])}: ends again and again, the log says why")
    head = ("process", "pid", "gen", "up", "cpu", "memory", "msgs/s in", "out", "handled/s", "conns", "in flight")
    made += table((*head, "pulse", "restarts"), [_process_cells(row) for row in seen["processes"]], ("process",))
    rows = seen["connections"][:listed]
    if rows:
        where = f"{number(len(rows))} of {number(seen['connections_found'])} connections, "
        made += ["", where + ORDERS[seen["sort"]] + ("   s: another order, r: turn round, q: quit" if keys else "")]
        rates_too = RATES if seen["sort"] == "rate" else ()
        made += control.connection_lines(rows, (*control.COLUMNS, *rates_too))
    elif keys:
        made += ["", "no connections   q: quit"]
    return made


ORDERS = {
    "queued": "most bytes queued first",
    "rate": "most messages per second first",
    "messages": "most messages first",
    "bytes": "most bytes first",
    "idle": "idle for longest first",
    "rtt": "longest round trip first",
    "age": "oldest first",
}
RATES: tuple[control.Column, ...] = (
    ("msgs/s", lambda one: rate(one["message_rate"])),
    ("bytes/s", lambda one: size(one["byte_rate"])),
)


def _process_cells(row: dict[str, Any]) -> tuple[str, ...]:
    name = shown(row["role"], row["number"])
    state = "" if row["state"] in ("serving", "warm") else f" ({row['state']})"
    return (
        name + state + (" degraded" if row["degraded"] else ""),
        str(row["pid"]),
        number(row["generation"]),
        duration(row["uptime"]),
        "-" if row["cpu_percent"] is None else f"{row['cpu_percent']:.0f}%",
        size(row["memory"]),
        rate(row["receive_rate"]),
        rate(row["send_rate"]),
        rate(row["event_rate"]),
        number(row["connections"]),
        number(row["in_flight"]),
        duration(row["pulse_age"]),
        number(row["restarts"]),
    )


# ---------------------------------------------------------------------------------------------- the terminal


class Screen:
    """A terminal of which every line is ours, from `enter` to `leave`."""

    def __init__(self) -> None:
        self.keys = sys.stdin.isatty()
        self._before: list[Any] | None = None

    def enter(self) -> None:
        if self.keys:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        self._write("\x1b[?1049h\x1b[?25l")  # the other screen, without a cursor

    def leave(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            self._write("\x1b[?25h\x1b[?1049l")
        if self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def draw(self, text: list[str]) -> None:
        columns, rows = shutil.get_terminal_size()
        shown = [line[:columns] for line in text[:rows]]
        self._write("\x1b[H" + "".join(line + "\x1b[K\r\n" for line in shown[:-1]) + shown[-1] + "\x1b[K\x1b[J")

    def key(self, timeout: float) -> str:
        """What was pressed within that time, or nothing; "q" when nobody can press anything any more."""
        if not self.keys:
            time.sleep(timeout)
            return ""
        if not select.select([sys.stdin], [], [], timeout)[0]:
            return ""
        pressed = os.read(sys.stdin.fileno(), 64)
        return pressed[:1].decode(errors="replace") if pressed else "q"

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _end(number_: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number_)


@contextlib.contextmanager
def _screen() -> Iterator[Screen]:
    """However it ends, the terminal is as it was."""
    screen = Screen()

    def stop(_number: int, _frame: FrameType | None) -> None:
        screen.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        screen.enter()  # it goes on

    handlers = {signal.SIGTERM: _end, signal.SIGHUP: _end, signal.SIGTSTP: stop}
    before = {which: signal.signal(which, handler) for which, handler in handlers.items()}
    try:
        screen.enter()
        yield screen
    finally:
        screen.leave()
        for which, handler in before.items():
            signal.signal(which, handler)


# ---------------------------------------------------------------------------------------------- the command


@click.command()
@control.asking
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Look for one interval, print that, and end.")
@click.option(
    "--sort", type=click.Choice(SORTS), default="queued", show_default=True, help="Which connections come first."
)
@click.option("--reverse", is_flag=True, help="Those that would be last come first.")
@click.option("--limit", type=click.IntRange(0, LISTED), default=10, show_default=True, help="At most so many of them.")
def top(
    client: ControlClient, as_json: bool, interval: float, once: bool, sort: Sort, reverse: bool, limit: int
) -> None:
    """Watch a server: totals, processes, and the connections that stand out.

    On a terminal: s for another order of the connections, r to turn it round, q to quit. Elsewhere, on a dumb terminal
    or with --json it prints one view after the other; with --json each is one line.
    """
    live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not once and not as_json
    with contextlib.suppress(KeyboardInterrupt):
        try:
            if live:
                with _screen() as screen:
                    _watch(client, screen, interval, sort, reverse=reverse, limit=limit)
            else:
                _print(client, interval, sort, reverse=reverse, limit=limit, once=once, as_json=as_json)
        except AdminError as error:
            raise click.ClickException(str(error)) from error


def _print(
    client: ControlClient, interval: float, sort: Sort, *, reverse: bool, limit: int, once: bool, as_json: bool
) -> None:
    before = look(client, sort, reverse=reverse)
    while True:
        time.sleep(interval)
        now = look(client, sort, reverse=reverse)
        seen = view(before, now, sort)
        seen["connections"] = seen["connections"][:limit]
        text = msgspec.json.encode(seen).decode() if as_json else "\n".join(lines(seen, path=client.path, listed=limit))
        click.echo(text)
        if once:
            return
        if not as_json:
            click.echo()
        before = now


def _watch(client: ControlClient, screen: Screen, interval: float, sort: Sort, *, reverse: bool, limit: int) -> None:
    """Goes on while the server is being started again; the first look has to succeed."""
    before = now = look(client, sort, reverse=reverse)
    drawn: list[str] = []
    due = now.at + min(interval, 0.3)  # a first view soon
    while True:
        drawn = lines(view(before, now, sort), path=client.path, listed=limit, keys=screen.keys)
        screen.draw(drawn)
        pressed = screen.key(max(0.0, due - time.monotonic()))
        if pressed == "q":
            return
        if pressed == "s":
            sort = ORDER[(ORDER.index(sort) + 1) % len(ORDER)]
        elif pressed == "r":
            reverse = not reverse
        elif pressed or time.monotonic() < due:
            continue
        try:
            latest = look(client, sort, reverse=reverse)
        except ServerUnreachable as problem:
            screen.draw([f"{problem}", "", "trying again   q: quit", "", *drawn])
            if screen.key(interval) == "q":
                return
            due = time.monotonic()
            continue
        if pressed:
            now = msgspec.structs.replace(now, listing=latest.listing)
        else:
            before, now = now, latest
            due = now.at + interval
