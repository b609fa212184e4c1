"""What the commands share that speak to a running procman."""

from __future__ import annotations

import gc
import os
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from procman.cli.app import control_directory
from procman.cli.options import OfSetting, completing, given_of, place_options, place_options_without_f
from procman.config import Settings, resolve_settings
from procman.control.client import Control, NotInTime, Peer, failure_of, instances_in, is_last
from procman.control.protocol import Message

Function = TypeVar("Function", bound=Callable[..., Any])

MAX_NAMED = 8  # instances in one line of a complaint
DOWN = ("exited", "failed", "pending")

LAST_STEP_S = 2.0  # from a supervisor's last word to the end of its process

HELP: Any = {"help_option_names": ["-h", "--help"]}
NAMES: Any = {"nargs": -1, "metavar": "TYPE[.N]...", "shell_complete": completing("instance")}
ANY_NAMES: Any = {**NAMES, "metavar": "[TYPE[.N]]..."}

timeout_option = click.option(
    "--timeout",
    "timeout_s",
    metavar="TIME",
    type=OfSetting("grace"),
    default="30",
    help="How long to wait; or 2m, inf. What was asked for goes on. [30]",
)


def look_options(function: Function) -> Function:
    """Add the options of colour, with their names in `start`."""
    function = click.option("--no-color", "--no-colour", is_flag=True, help="The same as --color never.")(function)
    choice = click.Choice(["auto", "always", "never"])
    return click.option("--color", "--colour", type=choice, help="[auto]")(function)


control_options = place_options
control_options_without_f = place_options_without_f


@contextmanager
def control_of(context: click.Context) -> Iterator[Control]:
    """Find the supervisors of the Procfile that the options name. Raises ControlError."""
    control = Control(control_directory(given_of(context)))
    gc.enable()  # main.py has switched it off, and some of these commands run for hours
    try:
        yield control
    finally:
        control.close()


def look_settings(options: Mapping[str, Any]) -> Settings:
    """Return the settings of the look by options and PROCMAN_ variables; a client reads no file."""
    names = ("color", "timestamp", "prefix")
    said = {name: options[name] for name in names if options.get(name) is not None}
    if options.get("no_color"):
        said["color"] = "never"
    return resolve_settings("", options=said, caller=os.environ)


def need_names(names: Sequence[str], is_all: bool, verb: str) -> None:
    """Raise UsageError unless either names or --all was given: what stops everything must be said."""
    if not names and not is_all:
        raise click.UsageError(f"name what to {verb}, as in `procman {verb} web worker.2`; or --all.")
    if names and is_all:
        raise click.UsageError("give names or --all, not both.")


def do(
    control: Control, requests: Mapping[Peer, Message], timeout_s: float, is_done: Callable[[Message], bool]
) -> list[Message]:
    """Ask for something and return the instances it was about. For the rest see `replies_to`."""
    return instances_in(replies_to(control, requests, timeout_s, is_done))


def replies_to(
    control: Control, requests: Mapping[Peer, Message], timeout_s: float, is_done: Callable[[Message], bool]
) -> list[Message]:
    """Ask for something and return the last word of each. `is_done` tells of an instance whether it has happened.

    Raises ProcmanError with what has not happened: NotInTime, or what the supervisors say. If one of several would
    refuse it, nothing happens.
    """
    control.check(requests, timeout_s)
    last: dict[Peer, Message] = {}
    try:
        for peer, message in control.converse(requests, timeout_s):
            if is_last(message):
                last[peer] = message
    except NotInTime as error:
        raise NotInTime(_late(control, requests, str(error), is_done)) from None
    if errors := [message for message in last.values() if "error" in message]:
        raise failure_of(errors)
    return [last[peer] for peer in requests]


def _late(control: Control, requests: Mapping[Peer, Message], text: str, is_done: Callable[[Message], bool]) -> str:
    late = []
    for peer, request in requests.items():
        names = [*request.get("names", ()), *request.get("counts", ())]
        for instance in instances_in(control.ask({peer: {"do": "ps"}})):
            if (not names or instance["name"] in names or instance["type"] in names) and not is_done(instance):
                late.append(state_of(instance))
    return f"{text}: {listed(late)} — it goes on, `procman ps` shows how" if late else text


def state_of(instance: Message) -> str:
    """Return the state of an instance, for a complaint."""
    pid = f", pid {instance['pid']}" if instance["pid"] else ""
    missing = f" (waits for {', '.join(instance['waits_for'])})" if instance.get("waits_for") else ""
    return f"{instance['name']} is {instance['state']}{missing}{pid}"


def listed(parts: Sequence[str]) -> str:
    """Return `parts` in one line, or as many as anybody wants to read."""
    more = [f"and {len(parts) - MAX_NAMED} more"] if len(parts) > MAX_NAMED else []
    return "; ".join([*parts[:MAX_NAMED], *more])


def is_down(instance: Message) -> bool:
    return instance["pid"] is None and instance["state"] in DOWN


def is_up(instance: Message) -> bool:
    """Tell whether it is up, or has done what it had to do."""
    return instance["state"] in ("ready", "exited")


def up_line(instance: Message) -> str:
    """Return the line for an instance that was started."""
    if instance["pid"] is None:
        return f"{instance['name']} {instance['state']} with code {instance['code']}"
    port = "" if instance["port"] is None else f", port {instance['port']}"
    return f"{instance['name']} {instance['state']}, pid {instance['pid']}{port}"


def end_fd_of(pid: int) -> int:
    """Return a descriptor that can be read when the process has ended (pidfd_open(2)); -1 where there is no such."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return -1


def wait_for_end(end_fd: int) -> None:
    """Wait until the process has gone, but not long: what it had locked is free for the next one then."""
    if end_fd >= 0:
        poll = select.poll()
        poll.register(end_fd, select.POLLIN)
        poll.poll(LAST_STEP_S * 1000)
