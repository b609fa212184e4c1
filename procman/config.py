"""One settings record for a run, and where each value came from. The rules are in docs/configuration.md.

Option > `PROCMAN_*` of the caller > procman.toml or [tool.procman] > .foreman > default. Nothing here opens a file; the
readers of settings files are in settings_files.py.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from procman.errors import (
    NOTE,
    REFUSED,
    WARNING,
    Problem,
    SourceRef,
    did_you_mean,
    quoted,
)
from procman.ports import DEFAULT_BASE, DEFAULT_STEP, MAX_PORT
from procman.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing's own constant would be an import on the start path
    from typing import Any, Protocol

    from procman.readiness import Probe

    class _Sourced(Protocol):
        """A binding of `.env`."""

        @property
        def value(self) -> str: ...
        @property
        def source(self) -> SourceRef: ...


DEFAULT = "default"
"""The origin of a value that nobody gave."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


class ProcessSettings(NamedTuple):
    """What `[process.NAME]` says; None where it says nothing."""

    source: SourceRef
    restart: str | None = None  # "no", "on-failure" or "always"
    on_exit: str | None = None  # "stop", "fail" or "ignore"
    grace_s: float | None = None  # inf: never killed
    stop_signal: int | None = None
    success_codes: tuple[int, ...] = ()  # exit codes that are no failure, besides 0
    env: Mapping[str, str] = NOTHING
    ready: Probe | None = None  # None: ready as soon as it runs
    liveness: Probe | None = None
    needs: tuple[str, ...] | None = None  # process types, and variables that name backing services
    watch: tuple[str, ...] = ()  # patterns of files, relative to the root
    phase: str | None = None  # "release": runs to its end before the rest, and only when asked
    sources: Mapping[str, SourceRef] = NOTHING  # of each field that was given, and of each `env.NAME`

    def source_of(self, field: str) -> SourceRef:
        """Return the line that says `field`."""
        return self.sources.get(field, self.source)


class Settings(NamedTuple):
    """What the user decided for this run."""

    root: str  # absolute
    base_port: int | None = DEFAULT_BASE  # None: no instance gets a port
    port_step: int = DEFAULT_STEP
    grace_s: float = 5.0  # 0: killed at once, inf: never
    dotenv_wins: bool = True  # False: a variable of the caller's beats the same name in `.env`
    on_exit: str = "stop"  # what an instance's end means for the run, for types not named below
    can_die: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    procfile: str = "Procfile"  # inside root; an option may name any path
    env_files: tuple[str, ...] = ()  # (): the root's `.env`, if there is one
    formation: str | None = None  # as after -m
    quiet: tuple[str, ...] = ()
    color: str = "auto"
    timestamp: bool = True
    prefix: bool = True
    interpolates: bool = False
    env_encoding: str = "utf-8"
    log_memory: int = 64 * 1024  # bytes of output kept of each instance, for `procman logs`
    log_memory_total: int = 16 * 1024 * 1024  # and of all together
    log_bytes: int = 10 * 2**20  # of each file of `start --detach`
    log_files: int = 5  # with the one that is written to
    needs_within_s: float = 60.0  # so long a backing service is waited for; inf: for ever
    processes: Mapping[str, ProcessSettings] = NOTHING
    origins: Mapping[str, str] = NOTHING  # field -> "-p", "PROCMAN_PORT", "procman.toml:3"; DEFAULT if missing
    problems: tuple[Problem, ...] = ()  # of any severity: what is wrong is not among the values

    def origin(self, field: str) -> str:
        """Return where the value of `field` came from."""
        return self.origins.get(field, DEFAULT)


class Given(NamedTuple):
    """A value that somebody gave for a setting."""

    value: Any
    origin: str


class SettingsFile(NamedTuple):
    """All that was read of one settings file, or of the caller's environment; `values` are by field of Settings."""

    path: str
    values: Mapping[str, Given]
    processes: Mapping[str, ProcessSettings] = NOTHING
    problems: tuple[Problem, ...] = ()


# --- the kinds of values ---------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """How a value is read: from a word (`PROCMAN_*`, .foreman), or from what TOML has already typed."""

    expected: str
    from_word: Callable[[str], Any]  # raises ValueError or KeyError
    from_toml: Callable[[Any], Any]  # likewise


def _number(low: int, word: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", word) or not low <= int(word) <= MAX_PORT:
        raise ValueError
    return int(word)


def _whole(low: int, value: Any) -> int:
    if type(value) is not int or not low <= value <= MAX_PORT:  # True is an int
        raise ValueError
    return value


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def duration(value: Any) -> float:
    """Return seconds from "10s", "500ms", "2m", "1h", or a number of seconds."""
    if value == "inf":
        return float(value)
    if isinstance(value, str):
        parts = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|)", value)
        if parts is None:
            raise ValueError
        return float(parts[1]) * _UNITS[parts[2]]
    if type(value) not in (int, float) or not (0 <= value <= 1e9 or value == float("inf")):
        raise ValueError
    return float(value)


_SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def _size(least: int, value: Any) -> int:
    """Return bytes from "64KiB", "10M", "1 GB", or a number of bytes; units are powers of 1024."""
    if isinstance(value, str):
        parts = re.fullmatch(r"([0-9]{1,12}) ?([kKMG]?)(?:i?B)?", value)
        value = int(parts[1]) * _SIZES[parts[2].upper()] if parts else -1
    if type(value) is not int or not least <= value <= 1024**4:
        raise ValueError
    return value


FLAGS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError
    return value


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _listed(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return _words(value)
    return tuple(_exactly(str, word) for word in _exactly(list, value))


def _one_of(*known: str) -> _Kind:
    def check(value: Any) -> str:
        if value not in known:
            raise ValueError
        return str(value)

    return _Kind(f"one of {', '.join(known)}" if len(known) > 1 else quoted(known[0]), check, check)


def _formation(value: Any) -> str:
    if isinstance(value, str):
        return value
    return ",".join(f"{name}={_whole(0, count)}" for name, count in _exactly(dict, value).items())


def _inside_root(value: Any) -> str:
    path = posixpath.normpath(_exactly(str, value) or ".")
    if path.startswith(("/", "../")) or path in (".", "..") or "\0" in path:
        raise ValueError
    return path


def _signal(value: Any) -> int:
    import signal

    if isinstance(value, str):
        return int(signal.Signals[value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"])
    return int(signal.Signals(_exactly(int, value)))


VARIABLE = "[A-Za-z_][A-Za-z0-9_.]*"


def _variables(value: Any) -> Mapping[str, str]:
    for name, text in _exactly(dict, value).items():
        if not re.fullmatch(VARIABLE, name) or "\0" in _exactly(str, text):
            raise ValueError
    return dict(value)


_PORT = _Kind(
    f"a number from 1 to {MAX_PORT}, or false for no ports",
    lambda word: None if word in ("false", "none") else _number(1, word),
    lambda value: None if value is False else _whole(1, value),
)
_SECONDS = _Kind('a number of seconds from 0 up, or a time such as "10s", "500ms", "2m"', duration, duration)
_SIZE = _Kind('a size such as "64KiB" or "16MiB"', lambda value: _size(0, value), lambda value: _size(0, value))
_FILE_SIZE = _Kind('a size such as "10MiB", from 4096 bytes up', *[lambda value: _size(4096, value)] * 2)
_COUNT = _Kind(f"a number from 1 to {MAX_PORT}", lambda word: _number(1, word), lambda value: _whole(1, value))
_FLAG = _Kind("true or false", lambda word: FLAGS[word.lower()], lambda value: _exactly(bool, value))


def _codes(value: Any) -> tuple[int, ...]:
    if not all(type(code) is int and 0 <= code <= 255 for code in _exactly(list, value)):
        raise ValueError
    return tuple(value)


def _patterns(value: Any) -> tuple[str, ...]:
    """Return glob patterns of files inside the root."""
    patterns = tuple(_exactly(str, pattern) for pattern in _exactly(list, value))
    for pattern in patterns:
        if not pattern.strip() or "\0" in pattern or pattern.startswith("/") or ".." in pattern.split("/"):
            raise ValueError
    return patterns


_LIST = _Kind('words such as "a,b", or a list of strings', _words, _listed)
_COUNTS = _Kind('counts such as "web=2,worker=4", or a table of numbers', str, _formation)
_TEXT = _Kind("a string", str, lambda value: _exactly(str, value))
_FILE = _Kind("a file inside the root", _inside_root, _inside_root)
_ON_EXIT = _one_of("stop", "fail", "ignore")
_NAMES = _Kind('a list of process types and variables, such as ["DATABASE_URL", "assets"]', _words, _listed)
_PATTERNS = _Kind('a list of patterns of files inside the root, such as ["**/*.py", "templates/**"]', _words, _patterns)
VARIABLES_OF_TYPE = _Kind("a table of NAME = string", str, _variables)
PROBE = _Kind("a table", str, str)  # never read as it is: probe_settings.py knows how


class Setting(NamedTuple):
    field: str  # of Settings or ProcessSettings
    kind: _Kind
    option: str = ""  # how messages name the option


SETTINGS: Mapping[str, Setting] = {
    "procfile": Setting("procfile", _FILE, "-f"),
    "env": Setting("env_files", _LIST, "-e"),
    "formation": Setting("formation", _COUNTS, "-m"),
    "port": Setting("base_port", _PORT, "-p"),
    "port_step": Setting("port_step", _COUNT, "--port-step"),
    "grace": Setting("grace_s", _SECONDS, "-t"),
    "override": Setting("dotenv_wins", _FLAG, "--no-override"),
    "on_exit": Setting("on_exit", _ON_EXIT, "--on-exit"),
    "can_die": Setting("can_die", _LIST, "--can-die"),
    "restart": Setting("restart", _LIST, "--restart"),
    "quiet": Setting("quiet", _LIST, "-q"),
    "color": Setting("color", _one_of("auto", "always", "never"), "--color"),
    "timestamp": Setting("timestamp", _FLAG, "--no-timestamp"),
    "prefix": Setting("prefix", _FLAG, "--no-prefix"),
    "interpolate": Setting("interpolates", _FLAG, "--interpolate"),
    "log_size": Setting("log_bytes", _FILE_SIZE),
    "log_files": Setting("log_files", _COUNT),
    "env_encoding": Setting("env_encoding", _TEXT, "--env-encoding"),
    "log_memory": Setting("log_memory", _SIZE),
    "log_memory_total": Setting("log_memory_total", _SIZE),
    "needs_within": Setting("needs_within_s", _SECONDS),
}
"""The settings by their key in procman.toml; PROCMAN_ and the key in upper case is the variable."""

PROCESS_SETTINGS: Mapping[str, Setting] = {
    "restart": Setting("restart", _one_of("no", "on-failure", "always")),
    "on_exit": Setting("on_exit", _ON_EXIT),
    "grace": Setting("grace_s", _SECONDS),
    "success_codes": Setting(
        "success_codes", _Kind("a list of exit codes from 0 to 255, such as [143]", _codes, _codes)
    ),
    "stop_signal": Setting("stop_signal", _Kind('a signal such as "INT"', _signal, _signal)),
    "env": Setting("env", VARIABLES_OF_TYPE),
    "ready": Setting("ready", PROBE),
    "liveness": Setting("liveness", PROBE),
    "needs": Setting("needs", _NAMES),
    "watch": Setting("watch", _PATTERNS),
    "phase": Setting("phase", _one_of("release")),
}

VARIABLES = {f"PROCMAN_{key.upper()}": key for key in SETTINGS if key != "env"} | {"PROCMAN_ENV_FILES": "env"}
IDENTITY = ("PROCMAN_PROCESS", "PROCMAN_PROCESS_TYPE", "PROCMAN_INSTANCE", "PROCMAN_RUN")
"""What procman gives its children. It finds them in its own environment when one of them runs procman."""


# --- from everything to one record -----------------------------------------------------------------------------------


def resolve_settings(
    root: str,
    *,
    options: Mapping[str, Any] = NOTHING,
    caller: Mapping[str, str] = NOTHING,
    files: Sequence[SettingsFile] = (),
) -> Settings:
    """Return the settings of a run. Never raises: everything wrong, in all places, stands in `problems`.

    `options` are by key of SETTINGS, already of the right type, and only those that were given (port None: --no-port).
    `files` come in order of precedence. Env files that one of them names are relative to its directory.
    """
    given = {SETTINGS[key].field: Given(value, SETTINGS[key].option) for key, value in options.items()}
    layers = [SettingsFile("", given), read_caller(caller), *(_rooted(file) for file in files)]
    winning: dict[str, Given] = {}
    processes: dict[str, ProcessSettings] = {}
    for layer in reversed(layers):
        winning.update(layer.values)
        processes.update(layer.processes)
    return Settings(
        root,
        **{field: value for field, (value, _) in winning.items()},
        processes=processes,
        origins={field: origin for field, (_, origin) in winning.items()},
        problems=tuple(problem for layer in layers for problem in layer.problems),
    )


def _rooted(file: SettingsFile) -> SettingsFile:
    env_files = file.values.get("env_files")
    if env_files is None:
        return file
    paths = tuple(posixpath.join(posixpath.dirname(file.path), path) for path in env_files.value)
    return file._replace(values={**file.values, "env_files": env_files._replace(value=paths)})


def with_dotenv(settings: Settings, dotenv: Mapping[str, _Sourced], caller: Mapping[str, str]) -> Settings:
    """Return `settings` with the base port from PORT and the Procfile from PROCFILE, where nothing else says them.

    `.env` comes before the caller's environment. What is wrong is added to the problems, never with the value.
    """
    for name, key in (("PORT", "port"), ("PROCFILE", "procfile")):
        field, kind, option = SETTINGS[key]
        bound = dotenv.get(name)
        word = bound.value if bound else caller.get(name, "")
        if settings.origin(field) != DEFAULT or not word:
            continue
        source = bound.source if bound else SourceRef(f"{name} of the environment")
        value = value_of(kind, kind.from_word, word)
        if isinstance(value, Wrong) or value is None:
            expected = f"a number from 1 to {MAX_PORT}" if key == "port" else kind.expected
            problem = Problem(REFUSED, f"{name} is not {expected}", source, f"or give {option}")
            settings = settings._replace(problems=(*settings.problems, problem))
        else:
            settings = settings._replace(**{field: value}, origins={**settings.origins, field: str(source)})
    return settings


def name_problems(settings: Settings, names: Iterable[str]) -> list[Problem]:
    """Return the process types that `settings` name and the Procfile, with types `names`, does not have.

    And those among them that need each other in a circle, and variables of theirs that count for nothing.
    """
    known = list(names)
    types = set(known)
    listed = [
        (word, SourceRef(settings.origin(field)))
        for field in ("can_die", "restart", "quiet")
        for word in getattr(settings, field)
        if word != "all" or field != "restart"
    ]
    if not settings.origin("formation").startswith("-"):  # else formation.py tells it, with all else wrong there
        words = (settings.formation or "").split(",")
        counted = [name for word in words if (name := word.partition("=")[0].strip()) not in ("", "all")]
        listed += [(name, SourceRef(settings.origin("formation"))) for name in counted]
    sections = [(name, process.source) for name, process in settings.processes.items()]
    needs = [
        (need, process.source_of("needs"))
        for process in settings.processes.values()
        for need in process.needs or ()
        if not is_variable(need)
    ]
    return [
        *(
            Problem(REFUSED, f"unknown process type {quoted(name)}", source, did_you_mean(name, known))
            for name, source in [*listed, *sections, *needs]
            if name not in types
        ),
        *_circles(settings.processes, known),
        *_idle_variables(settings),
    ]


def _idle_variables(settings: Settings) -> Iterator[Problem]:
    own = {"PS", "PWD", "HONCHO_PROCESS_NAME", "FOREMAN_WORKER_NAME", *IDENTITY}
    own |= {"PORT"} if settings.base_port is not None else set()
    for process in settings.processes.values():
        for name in process.env:
            if name in own:
                text = f"env: {name} tells an instance who it is, so this counts for nothing"
                hint = "procman gives each its own port" if name == "PORT" else ""
                yield Problem(WARNING, text, process.source_of(f"env.{name}"), hint)


def is_variable(need: str) -> bool:
    """Tell whether a need that is no process type can be the name of a variable; those of the field are upper-case."""
    return re.fullmatch("[A-Z_][A-Z0-9_]*", need) is not None


def _circles(processes: Mapping[str, ProcessSettings], known: Iterable[str]) -> list[Problem]:
    graph = {name: processes[name].needs or () if name in processes else () for name in known}
    if not any(graph.values()):
        return []
    from procman.needs import circles, shown

    return [
        Problem(REFUSED, f"needs go in a circle: {shown(names)}", processes[names[0]].source_of("needs"))
        for names in circles(graph)
    ]


class Wrong(NamedTuple):
    expected: str


def value_of(kind: _Kind, read: Callable[[Any], Any], raw: Any) -> Any:
    """Return the value, or Wrong."""
    try:
        return read(raw)
    except (ValueError, KeyError):
        return Wrong(kind.expected)


# --- the caller's environment ----------------------------------------------------------------------------------------


def read_caller(caller: Mapping[str, str]) -> SettingsFile:
    """Return the settings among the caller's variables. An empty one counts as not set."""
    values: dict[str, Given] = {}
    problems: list[Problem] = []
    for name in sorted(name for name in caller if name.startswith("PROCMAN_") and name not in IDENTITY):
        if name not in VARIABLES:
            hint = did_you_mean(name.removeprefix("PROCMAN_"), (known[8:] for known in VARIABLES))
            is_near = hint.startswith("did")
            severity = WARNING if is_near else NOTE
            hint = hint.replace('"', '"PROCMAN_', 1) if is_near else ""
            problems.append(Problem(severity, "no setting of procman has this name", SourceRef(name), hint))
        elif caller[name]:
            field, kind, _ = SETTINGS[VARIABLES[name]]
            value = value_of(kind, kind.from_word, caller[name])
            if isinstance(value, Wrong):
                problems.append(Problem(REFUSED, f"expected {value.expected}", SourceRef(name)))
            else:
                values[field] = Given(value, name)
    return SettingsFile("", values, problems=tuple(problems))
