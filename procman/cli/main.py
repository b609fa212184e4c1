"""The command `procman`: finds the sub-command, and turns every error into a line and an exit code."""

from __future__ import annotations

import gc
import importlib
import os
from typing import NoReturn

gc.disable()  # nothing made while starting is garbage: looking for some costs a tenth of the time to the first child

import click  # noqa: E402

from procman.cli.options import input_options  # noqa: E402
from procman.errors import EXIT_BUG, EXIT_READER_GONE, ProcmanError, system_failure  # noqa: E402
from procman.kernel import flush_standard_streams  # noqa: E402

# Imported when used: every module costs half a millisecond on the way to the first child.
COMMANDS = {
    "start": "procman.cli.start",
    "run": "procman.cli.run",
    "check": "procman.cli.check",
    "env": "procman.cli.env",
    "ps": "procman.cli.ps",
    "logs": "procman.cli.logs",
    "attach": "procman.cli.attach",
    "stop": "procman.cli.stop",
    "restart": "procman.cli.restart",
    "scale": "procman.cli.scale",
    "signal": "procman.cli.signal",
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


def main() -> None:
    """Run the command line and exit by the table in docs/exit-codes.md; never a traceback."""
    _open_standard_streams()
    if os.environ.get("_PROCMAN_COMPLETE"):
        from procman.cli.completion import answer

        _exit(answer(cli))
    try:
        code = cli.main(prog_name="procman", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except SystemExit:  # click's way with a closed pipe
        code = EXIT_READER_GONE
    except ProcmanError as error:
        _complain(str(error))
        code = error.exit_code
    except BrokenPipeError:
        code = EXIT_READER_GONE
    except (OSError, ImportError) as error:
        failure = system_failure(error)
        _complain(str(failure))
        code = failure.exit_code
    except Exception as error:
        if os.environ.get("PROCMAN_DEBUG"):
            raise
        _complain(f"procman: a bug of ours: {type(error).__name__}: {error} — PROCMAN_DEBUG=1 shows where")
        code = EXIT_BUG
    _exit(code if isinstance(code, int) else 0)


def _exit(code: int) -> NoReturn:
    """End at once: taking the interpreter apart takes 10 ms, and a signal in them would find no handler of ours."""
    try:
        flush_standard_streams()
    except BrokenPipeError:
        code = EXIT_READER_GONE
    except OSError as error:
        if not code:
            _complain(str(system_failure(error)))
            code = 1
    os._exit(code)


def _complain(text: str) -> None:
    try:
        click.echo(text, err=True)
    except OSError:
        pass


def _open_standard_streams() -> None:
    """Fill 0, 1 and 2 where the caller closed them: the next file opened would pass for one of them."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number (open(2)), which is this one
            os.set_inheritable(fd, True)
