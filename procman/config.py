"""One settings record for a run, and where each value came from. The rules are in docs/configuration.md.

Option > `PROCMAN_*` of the caller > procman.toml or [tool.procman] > .foreman > default. Nothing here opens a file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from procman.errors import (
    NOTE,
    REFUSED,
    WARNING,
    ConfigError,
    Problem,
    SourceRef,
    capped,
    did_you_mean,
    quoted,
    read_text,
)
from procman.ports import DEFAULT_BASE, DEFAULT_STEP, MAX_PORT

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
    env: Mapping[str, str] = NOTHING


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
    processes: Mapping[str, ProcessSettings] = NOTHING
    origins: Mapping[str, str] = NOTHING  # field -> "-p", "PROCMAN_PORT", "procman.toml:3"; DEFAULT if missing
    problems: tuple[Problem, ...] = ()  # warnings and notes: what is wrong was raised

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


class _Sourced(Protocol):
    """A binding of `.env`."""

    @property
    def value(self) -> str: ...
    @property
    def source(self) -> SourceRef: ...


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


def _duration(value: Any) -> float:
    """Return seconds from "10s", "500ms", "2m", "1h", or a number of seconds."""
    if isinstance(value, str):
        parts = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|)", value)
        if parts is None:
            raise ValueError
        return float(parts[1]) * _UNITS[parts[2]]
    if type(value) not in (int, float) or not (0 <= value <= 1e9 or value == float("inf")):
        raise ValueError
    return float(value)


_FLAGS = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)


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

    return _Kind(f"one of {', '.join(known)}", check, check)


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


def _variables(value: Any) -> Mapping[str, str]:
    for name, text in _exactly(dict, value).items():
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_.]*", name) or "\0" in _exactly(str, text):
            raise ValueError
    return dict(value)


_PORT = _Kind(
    f"a number from 1 to {MAX_PORT}, or false for no ports",
    lambda word: None if word in ("false", "none") else _number(1, word),
    lambda value: None if value is False else _whole(1, value),
)
_STEP = _Kind(f"a number from 1 to {MAX_PORT}", lambda word: _number(1, word), lambda value: _whole(1, value))
_SECONDS = _Kind('a number of seconds from 0 up, or a time such as "10s", "500ms", "2m"', _duration, _duration)
_FLAG = _Kind("true or false", lambda word: _FLAGS[word.lower()], lambda value: _exactly(bool, value))
_LIST = _Kind('words such as "a,b", or a list of strings', _words, _listed)
_COUNTS = _Kind('counts such as "web=2,worker=4", or a table of numbers', str, _formation)
_TEXT = _Kind("a string", str, lambda value: _exactly(str, value))
_FILE = _Kind("a file inside the root", _inside_root, _inside_root)
_ON_EXIT = _one_of("stop", "fail", "ignore")


class _Setting(NamedTuple):
    field: str  # of Settings or ProcessSettings
    kind: _Kind
    option: str = ""  # how messages name the option


SETTINGS: Mapping[str, _Setting] = {
    "procfile": _Setting("procfile", _FILE, "-f"),
    "env": _Setting("env_files", _LIST, "-e"),
    "formation": _Setting("formation", _COUNTS, "-m"),
    "port": _Setting("base_port", _PORT, "-p"),
    "port_step": _Setting("port_step", _STEP, "--port-step"),
    "grace": _Setting("grace_s", _SECONDS, "-t"),
    "override": _Setting("dotenv_wins", _FLAG, "--no-override"),
    "on_exit": _Setting("on_exit", _ON_EXIT, "--on-exit"),
    "can_die": _Setting("can_die", _LIST, "--can-die"),
    "restart": _Setting("restart", _LIST, "--restart"),
    "quiet": _Setting("quiet", _LIST, "-q"),
    "color": _Setting("color", _one_of("auto", "always", "never"), "--color"),
    "timestamp": _Setting("timestamp", _FLAG, "--no-timestamp"),
    "prefix": _Setting("prefix", _FLAG, "--no-prefix"),
    "interpolate": _Setting("interpolates", _FLAG, "--interpolate"),
    "env_encoding": _Setting("env_encoding", _TEXT, "--env-encoding"),
}
"""The settings by their key in procman.toml; PROCMAN_ and the key in upper case is the variable."""

PROCESS_SETTINGS: Mapping[str, _Setting] = {
    "restart": _Setting("restart", _one_of("no", "on-failure", "always")),
    "on_exit": _Setting("on_exit", _ON_EXIT),
    "grace": _Setting("grace_s", _SECONDS),
    "stop_signal": _Setting("stop_signal", _Kind('a signal such as "INT"', _signal, _signal)),
    "env": _Setting("env", _Kind("a table of NAME = string", str, _variables)),
}

FOREMAN_KEYS = {key: key for key in ("procfile", "env", "formation", "port", "timestamp")} | {"timeout": "grace"}
FOREMAN_EXPORT_KEYS = ("app", "log", "run", "template", "user")
"""Keys of .foreman that mean something to `export` alone."""

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
    """Return the settings of a run. Raises ConfigError that tells everything wrong in all places at once.

    `options` are by key of SETTINGS, already of the right type, and only those that were given (port None: --no-port).
    `files` come in order of precedence. Paths of env files in a settings file are relative to `root`.
    """
    given = {SETTINGS[key].field: Given(value, SETTINGS[key].option) for key, value in options.items()}
    layers = [SettingsFile("", given), read_caller(caller), *(_rooted(file, root) for file in files)]
    problems = [problem for layer in layers for problem in layer.problems]
    if bad := [problem for problem in problems if problem.severity == REFUSED]:
        raise ConfigError.of(bad)
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
        problems=tuple(problems),
    )


def _rooted(file: SettingsFile, root: str) -> SettingsFile:
    env_files = file.values.get("env_files")
    if env_files is None:
        return file
    paths = tuple(posixpath.join(root, path) for path in env_files.value)
    return file._replace(values={**file.values, "env_files": env_files._replace(value=paths)})


def with_dotenv(settings: Settings, dotenv: Mapping[str, _Sourced], caller: Mapping[str, str]) -> Settings:
    """Return `settings` with the base port from PORT and the Procfile from PROCFILE, where nothing else says them.

    `.env` comes before the caller's environment. Raises ConfigError that tells what is wrong, never the value.
    """
    problems: list[Problem] = []
    for name, key in (("PORT", "port"), ("PROCFILE", "procfile")):
        field, kind, _ = SETTINGS[key]
        bound = dotenv.get(name)
        word = bound.value if bound else caller.get(name, "")
        if settings.origin(field) != DEFAULT or not word:
            continue
        source = bound.source if bound else SourceRef(f"{name} of the environment")
        value = _value(kind, kind.from_word, word)
        if isinstance(value, _Wrong) or value is None:
            expected = f"a number from 1 to {MAX_PORT}" if key == "port" else kind.expected
            problems.append(Problem(REFUSED, f"{name} is not {expected}", source, f"or give {SETTINGS[key].option}"))
            continue
        settings = settings._replace(**{field: value}, origins={**settings.origins, field: str(source)})
    if problems:
        raise ConfigError.of(problems)
    return settings


def name_problems(settings: Settings, names: Iterable[str]) -> list[Problem]:
    """Return the process types that `settings` name and the Procfile, with types `names`, does not have."""
    known = list(names)
    listed = [
        (word, SourceRef(settings.origin(field)))
        for field in ("can_die", "restart", "quiet")
        for word in getattr(settings, field)
        if word != "all" or field != "restart"
    ]
    sections = [(name, process.source) for name, process in settings.processes.items()]
    return [
        Problem(REFUSED, f"unknown process type {quoted(name)}", source, did_you_mean(name, known))
        for name, source in [*listed, *sections]
        if name not in known
    ]


class _Wrong(NamedTuple):
    expected: str


def _value(kind: _Kind, read: Callable[[Any], Any], raw: Any) -> Any:
    """Return the value, or _Wrong."""
    try:
        return read(raw)
    except (ValueError, KeyError):
        return _Wrong(kind.expected)


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
            value = _value(kind, kind.from_word, caller[name])
            if isinstance(value, _Wrong):
                problems.append(Problem(REFUSED, f"expected {value.expected}", SourceRef(name)))
            else:
                values[field] = Given(value, name)
    return SettingsFile("", values, problems=tuple(problems))


# --- procman.toml and pyproject.toml ---------------------------------------------------------------------------------


def parse_settings(data: bytes, path: str) -> SettingsFile:
    """Parse procman.toml, pyproject.toml or .foreman, told apart by name. Never raises: see `problems`."""
    name = posixpath.basename(path)
    # Most projects have a pyproject.toml that knows nothing of procman: those do not pay for the parser.
    if name == "pyproject.toml" and b"procman" not in data:
        return SettingsFile(path, {})
    text, damage = read_text(data, path)
    if damage:
        return SettingsFile(path, {}, problems=tuple(damage))
    if name == ".foreman":
        return _parse_foreman(text, path)
    return _parse_toml(text.replace("\r\n", "\n"), path, ("tool", "procman") if name == "pyproject.toml" else ())


MAX_DOTS = 1000
"""Dots in one line: the TOML parser's time grows with the square of a dotted key's parts."""


def _parse_toml(text: str, path: str, inside: tuple[str, ...]) -> SettingsFile:
    import tomllib  # only for those who have such a file

    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS:
            problem = Problem(REFUSED, f"more than {MAX_DOTS} dots in a line", SourceRef(path, number))
            return SettingsFile(path, {}, problems=(problem,))
    try:
        table: Any = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at ")
        # At the end of the text it names no line.
        numbers = [int(number) for number in re.findall("[0-9]+", place)] or [text.rstrip("\n").count("\n") + 1]
        source = SourceRef(path, *numbers[:2])
        return SettingsFile(path, {}, problems=(Problem(REFUSED, f"not TOML: {what}", source),))
    except (ValueError, RecursionError):  # a number of 5,000 digits, or as many brackets
        return SettingsFile(path, {}, problems=(Problem(REFUSED, "not TOML that can be read", SourceRef(path)),))
    lines = _toml_lines(text)
    for at, key in enumerate(inside, 1):
        table = table.get(key, {})
        if not isinstance(table, dict):
            source = _source(path, lines, inside[:at])
            return SettingsFile(path, {}, problems=(Problem(REFUSED, f"{key} is no table", source),))
    return _settings_of(table, path, lines, inside)


_Lines = Mapping[tuple[str, ...], int]


def _settings_of(table: dict[str, Any], path: str, lines: _Lines, inside: tuple[str, ...]) -> SettingsFile:
    values: dict[str, Given] = {}
    processes: dict[str, ProcessSettings] = {}
    own = {key: value for key, value in table.items() if key != "process"}
    problems = [
        *capped(_fields(own, SETTINGS, path, lines, inside, values), path),
        *capped(_sections(table.get("process", {}), path, lines, (*inside, "process"), processes), path),
    ]
    return SettingsFile(path, values, processes, tuple(problems))


def _sections(
    sections: Any, path: str, lines: _Lines, inside: tuple[str, ...], processes: dict[str, ProcessSettings]
) -> Iterator[Problem]:
    """Put what each [process.NAME] says into `processes`; yield what is wrong."""
    if not isinstance(sections, dict):
        yield Problem(REFUSED, "process is no table", _source(path, lines, inside), "write [process.web]")
        return
    for name, section in sections.items():
        source = _source(path, lines, (*inside, name))
        if not isinstance(section, dict):
            yield Problem(REFUSED, f"process.{name[:60]} is no table", source, "write [process.web]")
            continue
        fields: dict[str, Given] = {}
        yield from _fields(section, PROCESS_SETTINGS, path, lines, (*inside, name), fields)
        processes[name] = ProcessSettings(source, **{field: given.value for field, given in fields.items()})


def _fields(
    table: dict[str, Any],
    known: Mapping[str, _Setting],
    path: str,
    lines: _Lines,
    inside: tuple[str, ...],
    fields: dict[str, Given],
) -> Iterator[Problem]:
    """Put the values of one TOML table into `fields`; yield what is wrong."""
    for key, raw in table.items():
        source = _source(path, lines, (*inside, key))
        if key not in known:
            yield Problem(REFUSED, f"unknown key {quoted(key)}", source, did_you_mean(key, known))
            continue
        field, kind, _ = known[key]
        value = _value(kind, kind.from_toml, raw)
        if isinstance(value, _Wrong):
            yield Problem(REFUSED, f"{key}: expected {value.expected}", source)
        else:
            fields[field] = Given(value, str(source))


_TOML_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_TOML_KEYS = rf"{_TOML_PART}(?:[ \t]*\.[ \t]*{_TOML_PART})*"
_TOML_LINE = rf"[ \t]*(?:(\[\[?)[ \t]*({_TOML_KEYS})|({_TOML_KEYS})[ \t]*=)"


def _toml_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of each key, for messages: tomllib does not tell. A string of many lines may mislead it."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        if found := re.match(_TOML_LINE, line):
            parts = tuple(part.strip("\"'") for part in re.findall(_TOML_PART, found[2] or found[3]))
            key = parts if found[1] else table + parts
            if found[1]:
                table = parts
            for end in range(1, len(key) + 1):
                lines.setdefault(key[:end], number)
    return lines


def _source(path: str, lines: _Lines, key: tuple[str, ...]) -> SourceRef:
    """Return the line of `key`, or of the nearest table around it that has one."""
    while key and key not in lines:
        key = key[:-1]
    return SourceRef(path, lines.get(key, 0))


# --- .foreman --------------------------------------------------------------------------------------------------------

MAX_LINE = 10_000
"""Characters of a line in .foreman: the search for a comment takes time that grows with the square of its blanks."""

_YAML_LINE = (
    r"""([A-Za-z_-]+)[ \t]*:(?:[ \t]+|$)(?:"([^"\\]*)"|'([^']*)'|([^"'\[{&*!|>%@`#].*?)|)(?:[ \t]*$|[ \t]+#.*)"""
)


def _parse_foreman(text: str, path: str) -> SettingsFile:
    """Read the flat part of YAML that Foreman's settings need: `key: value`, comments, quotes."""
    values: dict[str, Given] = {}
    problems = capped(_foreman_lines(text.replace("\r\n", "\n").split("\n"), path, values), path)
    return SettingsFile(path, values, problems=tuple(problems))


def _foreman_lines(lines: Iterable[str], path: str, values: dict[str, Given]) -> Iterator[Problem]:
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#") or line.rstrip() in ("---", "..."):
            continue
        found = re.fullmatch(_YAML_LINE, line) if len(line) <= MAX_LINE else None
        source = SourceRef(path, number)
        if found is None:
            yield Problem(REFUSED, "not a plain setting", source, 'write "key: value"')
            continue
        word = next((group for group in found.groups()[1:] if group is not None), "")
        yield from _foreman_setting(found[1], word, source, values)


def _foreman_setting(key: str, word: str, source: SourceRef, values: dict[str, Given]) -> Iterator[Problem]:
    """Put one setting into `values`; yield what is wrong with it."""
    if key in FOREMAN_EXPORT_KEYS or (key == "root" and word in (".", "./")):
        return
    if key == "root":
        yield Problem(REFUSED, "the root is fixed before this file is read", source, "give it with -d")
    elif key == "color":
        # Foreman's option forces colours; without it a terminal decides.
        values["color"] = Given("always" if _FLAGS.get(word.lower()) else "auto", str(source))
    elif key not in FOREMAN_KEYS:
        yield Problem(REFUSED, f"unknown key {quoted(key)}", source, did_you_mean(key, FOREMAN_KEYS))
    elif word:
        field, kind, _ = SETTINGS[FOREMAN_KEYS[key]]
        value = _value(kind, kind.from_word, word)
        if isinstance(value, _Wrong):
            yield Problem(REFUSED, f"{key}: expected {value.expected}", source)
        elif field in values:
            yield Problem(REFUSED, f"{quoted(key)} is given twice", source, f"the other is {values[field].origin}")
        else:
            values[field] = Given(value, str(source))
