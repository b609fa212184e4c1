"""`procman quit`: end a run."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterator, Sequence

import click

from procman.cli.control import HELP, control_of, control_options, timeout_option
from procman.control.client import NotInTime, Peer, failure_of, is_last

LAST_STEP_S = 2.0  # from a supervisor's last word to the end of its process


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
    with control_of(context) as control, _ends([peer.pid for peer in control.peers]) as end_fds:
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
                    _wait_for(end_fds.get(peer.pid, -1))
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


@contextlib.contextmanager
def _ends(pids: Sequence[int]) -> Iterator[dict[int, int]]:
    """Open a descriptor for each process that can be read when it has ended (pidfd_open(2)), where there are such."""
    fds = {}
    try:
        for pid in pids:
            with contextlib.suppress(OSError, AttributeError):
                fds[pid] = os.pidfd_open(pid)
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)


def _wait_for(end_fd: int) -> None:
    """Wait until the process has gone, so that what it had locked is free for the next one."""
    if end_fd >= 0:
        poll = select.poll()
        poll.register(end_fd, select.POLLIN)
        poll.poll(LAST_STEP_S * 1000)
