"""`procman wait`: until what runs is ready."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing

import click

from procman.cli.app import control_directory
from procman.cli.control import ANY_NAMES, HELP, control_options, is_up, listed, state_of, up_line
from procman.cli.options import OfSetting, given_of
from procman.control.client import (
    GREETING_S,
    Control,
    Lost,
    Nobody,
    NotInTime,
    Peer,
    Silent,
    failure_of,
    instances_in,
    is_last,
)
from procman.control.protocol import Message
from procman.errors import EXIT_KILLED, ControlError, ProcmanError, UsageMistake

PAUSE_S = 0.05  # between two looks for a supervisor
SHORT_S = 0.5  # how long some are listened to while others are still missing
MIN_S = 0.5  # even with --timeout 0 there is one look


@click.command(
    context_settings=HELP,
    epilog="""\b
Examples:
  procman wait                    all that runs here
  procman wait web worker.2       only these
  procman start & procman wait && curl http://localhost:5000/
  procman wait --timeout 5m || procman logs -n 50
""",
)
@control_options
@click.argument("names", **ANY_NAMES)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="TIME",
    type=OfSetting("grace"),
    default="60",
    help="How long to wait, for procman itself too; or 2m, inf. [60]",
)
@click.pass_context
def command(context: click.Context, names: tuple[str, ...], timeout_s: float) -> None:
    """Wait until what runs is ready.

    Ready, or ended with success. Waits for a procman that is only starting, too. The exit code is 1 when something
    has failed, or is not ready within --timeout, and 69 when no procman has come up at all.
    """
    for instance in _Wait(control_directory(given_of(context)), names, timeout_s).run():
        click.echo(up_line(instance))


class _Wait:
    """The instances asked for, or all, under supervisors that may come one by one."""

    def __init__(self, directory: str, names: Sequence[str], timeout_s: float) -> None:
        self._directory = directory
        self._names = names
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._asked: set[int] = set()  # pids of supervisors
        self._known: set[str] = set()  # names that nobody runs, though the Procfile has the type

    @property
    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def run(self) -> list[Message]:
        """Return the instances, all ready. Raises ProcmanError."""
        while True:
            try:
                control = Control(self._directory, min(GREETING_S, max(MIN_S, self._left_s)))
            except (Nobody, Silent) as error:
                self._check_gone([], isinstance(error, Silent))
                if not self._left_s:
                    raise ControlError(f"waited for {self._timeout_s:g} s: {error}") from None
            else:
                with closing(control):
                    instances = self._look(control)
                    if instances is not None:
                        return instances
                    if not self._left_s:
                        raise NotInTime(self._late(control))
            time.sleep(min(PAUSE_S, self._left_s))

    def _look(self, control: Control) -> list[Message] | None:
        """Return the instances when all are ready; None when some are not, or are still missing."""
        self._check_gone([peer.pid for peer in control.peers], bool(control.silent))
        routed, missing = self._routed(control)
        is_whole = not missing and (bool(self._names) or not control.silent)
        self._asked.update(peer.pid for peer in routed)
        limit_s = max(MIN_S, self._left_s) if is_whole else SHORT_S
        last: dict[Peer, Message] = {}
        try:
            requests: dict[Peer, Message] = {peer: {"do": "wait", "names": names} for peer, names in routed.items()}
            for peer, message in control.converse(requests, limit_s):
                if "error" in message:
                    _raise_unless_later(message)
                elif is_last(message):
                    last[peer] = message
        except NotInTime:
            return None
        except Lost as error:
            raise ProcmanError(str(error)) from None
        return instances_in(last[peer] for peer in routed) if is_whole and len(last) == len(routed) else None

    def _routed(self, control: Control) -> tuple[dict[Peer, list[str]], list[str]]:
        """Return whom to ask for what, and the names that nobody runs yet. Raises UsageMistake for those unknown."""
        if not self._names:
            return {peer: [] for peer in control.peers}, []
        routed, missing = control.owners(self._names)
        if not control.silent:  # one of them may run it
            self._known.update(name for name in missing if name not in self._known and _is_known(control, name))
            if unknown := [name for name in missing if name not in self._known]:
                control.refuse(unknown, control.types)
        return routed, missing

    def _check_gone(self, pids: Sequence[int], has_silent: bool) -> None:
        """Raise ProcmanError if a supervisor that was asked is there no longer; one that is silent may be it."""
        for pid in sorted(self._asked.difference(pids)):
            if not has_silent:
                raise ProcmanError(f"the procman with pid {pid} has ended")

    def _late(self, control: Control) -> str:
        """Return what to say in the end: what is not ready, and how it is."""
        routed, missing = self._routed(control)
        late = []
        for peer, names in routed.items():
            try:
                instances = instances_in(control.ask({peer: {"do": "ps"}}))
            except ProcmanError:
                late.append(f"the procman with pid {peer.pid} does not answer")
                continue
            there = {instance["name"] for instance in instances} | {instance["type"] for instance in instances}
            missing += [name for name in names if name not in there]
            late += [
                state_of(instance)
                for instance in instances
                if (not names or instance["name"] in names or instance["type"] in names) and not is_up(instance)
            ]
        late += [f"{name} is not started here" for name in missing]
        if control.complaint:
            late.append(control.complaint)
        return f"not ready within {self._timeout_s:g} s" + (f": {listed(late)}" if late else "")


def _raise_unless_later(error: Message) -> None:
    """Raise what a supervisor answers, unless it says that the type may still be started."""
    is_later = error.get("code") == ControlError.exit_code and "is_lost" not in error
    if not is_later:
        is_usage = error.get("code") == UsageMistake.exit_code
        raise failure_of([error if is_usage else {**error, "code": EXIT_KILLED}])


def _is_known(control: Control, name: str) -> bool:
    """Tell whether the Procfile has the type, as far as somebody says that it has not."""
    requests: dict[Peer, Message] = {peer: {"do": "wait", "names": [name], "check": True} for peer in control.peers}
    try:
        told = [message for _, message in control.converse(requests, GREETING_S)]
    except (NotInTime, Lost):
        return True
    return any(message.get("code") != UsageMistake.exit_code for message in told)
