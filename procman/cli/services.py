"""`procman services`: the attached resources, and whether each answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import click

from procman.cli.app import App, load_app, said_of_input, wants_colour
from procman.cli.options import OfSetting, given_of, input_options
from procman.control.table import DIM, GREEN, RED, columns
from procman.dialogue import Dialogue
from procman.errors import SourceRef
from procman.loop import Loop
from procman.process import Reaper
from procman.procfile import ProcessType
from procman.protocols import BackingService, Verdict, backing_service, is_known, masked
from procman.requirements import needs_by_type
from procman.spec import resolve_one_off, without_needs

EXIT_NOT_ALL = 1

UP, DOWN, UNCHECKED, UNSET, INVALID = "up", "down", "unchecked", "unset", "invalid"
_COLOURS = {UP: GREEN, UNCHECKED: DIM}
_HEADINGS = ("VARIABLE", "KIND", "ADDRESS", "STATE", "DELAY", "NEEDED BY")
_STATE, _DELAY = 3, 4


class Resource:
    """A variable that names a backing service, and what is known of it."""

    def __init__(self, variable: str, url: str, needed_by: Sequence[str]) -> None:
        self.variable = variable
        self.url = url
        self.needed_by = needed_by
        self.service: BackingService | None = None
        self.delay_s: float | None = None
        self.reason = ""
        self.state = DOWN
        if not url:
            self.state, self.reason = UNSET, "not set"
            return
        try:
            self.service = backing_service(variable, url)
        except ValueError as error:
            self.state, self.reason = INVALID, str(error)
            return
        if self.service.talk is None:
            self.state, self.reason = UNCHECKED, self.service.note

    @property
    def is_fine(self) -> bool:
        return self.state in (UP, UNCHECKED)

    def record(self) -> dict[str, Any]:
        """Return what --json shows; the names stay."""
        return {
            "variable": self.variable,
            "kind": self.service.kind if self.service else None,
            "address": (self.service.where or None) if self.service else None,
            "url": masked(self.url) if self.service else None,  # where user and host end is not known of others
            "state": self.state,
            "reason": self.reason or None,
            "delay_ms": None if self.delay_s is None else round(self.delay_s * 1000, 1),
            "needed_by": list(self.needed_by),
        }

    def cells(self) -> tuple[str, ...]:
        kind, where = (self.service.kind, self.service.where) if self.service else ("", "")
        state = {UP: "answers", UNCHECKED: f"not asked: {self.reason}"}.get(self.state, self.reason)
        delay = "" if self.delay_s is None else f"{self.delay_s * 1000:.{0 if self.delay_s >= 0.01 else 1}f} ms"
        return self.variable, kind or "-", where or "-", state, delay or "-", ", ".join(self.needed_by) or "-"


@click.command(
    short_help="List the backing services, and ask each.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  procman services                  what the app is attached to, and whether it answers
  procman services -e .env.staging  the same for other addresses
  procman services --json | jq -r '.[] | select(.state != "up") | .variable'
  procman services --timeout 1s && bin/rails test
""",
)
@input_options
@click.option(
    "--timeout",
    "timeout_s",
    metavar="TIME",
    type=OfSetting("grace"),
    default="5s",
    help="How long each may take to answer. [5s]",
)
@click.option("--json", "is_json", is_flag=True, help="A list of objects, with the names of docs/services.md.")
@click.pass_context
def command(context: click.Context, timeout_s: float, is_json: bool) -> int:
    """List each backing service that the app is attached to, and ask whether it is ready.

    These are the variables that `needs` in procman.toml names, and those of its `env` and of the env files whose value
    is the URL of a database, cache, queue or mail server. No procman need run. The exit code is 0 if all answer,
    else 1.
    """
    app = load_app(given_of(context))
    for note in said_of_input(app):
        click.echo(f"procman: {note}", err=True)
    resources = list(_resources(app))
    _ask([resource for resource in resources if resource.state == DOWN], timeout_s)
    if is_json:
        import json

        lines = ",\n".join("  " + json.dumps(resource.record()) for resource in resources)
        click.echo(f"[\n{lines}\n]" if lines else "[]")
    elif not resources:
        click.echo("no backing service: `needs` names none, and no env file has the URL of one", err=True)
    else:
        has_colour = wants_colour(app.settings.color, os.isatty(1))
        click.echo("\n".join(_table(resources, has_colour)), color=True)
    return 0 if all(resource.is_fine for resource in resources) else EXIT_NOT_ALL


def _resources(app: App) -> Iterator[Resource]:
    """Yield what the types need, and what else env files and sections name: each variable once for each value."""
    settings, types = without_needs(app.settings), app.procfile.types
    spec = resolve_one_off(
        ProcessType("", "", SourceRef("command line")), types, app.dotenv, settings, os.environ
    )  # what every process gets
    env = {**os.environ, **spec.env}
    found: dict[tuple[str, str], list[str]] = {}
    for name, needs in needs_by_type(types, app.settings).items():
        own_env = app.settings.processes[name].env
        for variable in needs.variables:
            value = own_env.get(variable, env.get(variable, ""))
            found.setdefault((variable, value), []).append(name)
    others = [(variable, env.get(variable, "")) for variable in app.dotenv]
    others += [pair for own in app.settings.processes.values() for pair in own.env.items()]
    for variable, value in others:
        if is_known(value):
            found.setdefault((variable, value), [])
    for (variable, value), needed_by in found.items():
        yield Resource(variable, value, needed_by)


def _ask(resources: Sequence[Resource], timeout_s: float) -> None:
    """Ask all at once, each once, and note what they say."""
    if not resources:
        return
    if any(resource.service and resource.service.talk and resource.service.talk.tls for resource in resources):
        import ssl  # noqa: F401 - now, or all would seem to take the time of its import

    loop, reaper = Loop(), Reaper()
    left = set(resources)
    begun_s = loop.now()

    def on_verdict(resource: Resource, verdict: Verdict) -> None:
        left.discard(resource)
        resource.reason = verdict.reason
        if verdict.is_ok:
            resource.state, resource.delay_s = UP, loop.now() - begun_s
        if not left:
            loop.stop()

    def reap() -> None:
        reaper.reap()

    loop.on_signal(signal.SIGCHLD, reap)
    dialogues = []
    try:
        for resource in resources:
            service = resource.service
            assert service is not None
            assert service.talk is not None
            told = partial(on_verdict, resource)
            dialogues.append(Dialogue(loop, service.hosts, service.path, service.talk, timeout_s, told))
        loop.run()
    finally:
        for dialogue in dialogues:
            dialogue.close()
        loop.close()


def _table(resources: Sequence[Resource], has_colour: bool) -> list[str]:
    colours = [_COLOURS.get(resource.state, RED) if has_colour else "" for resource in resources]
    rows = [_HEADINGS, *(resource.cells() for resource in resources)]
    return columns(rows, to_the_right={_DELAY}, colours={(at, _STATE): colour for at, colour in enumerate(colours, 1)})
