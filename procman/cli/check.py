"""`procman check`: everything wrong or doubtful in all files, at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from procman.cli.app import App, overridden, raise_refused, read_app
from procman.cli.options import input_options
from procman.config import PROCESS_SETTINGS, SETTINGS
from procman.errors import NOTE, WARNING
from procman.formation import resolve_formation
from procman.spec import resolve


@click.command(
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
    context.find_root().ensure_object(dict)["strict"] = strict
    app = read_app(context)
    for note in app.notes:
        click.echo(f"procman: {note}")
    for severity in (NOTE, WARNING):
        for finding in app.findings:
            if finding.problem.severity == severity:
                click.echo(str(finding.problem))
    if heroku:
        from procman.heroku import differences

        for problem in differences(app.procfile, app.env_files, app.texts):
            click.echo(str(problem))
    if app.is_verbose:
        for line in [*_settings_table(app), *overridden(app)]:
            click.echo(line)
    raise_refused(app.findings)
    _try_formation(app)
    click.echo(f"valid procfile detected ({', '.join(entry.name for entry in app.procfile.types)})")


def _try_formation(app: App) -> None:
    """Resolve what `start` takes without arguments. Raises UsageMistake, ConfigError or ProcfileError."""
    settings = app.settings
    counts = resolve_formation(app.procfile.types, setting=settings.formation, origin=settings.origin("formation"))
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
        said = {key: value for key, (field, _, _) in PROCESS_SETTINGS.items() if (value := getattr(process, field))}
        rows += [(f"process.{name}.{key}", _text(value), str(process.source)) for key, value in said.items()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, origin in rows:
        yield f"{key:{widths[0]}}  {value:{widths[1]}}  {origin}"


def _text(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, dict)):  # of variables only the names: a value may be a secret
        return ",".join(value)
    return str(value)
