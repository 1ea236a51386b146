"""Pages of the manual that are written by the package itself, in Markdown: the settings, the command line."""

import inspect
from collections.abc import Iterator

import click

from mooring import config

TOUCHED = {
    "host": "clients shall come from other machines: `0.0.0.0`, or behind a proxy leave it as it is",
    "port": "another one is wanted",
    "worker_num": "the application needs more, or less, than all processors",
    "task_worker_num": "handlers do what blocks: see [tasks](tasks.md)",
    "watch": "you develop: each change to a file reloads the workers",
    "allowed_origins": "pages of other sites shall connect: see [origin](origin.md)",
    "max_message_size": "clients send messages over 1 MiB",
    "trusted_proxies": "there is a proxy in front: see [behind a proxy](proxy.md)",
    "graceful_timeout": "handlers take longer than 30 s, and shall not be cut short by a reload or a stop",
    "control_socket": "`mooring status`, `top`, `push`, ... shall work: see [from outside](control.md)",
}
"""The ten settings that most applications touch, and when."""


def settings_page() -> str:
    """The reference of every setting."""
    return "\n".join(_settings()) + "\n"


def _settings() -> Iterator[str]:
    rows = list(config.describe())
    yield "# Settings"
    yield "\n<!-- Written by `mooring settings`; change src/mooring/config/ and run `make docs`. -->"
    yield '\nGive them by name: `Server("127.0.0.1", 9501, worker_num=4)` or `server.set(worker_num=4)`.'
    yield "An unknown name or a value out of range is a `ConfigError` before anything starts."
    yield "\n## The ten you will touch\n"
    yield "| setting | default | touch it when |\n|---|---|---|"
    default = {row.name: row.default for row in rows}
    for name, when in TOUCHED.items():
        yield f"| [`{name}`](#{name}) | `{default[name]}` | {when} |"
    yield "\nEverything else can stay as it is until you know why not. Sizes are in bytes, times in seconds."
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            yield f"\n## Section {section}\n"
            yield (config.SECTIONS[section].__doc__ or "").strip()
        allowed = f", {row.allowed}" if row.allowed else ""
        unit = f" {row.unit}" if row.unit and row.default[:1].isdecimal() else ""
        yield f"\n### {row.name}\n"
        yield f"*{row.type}{allowed}; default: `{row.default}`{unit}*\n"
        yield row.doc


def commands_page(command: click.Group) -> str:
    """The reference of the command line."""
    return "\n".join(_commands(command)) + "\n"


def _commands(group: click.Group) -> Iterator[str]:
    context = click.Context(group, info_name="mooring")
    yield "# Command line"
    yield "\n<!-- Written from src/mooring/cli/ by `make docs`. -->"
    yield "\n`mooring run` starts a server, and `mooring settings` lists what can be set."
    yield "The other commands ask a server that runs: they find it by its [control socket](control.md) (`--socket`),"
    yield "and some by its pid file (`--pid-file`)."
    yield "\n`mooring COMMAND --help` says the same as this page. `mooring --version` prints the version."
    for name in group.list_commands(context):
        command = group.commands[name]
        inner = click.Context(command, parent=context, info_name=name)
        yield f"\n## mooring {name}\n"
        yield f"```text\n{' '.join(['mooring', name, *command.collect_usage_pieces(inner)])}\n```\n"
        yield inspect.cleandoc(command.help or "")
        options = [one for one in command.params if isinstance(one, click.Option)]
        if options:
            yield "\n| option | |\n|---|---|"
        for option in options:
            names = ", ".join(option.opts)
            value = "" if option.is_flag else f" {option.make_metavar(inner).removesuffix(' RANGE')}"
            default = f" Default: {option.default}." if option.show_default else ""
            variable = f" Or in the environment: `{option.envvar}`." if option.envvar else ""
            yield f"| `{names}{value.replace('|', ', ')}` | {option.help or ''}{default}{variable} |"
