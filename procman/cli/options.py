"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from procman.config import SETTINGS, Wrong, value_of
from procman.errors import EXIT_INTERRUPTED, EXIT_READER_GONE

Function = TypeVar("Function", bound=Callable[..., Any])


class OfSetting(click.ParamType):  # type: ignore[type-arg]  # generic in the stubs of newer versions only
    """A word that is read as the setting of that name is read everywhere else."""

    def __init__(self, key: str) -> None:
        self.name = key
        self._kind = SETTINGS[key].kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        read = value_of(self._kind, self._kind.from_word, value) if isinstance(value, str) else value
        if isinstance(read, Wrong):
            self.fail(f"expected {read.expected}.", param, ctx)
        return read

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return completing(self.name)(ctx, param, incomplete)


def completing(kind: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """Return the `shell_complete` of a parameter: what procman.cli.completion (loaded for TAB only) has for `kind`."""

    def complete(context: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from procman.cli import completion

        return completion.complete(kind, context, param, incomplete)

    return complete


def flattened(context: click.Context, parameter: click.Parameter, groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Return the words of an option that holds several and may be given several times."""
    return tuple(word for group in groups for word in group)


INPUT_OPTIONS = (
    click.option(
        "-f",
        "--procfile",
        metavar="FILE",
        shell_complete=completing("file"),
        help="The Procfile; its directory becomes the root. [Procfile]",
    ),
    click.option(
        "-d", "--root", metavar="DIR", shell_complete=completing("dir"), help="The directory the processes run in."
    ),
    click.option(
        "-e",
        "--env",
        metavar="FILE[,FILE]",
        multiple=True,
        type=OfSetting("env"),
        callback=flattened,
        help="Env files; later ones win. [.env]",
    ),
    click.option("--env-encoding", metavar="NAME", help="How env files are encoded. [utf-8]"),
    click.option(
        "--interpolate/--no-interpolate", default=None, help="Replace ${NAME} in env files by other variables. [no]"
    ),
    click.option(
        "--override/--no-override",
        " /--env-wins",
        default=None,
        help="Does .env win over your environment, or yours over it? [override]",
    ),
    click.option("-p", "--port", metavar="N", type=OfSetting("port"), help="The first port. [PORT, else 5000]"),
    click.option("--port-step", metavar="N", type=OfSetting("port_step"), help="Ports between types. [100]"),
    click.option("--no-port", is_flag=True, default=None, help="Give the processes no PORT."),
    click.option("-v", "--verbose", is_flag=True, default=None, help="Tell more: all warnings, what .env overrides."),
    click.option("--lenient", is_flag=True, default=None, help="Leave out lines that cannot be read, and say so."),
)


PROCFILE_WITHOUT_F = click.option(
    "--procfile", metavar="FILE", shell_complete=completing("file"), help="The Procfile; -f before the command's name."
)


def run_by_click(command: click.Command, name: str, words: Sequence[str]) -> Any:
    """Run what the command line says; return the exit code, or None."""
    try:
        return command.main(words, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return EXIT_INTERRUPTED
    except SystemExit:  # click's way with a closed pipe
        return EXIT_READER_GONE


def given_of(context: click.Context) -> dict[str, Any]:
    """Return the `input_options` that were given, by name."""
    given: dict[str, Any] = context.find_root().ensure_object(dict)
    return given


def input_options(function: Function) -> Function:
    """Add the options that say what to read; given before and after the command's name, the later one counts."""
    return _collected(function, INPUT_OPTIONS)


def place_options(function: Function) -> Function:
    """Add those of `input_options` that say where a run is, for commands that read no file."""
    return _collected(function, INPUT_OPTIONS[:2])


def place_options_without_f(function: Function) -> Function:
    """Add the same for a command in which `-f` means something else; before the command's name it is the Procfile."""
    return _collected(function, (PROCFILE_WITHOUT_F, INPUT_OPTIONS[1]))


def _collected(function: Function, options: Sequence[Callable[[Any], Any]]) -> Function:
    def collect(*args: Any, **kwargs: Any) -> Any:
        given = given_of(click.get_current_context())
        for option in names:
            value = kwargs.pop(option)
            if value not in (None, ()):
                given[option] = value
        return function(*args, **kwargs)

    collect.__name__ = function.__name__
    collect.__doc__ = function.__doc__
    collect.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    own = len(collect.__click_params__)  # type: ignore[attr-defined]
    decorated: Any = collect
    for option in reversed(options):
        decorated = option(decorated)
    names = [parameter.name for parameter in decorated.__click_params__[own:]]
    return decorated  # type: ignore[no-any-return]
