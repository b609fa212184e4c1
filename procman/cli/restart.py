"""`procman restart`: stop and start some of what runs."""

from __future__ import annotations

import click

from procman.cli.control import (
    HELP,
    NAMES,
    control_of,
    control_options,
    do,
    is_up,
    need_names,
    timeout_option,
    up_line,
)
from procman.control.protocol import Message


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman restart web             all instances of web at once
  procman restart web --rolling   one after another, each up before the next
  procman restart worker.2        also when it was stopped
  procman restart --all
""",
)
@control_options
@click.argument("names", **NAMES)
@click.option("--all", "is_all", is_flag=True, help="Everything that runs here.")
@click.option("--rolling", is_flag=True, help="One after another, each up before the next.")
@timeout_option
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], is_all: bool, rolling: bool, timeout_s: float) -> None:
    """Restart some of what runs, or start it again.

    Also starts what was stopped, has failed, or has ended. Waits until all is up.
    """
    need_names(names, is_all, "restart")
    with control_of(context) as control:
        old_pids = {instance["name"]: instance["pid"] for instance in control.instances(names)}

        def is_new(instance: Message) -> bool:
            return is_up(instance) and (instance["pid"] is None or instance["pid"] != old_pids.get(instance["name"]))

        requests = {
            peer: {"do": "restart", "names": some, "rolling": rolling} for peer, some in control.route(names).items()
        }
        lines = [up_line(instance) for instance in do(control, requests, timeout_s, is_new)]
        click.echo("\n".join(lines) or "nothing to restart")
