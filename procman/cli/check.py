"""`procman check`: everything wrong or doubtful in all files, at once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from procman.cli.app import KINDS, MAX_FILE_BYTES, STDIN_NAME, App, Finding, overridden, raise_refused, read_app
from procman.cli.options import given_of, input_options
from procman.config import PROCESS_SETTINGS, SETTINGS
from procman.errors import (
    NOTE,
    REFUSED,
    WARNING,
    EnvironmentFileError,
    MissingFileError,
    Problem,
    ProcfileError,
    ProcmanError,
    judged,
    refused,
)
from procman.formation import resolve_formation
from procman.spec import os_bytes, release_types, resolve

if TYPE_CHECKING:
    from procman.environment import EnvFile


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
    given = given_of(context)
    app = read_app({**given, "strict": strict})
    shown_root = given.get("root") or os.path.dirname(given.get("procfile") or "")
    findings = [*app.findings, *_judged(_parity(app, shown_root), strict)]
    findings.sort(key=lambda finding: KINDS.index(finding.kind))
    for note in app.notes:
        _say(f"procman: {note}")
    for severity in (NOTE, WARNING):
        for finding in findings:
            if finding.problem.severity == severity:
                _say(str(finding.problem))
    if heroku:
        from procman.heroku import differences

        for problem in differences(app.procfile, app.env_files, app.texts):
            _say(str(problem))
    if app.is_verbose:
        for line in [*_settings_table(app), *overridden(app)]:
            _say(line)
    _raise_all(app, findings)
    _say(f"valid procfile detected ({', '.join(entry.name for entry in app.procfile.types)})")


def _say(text: str) -> None:
    click.echo(os_bytes(text))  # a path need not be text, and no locale may stop us


def _raise_all(app: App, findings: Iterable[Finding]) -> None:
    """Raise one error for all that would keep `start` without arguments from running."""
    errors: list[ProcmanError] = []
    try:
        raise_refused(findings)
    except ProcmanError as error:
        errors.append(error)
    try:
        is_whole = not any(finding.kind is ProcfileError and _stops(finding) for finding in app.findings)
        if app.procfile.types and is_whole:
            _try_formation(app)
    except ProcmanError as error:
        errors.append(error)
    try:
        if any(process.watch for process in app.settings.processes.values()):
            from procman.cli.watching import check_watch

            check_watch(app.settings)
    except ProcmanError as error:
        errors.append(error)
    if errors:
        lines = dict.fromkeys(line for error in errors for line in str(error).split("\n"))  # one may be found twice
        raise type(errors[0])("\n".join(lines))


def _stops(finding: Finding) -> bool:
    return finding.problem.severity == REFUSED


def _try_formation(app: App) -> None:
    """Resolve what `start` takes without arguments. Raises UsageMistake, ConfigError or ProcfileError."""
    settings = app.settings
    origin, releases = settings.origin("formation"), release_types(settings)
    counts = resolve_formation(app.procfile.types, setting=settings.formation, origin=origin, releases=releases)
    resolve(app.procfile.types, app.dotenv, counts, settings, os.environ)


# --- dev/prod parity: the reading for parity.py ----------------------------------------------------------------------

GIT_PATIENCE_S = 3.0


def _judged(found: Iterable[tuple[type[ProcmanError], Problem]], strict: bool) -> list[Finding]:
    return [Finding(judged([problem], strict=strict)[0], kind, False) for kind, problem in found]


def _parity(app: App, shown_root: str) -> Iterator[tuple[type[ProcmanError], Problem]]:
    """Yield a warning for each thing that will not run elsewhere as it runs here, with the kind of error."""
    from procman import parity

    for entry in app.procfile.types:
        yield from ((ProcfileError, problem) for problem in parity.literal_port(entry))
    if app.procfile.types and app.procfile.path != STDIN_NAME and not _has_manifest(app):
        yield MissingFileError, parity.no_manifest(app.procfile.path)
    yield from ((EnvironmentFileError, problem) for problem in _env_parity(app, shown_root))
    if _is_tracked(app.settings.root, parity.ENV):
        yield EnvironmentFileError, parity.tracked(os.path.join(shown_root, parity.ENV))


def _env_parity(app: App, shown_root: str) -> Iterator[Problem]:
    from procman import parity
    from procman.environment import is_disabled

    if is_disabled(os.environ):
        return
    path = os.path.join(shown_root, parity.ENV)
    env = _env_file(app, path)
    if env is None and os.path.lexists(path):
        return
    others = {binding.name for file in app.env_files for binding in file.bindings}
    for name in parity.EXAMPLES:
        path = os.path.join(shown_root, name)
        if (example := _env_file(app, path)) is not None:
            text = (_text_of(app, path) or b"").decode("utf-8", "replace")
            yield from parity.names_beside(example, text, env, others if env else {*others, *os.environ})
            break
    production = _env_file(app, os.path.join(shown_root, parity.PRODUCTION))
    if env is not None and production is not None:
        yield from parity.kinds_beside(env, production)


def _env_file(app: App, path: str) -> EnvFile | None:
    """Return what stands in an env file, or None if there is none that can be read."""
    from procman.environment import parse_env

    file = next((file for file in app.env_files if file.path == path), None)
    if file is None and (data := _text_of(app, path)) is not None:
        file = parse_env(data, path, app.settings.env_encoding)
    return None if file is None or refused(file.problems, lenient=True) else file


def _text_of(app: App, path: str) -> bytes | None:
    """Return the bytes of a file that was read already or can be read at once; only regular files are."""
    if path in app.texts:
        return app.texts[path]
    try:
        if not os.path.isfile(path):
            return None
        with open(path, "rb") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError:
        return None


def _has_manifest(app: App) -> bool:
    """Tell whether dependencies are declared: beside the Procfile, above it in its repository, where a command goes."""
    from procman.parity import folders_named, has_manifest

    root = app.settings.root
    beside = dict.fromkeys((root, os.path.dirname(os.path.abspath(app.procfile.path))))
    named = (os.path.join(root, folder) for folder in folders_named(app.procfile.types))
    return any(has_manifest(_names_in(folder)) for start in beside for folder in _upwards(start)) or any(
        has_manifest(_names_in(folder)) for folder in named
    )


def _upwards(folder: str) -> list[str]:
    """Return `folder` and those above it up to the root of its git repository; without one only itself."""
    found = [folder]
    while not os.path.lexists(os.path.join(found[-1], ".git")):
        above = os.path.dirname(found[-1])
        if above == found[-1]:
            return [folder]
        found.append(above)
    return found


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []


def _is_tracked(root: str, name: str) -> bool:
    """Tell whether git tracks the file. No git, no repository, no answer in time: no."""
    if not os.path.lexists(os.path.join(_upwards(root)[-1], ".git")):
        return False
    # A hook of git sets variables that name another repository; and no repository may make us run its programs.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or "CEILING" in key}
    argv = ["git", "-c", "core.fsmonitor=false", "--literal-pathspecs", "ls-files", "-z", "--", name]
    try:
        done = subprocess.run(
            argv,
            cwd=root,
            env={**env, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=GIT_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and done.stdout != b""


# --- verbose ---------------------------------------------------------------------------------------------------------


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
