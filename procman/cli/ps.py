"""`procman ps`: what runs, and what it uses."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from procman.cli.app import wants_colour
from procman.cli.control import ANY_NAMES, HELP, control_of, control_options, look_options, look_settings
from procman.cli.options import OfSetting
from procman.config import Settings
from procman.control.protocol import Message
from procman.control.table import table
from procman.control.usage import Meter
from procman.errors import EXIT_KILLED, ProcmanError

MIN_INTERVAL_S = 0.1
EXIT_INTERRUPTED = 130
HOME, TO_LINE_END, TO_SCREEN_END, CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman ps                 all that runs here
  procman ps web worker.2    only these
  procman ps --json          for programs; the names stay
  procman ps --watch         again every 2 seconds, until Ctrl-C
  procman ps --watch 10 -d /srv/app
""",
)
@control_options
@click.argument("names", **ANY_NAMES)
@click.option("--json", "is_json", is_flag=True, help="A list of objects, with the names of docs/control.md.")
@click.option(
    "-w",
    "--watch",
    "interval_s",
    metavar="TIME",
    type=OfSetting("grace"),
    is_flag=False,
    flag_value="2",
    help="Again every so many seconds, in place. [2]",
)
@look_options
@click.pass_context
def command(
    context: click.Context, /, names: tuple[str, ...], is_json: bool, interval_s: float | None, **options: Any
) -> int:
    """Show what runs, and what it uses.

    CPU and memory are those of an instance's process and of all that it started. CPU is the share of one core: since
    the start, with --watch since the last look.
    """
    show = _Show(context, names, is_json, look_settings(options))
    if interval_s is None:
        return show.once()
    try:
        show.repeat(max(MIN_INTERVAL_S, interval_s))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


class _Show:
    """What was asked for, looked at once or again and again."""

    def __init__(self, context: click.Context, names: Sequence[str], is_json: bool, settings: Settings) -> None:
        self._context = context
        self._names = names
        self._is_json = is_json
        self._is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._has_colour = wants_colour(settings.color, self._is_terminal)
        self._meter = Meter()

    def once(self) -> int:
        instances, complaint = self._look()
        text = _json(instances) if self._is_json else "\n".join(table(instances, _width(), self._has_colour))
        click.echo(text, color=True)
        if complaint:
            click.echo(complaint, err=True)
            return EXIT_KILLED
        return 0

    def repeat(self, interval_s: float) -> None:
        """Look until interrupted, also while nothing is there to see. Raises ProcmanError if that is so at first."""
        instances, complaint = self._look()
        if self._is_terminal and not self._is_json:
            _write(CLEAR)
        while True:
            self._draw(instances, complaint)
            time.sleep(interval_s)
            try:
                instances, complaint = self._look()
            except ProcmanError as error:  # gone, or just ending
                instances, complaint = [], str(error)

    def _draw(self, instances: Sequence[Message], complaint: str) -> None:
        if self._is_json:
            _write(json.dumps(instances) + "\n")
            return
        lines = table(instances, _width(), self._has_colour) if instances or not complaint else []
        lines += complaint.splitlines()
        if not self._is_terminal:
            _write("\n".join([*lines, "", ""]))
            return
        rows = max(2, shutil.get_terminal_size().lines)
        if len(lines) >= rows:
            lines[rows - 2 :] = [f"… {len(lines) - rows + 2} more"]
        _write(HOME + "".join(f"{line}{TO_LINE_END}\n" for line in lines) + TO_SCREEN_END)

    def _look(self) -> tuple[list[Message], str]:
        """Return the instances with what they use, and what is to be said of supervisors that do not answer."""
        with control_of(self._context) as control:
            instances = control.instances(self._names)
            complaint = control.complaint
        return self._meter.measured(instances), complaint


def _width() -> int:
    """Return the columns of the terminal; 0, as many as needed, on a pipe unless COLUMNS says otherwise."""
    return shutil.get_terminal_size(fallback=(0, 0)).columns


def _json(instances: Sequence[Message]) -> str:
    lines = ",\n".join("  " + json.dumps(instance) for instance in instances)
    return f"[\n{lines}\n]" if lines else "[]"


def _write(text: str) -> None:
    """Write a whole frame at once, so that no half of one is seen."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(1, data) :]
