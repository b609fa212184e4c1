"""`procman reload`: let a run take in what its files say now."""

from __future__ import annotations

import click

from procman.cli.control import HELP, control_of, control_options, is_up, replies_to, timeout_option, up_line
from procman.control.client import failure_of
from procman.control.protocol import Message


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman reload                  after a change of Procfile, .env or procman.toml
  procman reload -d /srv/app
""",
)
@control_options
@timeout_option
@click.pass_context
def command(context: click.Context, timeout_s: float) -> None:
    """Apply what Procfile, env files and settings say now.

    Only what has changed is restarted. Types that are new in the Procfile start, those that are gone stop. A file with
    a mistake changes nothing, and is told as `start` would tell it.
    """
    with control_of(context) as control:
        requests = {peer: {"do": "reload"} for peer in control.peers}
        replies = replies_to(control, requests, timeout_s, is_up)
        for note in dict.fromkeys(str(note) for reply in replies for note in reply.get("notes", ())):
            click.echo(note, err=True)
        lines = [line for reply in replies for line in _told(reply)]
        click.echo("\n".join(lines or ["nothing to do"]))
        if control.complaint:
            raise failure_of([{"error": control.complaint, "code": 69}])


def _told(reply: Message) -> list[str]:
    """Return a line for each instance that is not as it was."""
    instances = {instance["name"]: instance for instance in reply["instances"]}
    up = [*reply["restarted"], *reply["started"]]
    lines = [up_line(instances[name]) for name in instances if name in up]
    for name in reply["adjusted"]:
        if name in instances:
            is_running = instances[name]["pid"] is not None
            lines.append(f"{name} {'goes on' if is_running else 'stays down'} with new settings")
    return [*lines, *(f"{name} stopped" for name in reply["stopped"])]
