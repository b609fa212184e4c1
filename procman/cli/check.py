"""`procman check`: everything wrong or doubtful in all files, at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import click

from procman.cli.app import App, Finding, overridden, raise_refused, read_app
from procman.cli.options import given_of, input_options
from procman.config import PROCESS_SETTINGS, SETTINGS
from procman.errors import NOTE, REFUSED, WARNING, ProcfileError, ProcmanError
from procman.formation import resolve_formation
from procman.spec import os_bytes, release_types, resolve


@click.command(
    short_help="Tell everything wrong in Procfile, env files and settings.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  procman check                     is all well with Procfile, .env and settings?
  procman check --strict            warnings are errors, too: for CI
  procman check --verbose           each setting, and where its value comes from
  procman check --heroku            what Heroku would read differently
""",
)
@input_options
@click.option("--strict", is_flag=True, help="Take each warning for an error.")
@click.option("--heroku", is_flag=True, help="Tell what Heroku and `heroku local` read differently.")
@click.pass_context
def command(context: click.Context, strict: bool, heroku: bool) -> None:
    """Read Procfile, env files and settings, and tell everything that is wrong or doubtful.

    The exit code is 0, 65 for a line that cannot be read, 66 for a missing file, 78 for a setting that cannot be.
    Warnings do not change it without --strict.
    """
    app = read_app({**given_of(context), "strict": strict})
    for note in app.notes:
        _say(f"procman: {note}")
    for severity in (NOTE, WARNING):
        for finding in app.findings:
            if finding.problem.severity == severity:
                _say(str(finding.problem))
    if heroku:
        from procman.heroku import differences

        for problem in differences(app.procfile, app.env_files, app.texts):
            _say(str(problem))
    if app.is_verbose:
        for line in [*_settings_table(app), *overridden(app)]:
            _say(line)
    _raise_all(app)
    _say(f"valid procfile detected ({', '.join(entry.name for entry in app.procfile.types)})")


def _say(text: str) -> None:
    click.echo(os_bytes(text))  # a path need not be text, and no locale may stop us


def _raise_all(app: App) -> None:
    """Raise one error for all that would keep `start` without arguments from running."""
    errors: list[ProcmanError] = []
    try:
        raise_refused(app.findings)
    except ProcmanError as error:
        errors.append(error)
    try:
        is_whole = not any(finding.kind is ProcfileError and _stops(finding) for finding in app.findings)
        if app.procfile.types and is_whole:
            _try_formation(app)
    except ProcmanError as error:
        errors.append(error)
    if errors:
        raise type(errors[0])("\n".join(str(error) for error in errors))


def _stops(finding: Finding) -> bool:
    return finding.problem.severity == REFUSED


def _try_formation(app: App) -> None:
    """Resolve what `start` takes without arguments. Raises UsageMistake, ConfigError or ProcfileError."""
    settings = app.settings
    origin, releases = settings.origin("formation"), release_types(settings)
    counts = resolve_formation(app.procfile.types, setting=settings.formation, origin=origin, releases=releases)
    resolve(app.procfile.types, app.dotenv, counts, settings, os.environ)


def _settings_table(app: App) -> Iterator[str]:
    """Yield a line a setting: its key in procman.toml, its value, who said it."""
    settings = app.settings
    read = {"env": ",".join(file.path for file in app.env_files), "formation": settings.formation or "one of each"}
    rows = [
        (key, read.get(key) or _text(getattr(settings, field)), settings.origin(field))
        for key, (field, _, _) in SETTINGS.items()
    ]
    for name, process in settings.processes.items():
        said = [(key, field) for key, (field, _, _) in PROCESS_SETTINGS.items() if field in process.sources]
        rows += [
            (f"process.{name}.{key}", _process_text(key, getattr(process, field)), str(process.source_of(field)))
            for key, field in said
        ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        yield f"{key:{widths[0]}}  {value:{widths[1]}}  {origin}"


def _process_text(key: str, value: Any) -> str:
    if key == "stop_signal":
        return signal.Signals(value).name
    if key in ("ready", "liveness"):
        from procman.probe_settings import told

        return told(value, key)
    return _text(value)


def _text(value: Any) -> str:
    if value is None or value == () or value == {}:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, dict)):  # of variables only the names: a value may be a secret
        return ",".join(str(word) for word in value)
    return str(value)
