"""`procman stop`: stop some of what runs."""

from __future__ import annotations

import click

from procman.cli.control import HELP, NAMES, control_of, control_options, do, is_down, need_names, timeout_option


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman stop worker           all instances of worker
  procman stop worker.2 web.1   these two
  procman stop --all            everything; procman itself goes on, and `procman restart --all` starts it again
""",
)
@control_options
@click.argument("names", **NAMES)
@click.option("--all", "is_all", is_flag=True, help="Everything that runs here.")
@timeout_option
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], is_all: bool, timeout_s: float) -> None:
    """Stop some of what runs.

    Waits until nothing is left of it. The others run on, and so does procman: `procman quit` ends it.
    """
    need_names(names, is_all, "stop")
    with control_of(context) as control:
        before = {instance["name"]: instance for instance in control.instances(names)}
        requests = {peer: {"do": "stop", "names": some} for peer, some in control.route(names).items()}
        lines = []
        for instance in do(control, requests, timeout_s, is_down):
            was = before.get(instance["name"])
            lines.append(f"{instance['name']} {'was not running' if was and is_down(was) else 'stopped'}")
        click.echo("\n".join(lines) or "nothing to stop")
