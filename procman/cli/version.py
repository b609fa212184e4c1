"""`procman version`."""

from __future__ import annotations

import click

from procman import __version__


@click.command()
def command() -> None:
    """Show procman's version.

    \b
    Example:
      procman version
    """
    click.echo(f"procman {__version__}")
