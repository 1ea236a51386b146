"""Prints the reference of the command line, for `make docs`."""

import click

from mooring.cli import main
from mooring.cli.pages import commands_page

click.echo(commands_page(main), nl=False)
