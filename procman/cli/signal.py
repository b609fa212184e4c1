"""`procman signal`: send a signal to some of what runs."""

from __future__ import annotations

import click

from procman.cli.control import HELP, NAMES, control_of, control_options, do, timeout_option
from procman.errors import EXIT_KILLED
from procman.kernel import signal_name


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman signal web.1 USR1
  procman signal web worker HUP     all instances of both
  procman signal worker.2 9
""",
)
@control_options
@click.argument("names", **{**NAMES, "required": True})
@click.argument("signal", metavar="SIGNAL")
@timeout_option
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], signal: str, timeout_s: float) -> int:
    """Send a signal to some of what runs.

    It goes to the programs, not to a shell around them. The exit code is 1 if one of them was not running.
    """
    number = _number(signal)
    with control_of(context) as control:
        control.instances(names)  # so that an unknown one is refused before any gets the signal
        routed = control.route(names)
        requests = {peer: {"do": "signal", "names": some, "signal": number} for peer, some in routed.items()}
        code = 0
        for instance in do(control, requests, timeout_s, lambda instance: True):
            if instance["pid"] is None:
                click.echo(f"{instance['name']} is not running, so it got no signal", err=True)
                code = EXIT_KILLED
            else:
                click.echo(f"{instance['name']} got {signal_name(number)}, pid {instance['pid']}")
        return code


def _number(word: str) -> int:
    from signal import Signals, valid_signals

    try:
        number = int(word) if word.isdecimal() else int(Signals["SIG" + word.upper().removeprefix("SIG")])
    except KeyError:
        number = 0
    if number not in valid_signals():
        raise click.UsageError(f"{word} is no signal; write a name such as USR1 or SIGUSR1, or a number.")
    return number
