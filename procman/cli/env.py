"""`procman env`: the environment that an instance gets, and where each variable comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from procman.cli.app import App, load_app, said_of_input
from procman.cli.options import completing, given_of, input_options
from procman.config import SETTINGS
from procman.errors import SourceRef, UsageMistake, did_you_mean, quoted
from procman.formation import MAX_COUNT
from procman.procfile import ProcessType
from procman.spec import ProcessSpec, os_bytes, resolve, resolve_one_off, without_needs

if TYPE_CHECKING:
    from procman.origins import Origin


@click.command(
    short_help="Print the environment of an instance.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  procman env                           what `procman run COMMAND` gives a command
  procman env web.2 --origin            what the second web gets, and from where
  procman env --no-caller               only what procman and .env add to your environment
  procman env web --show-secrets --json | jq -r .DATABASE_URL
  set -a; eval "$(procman env web --no-caller --show-secrets)"; set +a
""",
)
@input_options
@click.argument("instance", required=False, metavar="[TYPE[.N]]", shell_complete=completing("instance"))
@click.option("--origin", "has_origin", is_flag=True, help="Say where each one comes from, and what it overrides.")
@click.option("--show-secrets", is_flag=True, help="Show the values of names such as API_KEY, and passwords in URLs.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object.")
@click.option("--no-caller", is_flag=True, help="Leave out what comes from your environment as it is.")
@click.pass_context
def command(
    context: click.Context, instance: str | None, has_origin: bool, show_secrets: bool, is_json: bool, no_caller: bool
) -> None:
    """Print the environment of an instance such as web.2, sorted, as a shell reads it.

    Without one it is what `procman run COMMAND` gives a command. A value that is hidden, or a name that no shell can
    read, stands in a comment.
    """
    from procman.origins import CALLER, origins

    app = load_app(given_of(context))
    for note in said_of_input(app):
        click.echo(f"procman: {note}", err=True)
    spec = _spec(app, instance)
    found = origins(spec, app.procfile.types, app.env_files, app.settings, os.environ)
    if no_caller:
        found = {name: setters for name, setters in found.items() if setters[-1].place != CALLER}
    if app.settings.origin("env_files") == SETTINGS["env"].option:
        paths = {str(SourceRef(file.path)) for file in app.env_files}
        found = {name: [_with_option(setter, paths) for setter in setters] for name, setters in found.items()}
    if is_json:
        import json

        text = json.dumps({name: _record(name, by, has_origin, show_secrets) for name, by in found.items()}, indent=2)
    else:
        text = "\n".join(_line(name, by, has_origin, show_secrets) for name, by in found.items())
    click.echo(os_bytes(text))


def _spec(app: App, instance: str | None) -> ProcessSpec:
    """Return what `start` would run as `instance`, or what `run` gives a command. Raises UsageMistake."""
    types, settings = app.procfile.types, without_needs(app.settings)  # which change no variable
    if instance is None:
        entry = ProcessType("", "", SourceRef("command line"))
        return resolve_one_off(entry, types, app.dotenv, settings, os.environ)
    names = [entry.name for entry in types]
    name, dot, number = instance.partition(".")
    if name not in names:
        raise UsageMistake(f"unknown process type {quoted(name)}", hint=did_you_mean(name, names))
    if dot and not (re.fullmatch("[1-9][0-9]{0,4}", number) and int(number) <= MAX_COUNT):
        raise UsageMistake(f"{quoted(instance)} is no instance", hint=f"write {name}.1, or {name}.2 for the second")
    counts = {known: int(number or 1) if known == name else 0 for known in names}  # of all: their order fixes the ports
    return resolve(types, app.dotenv, counts, settings, os.environ)[-1]


def _with_option(setter: Origin, paths: set[str]) -> Origin:
    """Return `setter` with the option in front of a file that was named with it."""
    is_named = setter.place.rpartition(":")[0] in paths
    return setter._replace(place=f"{SETTINGS['env'].option} {setter.place}") if is_named else setter


def _record(name: str, setters: list[Origin], has_origin: bool, show_secrets: bool) -> Any:
    """Return a variable for JSON; null for a value that is hidden."""
    value = setters[-1].value
    shown = value if show_secrets or _shown(name, value) == value else None
    if not has_origin:
        return shown
    return {"value": shown, "origin": setters[-1].place, "overrides": [setter.place for setter in setters[-2::-1]]}


def _shown(name: str, value: str) -> str:
    from procman.origins import masked

    return masked(name, value)


def _line(name: str, setters: list[Origin], has_origin: bool, show_secrets: bool) -> str:
    """Return `NAME=value` with a comment behind it, all of it a comment if no shell should read it."""
    import shlex

    value = setters[-1].value
    shown = value if show_secrets else _shown(name, value)
    remarks = list(_origin(setters)) if has_origin else []
    line = f"{name}={shlex.quote(shown)}"
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name):
        remarks.append("no shell can read this name")
    elif shown != value:
        line = f"{name}={shown}"
        remarks.append("hidden; --show-secrets")
    else:
        return line + _remark(remarks)
    return "# " + line.replace("\n", "\n# ") + _remark(remarks)


def _origin(setters: list[Origin]) -> Iterator[str]:
    yield setters[-1].place
    if setters[:-1]:
        yield "overrides " + " and ".join(setter.place for setter in setters[-2::-1])


def _remark(remarks: list[str]) -> str:
    return f"  # {', '.join(remarks)}" if remarks else ""
