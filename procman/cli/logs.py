"""`procman logs`: what a running procman's processes have written, and what they write."""

from __future__ import annotations

import os
import re
import select
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from procman.cli.app import wants_colour
from procman.cli.control import (
    ANY_NAMES,
    HELP,
    control_of,
    control_options_without_f,
    look_options,
    look_settings,
)
from procman.cli.history import Choice, Following, chosen, kept, merged, told
from procman.cli.options import OfSetting
from procman.config import Settings
from procman.control.client import Control, Peer, failure_of, is_last
from procman.control.protocol import Message
from procman.errors import EXIT_KILLED, ControlError, UsageMistake
from procman.events import Event
from procman.sinks.console import Console, Style
from procman.spec import name_width

if TYPE_CHECKING:
    from procman.sinks.stream import Buffer

EXIT_INTERRUPTED = 130
HISTORY_S = 30.0  # a supervisor that takes longer hangs
MAX_BUFFERS = 512  # IOV_MAX is 1024 (writev(2))


class Pattern(click.ParamType):  # type: ignore[type-arg]  # generic in the stubs of newer versions only
    """A regular expression."""

    name = "regular expression"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return re.compile(value) if isinstance(value, str) else value
        except re.error as error:
            self.fail(f"no regular expression: {error}.", param, ctx)


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman logs                        all that is kept
  procman logs web worker.2           of these only
  procman logs -f -n 20               the last 20 lines, and what comes
  procman logs --since 5m --grep 'ERROR|Traceback'
  procman logs -f --grep ' 50[0-9] ' web
""",
)
@control_options_without_f
@click.argument("names", **ANY_NAMES)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the run ends or Ctrl-C.")
@click.option("-n", "--lines", "last", metavar="N", type=click.IntRange(min=0), help="Only the last N lines. [all]")
@click.option("--since", "since_s", metavar="TIME", type=OfSetting("grace"), help="Not older than this, as in 5m.")
@click.option("--grep", "pattern", metavar="RE", type=Pattern(), help="Only lines in which this is found.")
@look_options
@click.option("--timestamp/--no-timestamp", default=None, help="Show the time. [yes]")
@click.option("--prefix/--no-prefix", default=None, help="Show time and name. [yes]")
@click.option("--raw", is_flag=True, help="Let screen control sequences through to the terminal.")
@click.pass_context
def command(context: click.Context, /, names: tuple[str, ...], follow: bool, **options: Any) -> int:
    """Show what the processes have written.

    They look as in `start`, with procman's own lines. The supervisor keeps the last 64 KiB of each instance. Several
    instances are merged by time; -n counts the lines of all together, behind --since and --grep. What a run of `start
    --detach` wrote long ago is in .procman/log/procman.log.
    """
    since = None if options["since_s"] is None else time.time() - options["since_s"]
    choice = Choice(options["last"], since, options["pattern"])
    with control_of(context) as control:
        console, target, index_of = _console(control, look_settings(options), options["raw"])
        try:
            show = _Show(control, names, choice, console, target, index_of)
            failed = show.follow() if follow else show.history()
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        if failed:
            raise failure_of(failed)
        if control.complaint and not names:
            click.echo(control.complaint, err=True)
            return EXIT_KILLED
    return 0


def _console(control: Control, settings: Settings, is_raw: bool) -> tuple[Console, Output1, dict[str, int]]:
    """Return what prints events as `start` does: the same width of names, the types' colours; and their places."""
    counts: Counter[str] = Counter()
    for instance in control.instances():
        counts[instance["type"]] = max(counts[instance["type"]], instance["instance"])
    is_terminal = os.isatty(1)
    style = Style(
        width=name_width(counts),
        has_timestamp=settings.timestamp,
        has_prefix=settings.prefix,
        has_colour=wants_colour(settings.color, is_terminal),
        is_filtered=is_terminal and not is_raw,
    )
    index_of = {name: index for index, name in enumerate(control.types)}
    target = Output1()
    return Console(target, style, lambda name: index_of.get(name, 0)), target, index_of


class _Show:
    """The history of the instances asked for, and what follows."""

    def __init__(
        self,
        control: Control,
        names: Sequence[str],
        choice: Choice,
        console: Console,
        target: Output1,
        index_of: dict[str, int],
    ) -> None:
        self._control = control
        self._names = names
        self._choice = choice
        self._console = console
        self._target = target
        self._index_of = index_of
        self._late: set[Peer] = set()  # those that have come since
        self._is_live = False
        control.instances(names)  # so that what is not there is refused before any is shown
        self._routed = control.route(names)

    def history(self) -> list[Message]:
        """Print what is kept; return the errors of supervisors."""
        histories: dict[Peer, list[Message]] = {peer: [] for peer in self._routed}
        errors = []
        for peer, message in self._control.converse(self._requests(False), HISTORY_S, 1):
            if "error" in message:
                errors.append(message)
            elif not is_last(message):
                histories[peer].append(message)
        self._print_history(histories.values())
        return errors

    def follow(self) -> list[Message]:
        """Print what is kept and what comes, also of runs that begin later, until all have ended.

        Returns the errors of supervisors.
        """
        histories: dict[Peer, list[Message]] | None = {peer: [] for peer in self._routed}
        live: set[Peer] = set()
        later: list[Event] = []  # from those that live while others still tell their history
        errors = []
        following = Following(self._choice)
        conversation = self._control.converse(self._requests(True), watched_fd=1, newcomers=self._newcomers)
        for peer, message in conversation:
            if message.get("event") == "live" or is_last(message):
                live.add(peer)
                if self._is_failure(peer, message):
                    errors.append(message)
            elif histories is not None and peer not in live:
                histories[peer].append(message)
            elif (event := told(message, time.time())) is not None:
                later.append(event)
            if histories is not None and len(live) == len(self._routed):
                self._print_history(histories.values())
                histories = None
                self._is_live = True
            if histories is None:
                for event in later:
                    for shown in following.take(event):
                        self._console.write(shown)
                later.clear()
                self._target.flush()
        return errors

    def _is_failure(self, peer: Peer, message: Message) -> bool:
        if "error" not in message:
            return False
        if peer in self._late and message.get("code") == UsageMistake.exit_code:
            return False  # of `web.2` it runs only web.1
        return message.get("code") != ControlError.exit_code or "is_lost" in message

    def _newcomers(self) -> dict[Peer, Message]:
        """Return what to ask those who have come since we began: all that they keep is new."""
        if not self._is_live:
            return {}
        found = self._control.newcomers()
        routed = self._control.owners(self._names)[0]
        chosen = [peer for peer in found if not self._names or peer in routed]
        for peer in set(found).difference(chosen):
            peer.close()
        for name in (name for peer in chosen for name in peer.types):
            self._index_of.setdefault(name, len(self._index_of))
            self._console.widen(name_width({name: 1}))
        self._late.update(chosen)
        return {peer: {"do": "logs", "names": routed.get(peer, []), "follow": True} for peer in chosen}

    def _requests(self, follow: bool) -> dict[Peer, Message]:
        return {peer: {"do": "logs", "names": names, "follow": follow} for peer, names in self._routed.items()}

    def _print_history(self, histories: Any) -> None:
        for event in chosen(merged(map(kept, histories)), self._choice):
            self._console.write(event)
        self._target.flush()


class Output1:
    """Standard output, blocking: a slow reader makes us slow, and the supervisor counts what we miss."""

    is_idle = True

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []

    def write(self, *buffers: Buffer) -> None:
        self._buffers += buffers

    def flush(self) -> None:
        """Write everything. Raises BrokenPipeError when the reader has left."""
        data = memoryview(b"".join(self._buffers))
        self._buffers.clear()
        while data:
            try:
                data = data[os.write(1, data) :]
            except BlockingIOError:  # somebody who shares it with us has made it so
                poll = select.poll()
                poll.register(1, select.POLLOUT)
                poll.poll()
