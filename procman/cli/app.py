"""Reading what the options name: settings files, env files and the Procfile, all of it before anything is said."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from procman.config import DEFAULT, SETTINGS, Settings, SettingsFile, name_problems, resolve_settings, with_dotenv
from procman.errors import (
    AMBIGUOUS,
    REFUSED,
    WARNING,
    ConfigError,
    EnvironmentFileError,
    MissingFileError,
    Problem,
    ProcfileError,
    ProcmanError,
    SourceRef,
    UsageMistake,
    capped,
    judged,
    refused,
)
from procman.kernel import complain
from procman.procfile import Procfile, parse_procfile
from procman.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing's own constant would be an import on the start path
    from typing import Any

    from procman.environment import Binding, EnvFile

MAX_FILE_BYTES = 16 * 1024 * 1024
"""No file of ours is that long; without a bound a wrong name could fill the memory."""

MAX_SETTINGS_BYTES = 1024 * 1024
"""Of a settings file: its reader takes seconds for a megabyte."""

STDIN = "-"
STDIN_NAME = "standard input"  # in messages

SETTINGS_FILES = ("procman.toml", "pyproject.toml", ".foreman")
"""In the root, in order of precedence."""

# In this order they are told, and the first gives the exit code.
KINDS: Sequence[type[ProcmanError]] = (ProcfileError, EnvironmentFileError, MissingFileError, ConfigError, UsageMistake)


class Finding(NamedTuple):
    """Something about the input as it counts for this run, and the error it is if it stops the run."""

    problem: Problem  # REFUSED, WARNING or NOTE
    kind: type[ProcmanError]
    is_lowered: bool  # it would stop the run but for `--lenient`


def control_directory(given: Mapping[str, Any]) -> str:
    """Return where the supervisors of the Procfile that the options name have their sockets; no file is read."""
    from procman.control.directory import NAME

    procfile = given.get("procfile") or ""
    beside = os.path.dirname(procfile) if procfile not in ("", STDIN) else given.get("root") or ""
    return os.path.join(_absolute(beside or "."), NAME)


class App(NamedTuple):
    """What the files and options say, before any formation."""

    settings: Settings
    env_files: tuple[EnvFile, ...]
    dotenv: Mapping[str, Binding]
    procfile: Procfile
    findings: tuple[Finding, ...]
    texts: Mapping[str, bytes]  # Procfile and env files, by the path in their messages
    notes: tuple[str, ...]  # which files were read, where that could surprise
    is_verbose: bool
    once: Mapping[str, bytes]  # what came from a pipe or the like, by the path given: it cannot be read again


class Origin(NamedTuple):
    """What `start` was called with, and in which directory: what is needed to read its files again."""

    given: Mapping[str, Any]  # `input_options` by name
    names: Sequence[str]
    options: Mapping[str, Any]  # of the command itself
    control_directory: str
    directory_fd: int = -1  # paths are relative to it; -1 where there is none


def said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of a command that are settings, by key."""
    return {key: options[key] for key in SETTINGS if options.get(key) not in (None, ())}


def load_app(
    given: Mapping[str, Any], options: Mapping[str, Any] | None = None, once: Mapping[str, bytes] | None = None
) -> App:
    """Return what `read_app` reads. Raises every error of all files at once."""
    app = read_app(given, options, once)
    raise_refused(app.findings)
    return app


def raise_refused(findings: Iterable[Finding]) -> None:
    """Raise one error for all of `findings` that stop the run, with the exit code of the first."""
    if bad := [finding for finding in findings if finding.problem.severity == REFUSED]:
        raise bad[0].kind.of(finding.problem for finding in bad)


def said_of_input(app: App) -> list[str]:
    """Return what a run tells of its input: each line that only `--lenient` let pass; the warnings, or their number."""
    warnings = [finding for finding in app.findings if finding.problem.severity == WARNING]
    if app.is_verbose:
        return [*app.notes, *overridden(app), *(str(finding.problem) for finding in warnings)]
    lowered = [str(finding.problem) for finding in warnings if finding.is_lowered]
    others = [finding.problem.source.path for finding in warnings if not finding.is_lowered]
    counted = [f"{path}: {others.count(path)} warnings — `procman check` shows them" for path in dict.fromkeys(others)]
    return [*app.notes, *lowered, *(text.replace(" 1 warnings", " 1 warning") for text in counted)]


def overridden(app: App) -> list[str]:
    """Name the variables of which `.env` and the caller say different things."""
    names = sorted(name for name, found in app.dotenv.items() if os.environ.get(name, found.value) != found.value)
    files = ", ".join(file.path for file in app.env_files)
    winner, loser = (files, "your environment") if app.settings.dotenv_wins else ("your environment", files)
    return [f"{winner} overrides {', '.join(names)} of {loser}"] if names else []


def read_app(
    given: Mapping[str, Any], options: Mapping[str, Any] | None = None, once: Mapping[str, bytes] | None = None
) -> App:
    """Read all files, whatever is wrong with them.

    `given` are the `input_options` by name, `options` those of the command itself by key of SETTINGS. `once` is that of
    the App before, when they are read again: nothing blocks then, and a type that only an option names may be gone.

    Raises MissingFileError if there is no root, UsageMistake where standard input would be read twice.
    """
    said = {key: given[key] for key in SETTINGS if key in given} | dict(options or {})
    if given.get("no_port"):
        said["port"] = None
    shown_root = given.get("root") or os.path.dirname(given.get("procfile") or "")
    root = _absolute(shown_root or ".")
    if fault := _no_directory(root):
        hint = "give another one with -d" if given.get("root") else "the directory of -f is the root"
        raise MissingFileError(fault, source=SourceRef(shown_root or root), hint=hint)
    reading = _Reading(shown_root, once)
    settings = resolve_settings(root, options=said, caller=os.environ, files=reading.settings_files())
    env_files = reading.env_files(settings)
    dotenv = _merged(env_files)
    settings = with_dotenv(settings, dotenv, os.environ)
    reading.found(ConfigError, settings.problems)
    procfile = reading.procfile(settings)
    # Of a Procfile that cannot be read it is not known which types it has.
    if procfile.types and not refused(procfile.problems, given.get("lenient", False)):
        for problem in capped(name_problems(settings, [entry.name for entry in procfile.types]), "settings"):
            is_option = problem.source.path.startswith("-")
            if once is None or not (is_option or problem.source.path.startswith("PROCMAN_")):
                reading.found(UsageMistake if is_option else ConfigError, [problem])
    findings = _judged(reading.problems, given.get("lenient", False), given.get("strict", False))
    return App(
        settings,
        env_files,
        dotenv,
        procfile,
        findings,
        reading.texts,
        tuple(reading.notes),
        given.get("verbose", False),
        reading.once,
    )


def _judged(problems: Mapping[type[ProcmanError], list[Problem]], lenient: bool, strict: bool) -> tuple[Finding, ...]:
    return tuple(
        Finding(problem, kind, lenient and original.severity == AMBIGUOUS)
        for kind in KINDS
        for original, problem in zip(problems[kind], judged(problems[kind], lenient, strict), strict=True)
    )


class _Reading:
    """The files of one run, each opened once, and what is wrong with them."""

    def __init__(self, shown_root: str, once: Mapping[str, bytes] | None) -> None:
        self._shown_root = shown_root  # as the user named it, for messages
        self._kept = once  # what was read before; None: these are read for the first time
        self.once: dict[str, bytes] = {}
        self._has_read_stdin = False
        self.problems: dict[type[ProcmanError], list[Problem]] = {kind: [] for kind in KINDS}
        self.notes: list[str] = []
        self.texts: dict[str, bytes] = {}

    def found(self, kind: type[ProcmanError], problems: Iterable[Problem]) -> None:
        self.problems[kind] += problems

    def settings_files(self) -> list[SettingsFile]:
        files = []
        for name in SETTINGS_FILES:
            path = os.path.join(self._shown_root, name)
            # A directory .foreman is where Foreman keeps the user's own templates.
            if not os.path.lexists(path) or (name == ".foreman" and os.path.isdir(path)):
                continue
            data = self._read(path, "procman reads its settings there")
            # Most projects have a pyproject.toml that knows nothing of procman: those do not pay for the parser.
            if data is None or (name == "pyproject.toml" and b"procman" not in data):
                continue
            if len(data) > MAX_SETTINGS_BYTES:
                self._too_long(path, MAX_SETTINGS_BYTES)
                continue
            from procman.settings_files import parse_settings

            files.append(parse_settings(data, path))
        return files

    def env_files(self, settings: Settings) -> tuple[EnvFile, ...]:
        paths = self._env_paths(settings)
        if not paths:
            return ()
        from procman.environment import interpolate, is_disabled, parse_env

        origin = settings.origin("env_files")
        if origin != SETTINGS["env"].option and is_disabled(os.environ):
            self.notes.append(f"PYTHON_DOTENV_DISABLED is set, so {', '.join(paths)} is not read")
            return ()
        hint = "-e /dev/null reads none" if origin == DEFAULT else f"given with {origin}"
        texts = [(path, self._read(path, hint)) for path in paths]
        files = [
            parse_env(data, _shown(path), settings.env_encoding, interpolates=settings.interpolates)
            for path, data in texts
            if data is not None
        ]
        files = interpolate(files, os.environ, dotenv_wins=settings.dotenv_wins)
        for file in files:
            self.found(EnvironmentFileError, file.problems)
        return tuple(files)

    def _env_paths(self, settings: Settings) -> tuple[str, ...]:
        if settings.env_files:
            return settings.env_files
        default = os.path.join(self._shown_root, ".env")
        if not os.path.lexists(default):
            return ()
        if self._shown_root and os.path.exists(".env") and not os.path.samefile(".env", default):
            self.notes.append(f"reading {default}, not the .env of this directory")
        return (default,)

    def procfile(self, settings: Settings) -> Procfile:
        origin = settings.origin("procfile")
        if origin == SETTINGS["procfile"].option:
            path, hint = settings.procfile, "given with -f"
        else:
            path = os.path.join(self._shown_root, settings.procfile)
            path = f"./{path}" if path == STDIN else path  # only the option means standard input
            hint = "give its path with -f" if origin == DEFAULT else f"named by {origin}"
        data = self._read(path, hint)
        if data is None:
            return Procfile(path, (), ())
        procfile = parse_procfile(data, _shown(path))
        self.found(ProcfileError, procfile.problems)
        return procfile

    def _read(self, path: str, hint: str) -> bytes | None:
        """Return a file's bytes, or None with a problem. Read once, for it may be a pipe."""
        is_regular = self._kept is None or path not in self._kept
        if path != STDIN and path in self.texts:
            return self.texts[path]
        try:
            if self._kept is not None and path in self._kept:
                data = self._kept[path]
            elif self._kept is not None and path != STDIN:
                data = read_regular(path)
            elif path != STDIN:
                with _patience(path), open(path, "rb") as file:
                    data = file.read(MAX_FILE_BYTES + 1)
                    is_regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            elif self._has_read_stdin:
                raise UsageMistake("standard input can be read only once", hint='give "-" to one of -f and -e')
            else:
                self._has_read_stdin = True
                with open(0, "rb", closefd=False) as file:
                    data = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            self.found(MissingFileError, [_missing(_reason(error, path), path, hint)])
            return None
        if len(data) > MAX_FILE_BYTES:
            self._too_long(path, MAX_FILE_BYTES)
            return None
        if path == STDIN or not is_regular:
            self.once[path] = data
        self.texts[_shown(path)] = data
        return data

    def _too_long(self, path: str, limit: int) -> None:
        problem = _missing(f"more than {limit // 2**20} MiB", path, "is this the right file?")
        self.found(MissingFileError, [problem])


class _NotAgain(ValueError):
    """It is no regular file."""


def read_regular(path: str) -> bytes:
    """Return the bytes of a file that is read again. Raises OSError, and _NotAgain for a pipe: it could block."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _NotAgain
        return file.read(MAX_FILE_BYTES + 1)


def _missing(message: str, path: str, hint: str) -> Problem:
    return Problem(REFUSED, message, SourceRef(_shown(path)), hint)


def _shown(path: str) -> str:
    return STDIN_NAME if path == STDIN else path or '""'


def _reason(error: OSError | ValueError, path: str) -> str:
    if isinstance(error, _NotAgain):
        return "no regular file, so it cannot be read again"
    if isinstance(error, ValueError) or not error.errno:
        return "not a file name"
    if error.errno == errno.ENOENT:
        return "a link that leads to no file" if os.path.islink(path) else "no such file"
    return os.strerror(error.errno).lower()


def _no_directory(path: str) -> str:
    """Say why `path` is no directory to be in, or return ''."""
    try:
        return "" if stat.S_ISDIR(os.stat(path).st_mode) else "not a directory"
    except FileNotFoundError:
        return "no such directory"
    except OSError as error:
        return os.strerror(error.errno or 0).lower()


PATIENCE_S = 2.0


@contextmanager
def _patience(path: str) -> Iterator[None]:
    """Tell the user what we wait for if `path` is a FIFO and nobody writes to it for a while."""
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        yield
        return
    import signal

    handler = signal.signal(signal.SIGALRM, lambda *_: complain(f"procman: waiting for somebody to write {path}"))
    timer = signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _merged(files: Sequence[EnvFile]) -> Mapping[str, Binding]:
    if not files:
        return {}
    from procman.environment import merged

    return merged(files)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:  # getcwd(2): it was deleted under us
        raise MissingFileError("the working directory is gone", hint="change to one that exists, or give -d") from None


def wants_colour(choice: str, is_terminal: bool) -> bool:
    """Tell whether to colour what is written: `choice` is always, never or auto."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):  # no-color.org: set and not empty
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("0", ""):
        return True
    return is_terminal and os.environ.get("TERM", "") not in ("", "dumb")


def enter(root: str) -> None:
    """Change to the root, once for all processes. Raises MissingFileError."""
    try:
        os.chdir(root)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise MissingFileError(f"{root}: {reason}", hint="the processes run there; give another one with -d") from None
