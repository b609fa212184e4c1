"""`procman scale`: change how many instances of a process type run."""

from __future__ import annotations

import re

import click

from procman.cli.control import HELP, control_of, control_options, do, is_up, timeout_option, up_line
from procman.cli.options import completing
from procman.control.client import Control
from procman.control.protocol import Message


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman scale web=3                  three instances of web, whatever there were
  procman scale worker=+2 assets=0     two workers more, no assets
  procman scale worker=-1              one less: the highest number goes
""",
)
@control_options
@click.argument("counts", nargs=-1, required=True, metavar="TYPE=N|+N|-N...", shell_complete=completing("scale"))
@timeout_option
@click.pass_context
def command(context: click.Context, counts: tuple[str, ...], timeout_s: float) -> None:
    """Change how many instances run.

    New ones get the next free numbers, with the ports and the environment that `start` would give them. What cannot be
    is refused as a whole.
    """
    wanted = dict(map(_parsed, counts))
    if len(wanted) < len(counts):
        raise click.UsageError("a process type is named twice.")
    with control_of(context) as control:
        before = _chosen(control, wanted)
        routed = control.route_counts(wanted, timeout_s)
        requests = {peer: {"do": "scale", "counts": some} for peer, some in routed.items()}
        done = do(control, requests, timeout_s, is_up)
        after = {instance["name"]: instance for instance in done if instance["type"] in wanted}
        started = [i for name, i in after.items() if name not in before or before[name]["pid"] != i["pid"]]
        gone = [name for name, was in before.items() if name not in after and was["pid"] is not None]
        for instance in started:
            click.echo(up_line(instance))
        for name in gone:
            click.echo(f"{name} stopped")
        if not started and not gone:
            count = {name: sum(i["type"] == name for i in after.values()) for name in wanted}
            click.echo(", ".join(f"{name}={number}" for name, number in count.items()) + ": nothing to do")


def _chosen(control: Control, types: dict[str, int | str]) -> dict[str, Message]:
    return {instance["name"]: instance for instance in control.instances() if instance["type"] in types}


def _parsed(word: str) -> tuple[str, int | str]:
    name, equals, count = word.partition("=")
    if not name or not equals or not re.fullmatch(r"[+-]?[0-9]{1,6}", count):
        raise click.UsageError(f"{word}: write web=3, web=+2 or web=-1.")
    return name, count if count[0] in "+-" else int(count)
