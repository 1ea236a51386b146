"""`mooring tail`: close records as connections end, a line each."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from mooring.admin.client import ControlClient
from mooring.cli import control
from mooring.cli.text import duration, number, plain, size
from mooring.errors import AdminError
from mooring.types import CAUSES

Cell = Callable[[dict[str, Any]], str]

CELLS: tuple[tuple[str, int, Cell], ...] = (
    ("ended", 8, lambda one: datetime.fromtimestamp(one["connect_time"] + one["duration"], UTC).strftime("%H:%M:%S")),
    ("cause", 20, lambda one: one["cause"]),
    ("code", 4, lambda one: "-" if one["code"] is None else str(one["code"])),
    ("phase", 10, lambda one: one["phase"]),
    ("path", 20, lambda one: plain(one["path"], 30) or "-"),
    ("user", 10, lambda one: plain(one["user"], 20) or "-"),
    ("from", 21, lambda one: control.remote({"unix_socket": "", **one})),
    ("worker", 6, lambda one: number(one["worker_id"])),
    ("time", 6, lambda one: duration(one["duration"])),
    ("msgs in", 7, lambda one: number(one["messages_received"])),
    ("out", 5, lambda one: number(one["messages_sent"])),
    ("bytes in", 8, lambda one: size(one["bytes_received"])),
    ("out", 8, lambda one: size(one["bytes_sent"])),
    ("queued", 8, lambda one: size(one["most_queued"])),
    ("rtt", 6, lambda one: duration(one["round_trip"])),
    ("reason", 0, lambda one: plain(one["reason"], 123)),
)
"""What is shown of a record: its head, its least width, its text."""


def head() -> str:
    """Above the records."""
    return " ".join(name.ljust(width) for name, width, _ in CELLS).rstrip()


def line(told: dict[str, Any]) -> str:
    """A record, or that some are missing, for people."""
    if "missed" in told:
        return f"({number(told['missed'])} more have ended, which were not taken in time)"
    return " ".join(show(told).ljust(width) for _, width, show in CELLS).rstrip()


@click.command()
@control.asking
@click.option(
    "--cause",
    "causes",
    type=click.Choice(list(CAUSES)),
    multiple=True,
    metavar="CAUSE",
    help="What has ended them, such as slow_consumer; may be given several times.",
)
@click.option("--user", help="Of this user.")
@click.option("--path", "path_", metavar="PATH", help="Of this path; '/room/*' for all that begin so.")
@click.option("--listener", type=click.IntRange(0), help="Of this listener: 0 is the server's own.")
@click.option("--code", type=int, help="Closed with this code, or refused with this HTTP status.")
def tail(
    client: ControlClient,
    as_json: bool,
    causes: tuple[str, ...],
    user: str | None,
    path_: str | None,
    listener: int | None,
    code: int | None,
) -> None:
    """Show connections as they end: who ended each, and why.

    Only listeners with `close_records` keep what is shown. It goes on until it is stopped (Ctrl-C), also while the
    server reloads. With --json each record is one line.
    """
    with contextlib.suppress(KeyboardInterrupt):
        try:
            if not as_json:
                click.echo(head())
            for told in client.tail(causes, user=user, path=path_, listener=listener, code=code):
                click.echo(msgspec.json.encode(told).decode() if as_json else line(told))
        except AdminError as error:
            raise click.ClickException(str(error)) from error
