"""The commands of `procman`, as click sees them."""

from __future__ import annotations

import importlib

import click

from procman.cli.options import input_options

# Imported when used: every module costs half a millisecond on the way to the first child.
COMMANDS = {
    "start": "procman.cli.start_options",
    "run": "procman.cli.run",
    "check": "procman.cli.check",
    "env": "procman.cli.env",
    "services": "procman.cli.services",
    "ps": "procman.cli.ps",
    "top": "procman.cli.top",
    "logs": "procman.cli.logs",
    "attach": "procman.cli.attach",
    "stop": "procman.cli.stop",
    "restart": "procman.cli.restart",
    "reload": "procman.cli.reload",
    "scale": "procman.cli.scale",
    "signal": "procman.cli.signal",
    "wait": "procman.cli.wait",
    "quit": "procman.cli.quit",
    "completion": "procman.cli.completion",
    "version": "procman.cli.version",
}


class LazyCommands(click.Group):
    """A group that imports a command's module when the command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Files are Procfile and .env in this directory unless -f, -d or -e say otherwise; "
    "these options stand before or after the command.",
)
@input_options
def cli() -> None:
    """Run the process types of a Procfile: start them, scale them, merge their output, and leave nothing behind.

    \b
    procman start                   every process type once
    procman start web=2 worker      only these, two of web
    procman run web=2 worker=4      the same, as a formation
    procman run manage migrate      a one-off task in the same environment
    """
