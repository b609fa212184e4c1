"""`procman attach`: the terminal of one process of a running procman."""

from __future__ import annotations

import os
from functools import partial

import click

from procman.cli.control import HELP, control_of, control_options
from procman.cli.options import completing
from procman.control.viewer import LEAVE_KEY, Viewer, attached, size
from procman.errors import EXIT_BUG, ProcmanError
from procman.kernel import flush_standard_streams, signal_name
from procman.modes import Modes, all_keys, run_with


@click.command(
    short_help="Use the terminal of a process.",
    context_settings=HELP,
    epilog="""\b
Examples:
  procman attach web            for a debugger: pdb, irb, a shell
  procman attach worker.2       where several of a type run
  (echo 'p request'; sleep 1) | procman attach web
                                from a script: leaves when its input ends
""",
)
@control_options
@click.argument("name", metavar="TYPE[.N]", shell_complete=completing("instance"))
@click.pass_context
def command(context: click.Context, name: str) -> int:
    """Use the terminal of a process: your keys go there, and what it writes comes to you as it is.

    Ctrl-] leaves, and the process goes on. Every other key is the program's: Ctrl-C interrupts it, not procman. The
    output goes on in procman's own terminal, too, and several may be attached at once.

    The process needs a terminal: it has one if procman runs in one, or with `start --pty`.
    """
    with control_of(context) as control:
        [(peer, [full_name])] = control.route([name]).items()
        connection = peer.ask({"do": "attach", "name": full_name, **size()})
    shown_name, early = attached(connection)
    has_keys = os.isatty(0)
    leave = f"{LEAVE_KEY} leaves" if has_keys else "the end of standard input leaves"
    click.echo(f"attached to {shown_name}; {leave}", err=True)
    flush_standard_streams()
    if not has_keys:
        return Viewer(shown_name, connection, early, has_keys=False).run()
    modes = Modes(0, all_keys)
    # At once, for a shell whose child was killed looks at its terminal then (zsh), and keeps what it sees.
    viewer = Viewer(shown_name, connection, early, on_orphaned=modes.give_back)
    code = run_with(modes, partial(_view, viewer), connection.close)
    if code < 0:
        click.echo(f"\nleft {shown_name}, killed by {signal_name(-code)}; it goes on", err=True)
    return code if code >= 0 else 128 - code


def _view(viewer: Viewer, alive_fd: int) -> int:
    """Be the process that passes bytes; the one that the user started only waits for it."""
    try:
        return viewer.run(alive_fd)
    except ProcmanError as error:
        click.echo(str(error), err=True)
        return error.exit_code
    except Exception as error:
        click.echo(f"procman: a bug of ours: {type(error).__name__}: {error}", err=True)
        return EXIT_BUG
