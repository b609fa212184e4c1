"""Options that several commands share, and the reading of what they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from procman.config import Settings
from procman.errors import (
    AMBIGUOUS,
    REFUSED,
    ConfigError,
    EnvironmentFileError,
    MissingFileError,
    ProcfileError,
    SourceRef,
)
from procman.ports import DEFAULT_BASE, DEFAULT_STEP, MAX_PORT
from procman.procfile import Procfile, parse_procfile

if TYPE_CHECKING:
    from procman.environment import Binding, EnvFile

Function = TypeVar("Function", bound=Callable[..., Any])

INPUT_OPTIONS = (
    click.option("-f", "--procfile", metavar="FILE", help="The Procfile; its directory becomes the root. [Procfile]"),
    click.option("-d", "--root", metavar="DIR", help="The directory the processes run in."),
    click.option(
        "-e", "--env", "env_files", metavar="FILE[,FILE]", multiple=True, help="Env files; later ones win. [.env]"
    ),
    click.option(
        "-p", "--port", metavar="N", type=click.IntRange(1, MAX_PORT), help="The first port. [PORT, else 5000]"
    ),
    click.option("--port-step", metavar="N", type=click.IntRange(1, MAX_PORT), help="Ports between types. [100]"),
    click.option("--no-port", is_flag=True, default=None, help="Give the processes no PORT."),
    click.option(
        "--no-override", "--env-wins", is_flag=True, default=None, help="Let your environment win over .env."
    ),
)


def input_options(function: Function) -> Function:
    """Add the options that say what to read; given before and after the command's name, the later one counts."""

    def collect(*args: Any, **kwargs: Any) -> Any:
        context = click.get_current_context()
        given = context.find_root().ensure_object(dict)
        for option in ("procfile", "root", "env_files", "port", "port_step", "no_port", "no_override"):
            value = kwargs.pop(option)
            if value not in (None, ()):
                given[option] = value
        return function(*args, **kwargs)

    collect.__name__ = function.__name__
    collect.__doc__ = function.__doc__
    collect.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Any = collect
    for option in reversed(INPUT_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


class App(NamedTuple):
    """What the files and options say, before any formation."""

    procfile: Procfile
    dotenv: Mapping[str, Binding]
    settings: Settings
    notes: tuple[str, ...]  # to be told once, in the run


def load_app(context: click.Context) -> App:
    """Read the Procfile and the `.env` files that the options name. Raises every error of all files at once."""
    given = context.find_root().ensure_object(dict)
    procfile_path = given.get("procfile") or os.path.join(given.get("root") or "", "Procfile")
    root = _absolute(given.get("root") or os.path.dirname(procfile_path) or ".")
    if not os.path.isdir(root):
        raise MissingFileError(f"{given.get('root') or root}: no such directory", hint="give another one with -d")
    procfile = parse_procfile(_read(procfile_path, "give its path with -f"), procfile_path)
    env_paths, notes = _env_paths(given.get("env_files", ()), root, given.get("root") or os.path.dirname(procfile_path))
    files = _read_env_files(env_paths)
    _refuse(procfile, files)
    dotenv = _merged(files)
    return App(procfile, dotenv, _settings(given, root, dotenv), notes)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # getcwd(2): it was deleted under us
        raise MissingFileError("the working directory is gone", hint="change to one that exists, or give -d") from None


def enter(root: str) -> None:
    """Change to the root, once for all processes. Raises MissingFileError."""
    try:
        os.chdir(root)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise MissingFileError(f"{root}: {reason}", hint="the processes run there; give another one with -d") from None


def _read_env_files(paths: list[str]) -> list[EnvFile]:
    if not paths:
        return []
    from procman.environment import parse_env

    return [parse_env(_read(path, "given with -e"), path) for path in paths]


def _merged(files: list[EnvFile]) -> Mapping[str, Binding]:
    if not files:
        return {}
    from procman.environment import merged

    return merged(files)


def _refuse(procfile: Procfile, files: list[EnvFile]) -> None:
    bad = [problem for problem in procfile.problems if problem.severity in (REFUSED, AMBIGUOUS)]
    bad_env = [problem for file in files for problem in file.problems if problem.severity in (REFUSED, AMBIGUOUS)]
    if bad or bad_env:
        kind = ProcfileError if bad else EnvironmentFileError
        raise kind.of([*bad, *bad_env])


def _env_paths(given: tuple[str, ...], root: str, shown_root: str) -> tuple[list[str], tuple[str, ...]]:
    named = [path for group in given for path in group.split(",") if path]
    if named:
        return named, ()
    default = os.path.join(shown_root, ".env")
    if not os.path.exists(default):
        return [], ()
    own = _absolute(".env") if not os.path.isabs(default) or os.path.exists(".") else default
    if own != os.path.join(root, ".env") and os.path.exists(own):
        return [default], (f"reading {default}, not the .env of this directory",)
    return [default], ()


def _read(path: str, hint: str) -> bytes:
    """Return a file's bytes; `-` is standard input. Read once, for it may be a pipe."""
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise MissingFileError("no such file", source=SourceRef(path), hint=hint) from None
    except OSError as error:
        raise MissingFileError(os.strerror(error.errno or 0).lower(), source=SourceRef(path)) from None


def _settings(given: dict[str, Any], root: str, dotenv: Mapping[str, Binding]) -> Settings:
    return Settings(
        root=root,
        base_port=None if given.get("no_port") else given.get("port") or _base_port(dotenv),
        port_step=given.get("port_step") or DEFAULT_STEP,
        dotenv_wins=not given.get("no_override"),
    )


def _base_port(dotenv: Mapping[str, Binding]) -> int:
    """Return PORT of `.env`, else of the caller, else Foreman's 5000."""
    binding = dotenv.get("PORT")
    text = binding.value if binding else os.environ.get("PORT", "")
    if not text:
        return DEFAULT_BASE
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MAX_PORT:
        raise (EnvironmentFileError if binding else ConfigError)(
            f"PORT is no number from 1 to {MAX_PORT}",
            source=binding.source if binding else SourceRef("environment"),
            hint="correct it, or give -p",
        )
    return int(text)
