"""`procman quit`: end a run."""

from __future__ import annotations

import click

from procman.cli.control import HELP, control_of, control_options, end_fd_of, timeout_option, wait_for_end
from procman.control.client import NotInTime, Peer, failure_of, is_last


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman quit
  procman quit -d /srv/app --timeout 2m
""",
)
@control_options
@timeout_option
@click.pass_context
def command(context: click.Context, timeout_s: float) -> None:
    """Stop everything, and end procman.

    As Ctrl-C in its terminal does. The exit code is 0 when nothing is left running, 1 when something still is after
    --timeout.
    """
    with control_of(context) as control:
        end_fds = {peer: end_fd_of(peer.pid) for peer in control.peers}
        waiting: dict[Peer, None] = dict.fromkeys(control.peers)
        errors = []
        try:
            for peer, message in control.converse({peer: {"do": "quit"} for peer in control.peers}, timeout_s):
                if not is_last(message):
                    continue
                del waiting[peer]
                if "error" in message:
                    errors.append(message)
                else:
                    wait_for_end(end_fds[peer])
                    code = message.get("code")
                    text = f" with exit code {code}" if code else ""
                    click.echo(f"procman with pid {peer.pid} has ended{text}; nothing is left running")
        except NotInTime as error:
            pids = " and ".join(str(peer.pid) for peer in waiting)
            raise NotInTime(f"{error}: procman with pid {pids} still runs — it goes on stopping") from None
        if errors:
            raise failure_of(errors)
        if control.complaint:
            raise failure_of([{"error": control.complaint, "code": 69}])
