"""The command line: `mooring run MODULE:ATTR`, what asks one that runs (control.py), what describes the package."""

from importlib.metadata import version

import click

from mooring.app.loader import load
from mooring.cli import control, pages, tail, top
from mooring.config import HOME
from mooring.errors import BootError, ConfigError
from mooring.near import SETTINGS, nearest


class Command(click.Command):
    """One that knows settings by name: people give it those that it has no option for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = nearest(error.option_name.lstrip("-"), HOME, SETTINGS, 0.8)
            if name is None:
                raise
            said = {"worker_num": "--workers", "gateway_num": "--gateways", "unix_socket": "--unix"}
            option = said.get(name, f"--{name.replace('_', '-')}")
            if any(option in one.opts for one in self.params):
                hint = f"did you mean {option}?"
            else:
                hint = f"it is a setting, give it to Server({name}=...)"
            raise click.UsageError(f"no such option {error.option_name}: {hint}", ctx) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("mooring-server"), prog_name="mooring")
def main() -> None:
    """A WebSocket and HTTP server whose connections outlive your code."""


@main.command(cls=Command)
@click.argument("target", metavar="MODULE:ATTR")
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="TCP port; 0 lets the kernel choose one.")
@click.option("--unix", metavar="PATH", help="Unix socket to listen on, instead of a port.")
@click.option("--inherited", metavar="WHAT", help="Inherited socket to listen on: fd://N, systemd or systemd:NAME.")
@click.option("--workers", type=int, help="Processes that run the application.")
@click.option("--gateways", type=int, help="Processes that keep the connections.")
@click.option("--mode", help="process (the default) or base.")
@click.option("--watch", metavar="PATH", multiple=True, help="Reload when something below PATH changes (repeatable).")
@click.option("--pid-file", metavar="PATH", help="Locked file with the process id; a second server does not start.")
@click.option("--control-socket", metavar="PATH", help="Unix socket on which other programs ask: mooring status, ...")
@click.option("--metrics", metavar="ADDRESS", help="HOST:PORT or unix:PATH of /metrics, /health and /ready.")
@click.option("--log-level", help="debug, info, warning, error or critical.")
def run(
    target: str,
    host: str | None,
    port: int | None,
    unix: str | None,
    inherited: str | None,
    workers: int | None,
    gateways: int | None,
    mode: str | None,
    watch: tuple[str, ...],
    pid_file: str | None,
    control_socket: str | None,
    metrics: str | None,
    log_level: str | None,
) -> None:
    """Serve the Server that MODULE:ATTR names, such as chat:server.

    The options override what the application has set; `mooring settings` lists everything it can set.
    """
    given: dict[str, object] = {
        "host": host,
        "port": port,
        "unix_socket": unix,
        "inherited": inherited,
        "worker_num": workers,
        "gateway_num": gateways,
        "mode": mode,
        "watch": list(watch) or None,
        "pid_file": pid_file,
        "control_socket": control_socket,
        "metrics_listen": metrics,
        "log_level": log_level,
    }
    if any(value is not None for value in (host, port, unix, inherited)):
        # where to listen is said here; of what the application says of it, only what goes with this is left
        given.update({name: given[name] or "" for name in ("unix_socket", "inherited")})
    try:
        server = load(target)
        server.set(**{name: value for name, value in given.items() if value is not None})
        server.start(target=target)
    except (BootError, ConfigError) as error:
        raise click.ClickException(str(error)) from error


for command in (*control.COMMANDS, tail.tail, top.top):
    main.add_command(command)


@main.command()
def settings() -> None:
    """Print the settings reference (docs/settings.md) as Markdown."""
    click.echo(pages.settings_page(), nl=False)
