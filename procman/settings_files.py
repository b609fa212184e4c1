"""procman.toml, [tool.procman] of pyproject.toml and .foreman to settings. The rules are in docs/configuration.md.

Apart from config.py because most runs have no such file, and do not pay for its reader.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from procman.config import (
    FLAGS,
    PROBE,
    PROCESS_SETTINGS,
    SETTINGS,
    VARIABLE,
    VARIABLES_OF_TYPE,
    Given,
    ProcessSettings,
    Setting,
    SettingsFile,
    Wrong,
    value_of,
)
from procman.errors import REFUSED, Problem, SourceRef, capped, did_you_mean, quoted, read_text

FOREMAN_KEYS = {key: key for key in ("procfile", "env", "formation", "port", "timestamp")} | {"timeout": "grace"}
FOREMAN_EXPORT_KEYS = ("app", "log", "run", "template", "user")
"""Keys of .foreman that mean something to `export` alone."""


# --- procman.toml and pyproject.toml ---------------------------------------------------------------------------------


def parse_settings(data: bytes, path: str) -> SettingsFile:
    """Parse procman.toml, pyproject.toml or .foreman, told apart by name. Never raises: see `problems`."""
    name = posixpath.basename(path)
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
        problem = Problem(REFUSED, f"not TOML: {what}", source, _toml_hint(what, text, *numbers[:2]))
        return SettingsFile(path, {}, problems=(problem,))
    except (ValueError, RecursionError):  # a number of 5,000 digits, or as many brackets
        return SettingsFile(path, {}, problems=(Problem(REFUSED, "not TOML that can be read", SourceRef(path)),))
    lines = _toml_lines(text)
    for at, key in enumerate(inside, 1):
        table = table.get(key, {})
        if not isinstance(table, dict):
            source = _source(path, lines, inside[:at])
            return SettingsFile(path, {}, problems=(Problem(REFUSED, f"{key} is no table", source),))
    return _settings_of(table, path, lines, inside)


_IN_QUOTES = 'text stands in quotes, and so does a time such as "10s"'
_IN_ONE_LINE = "{ … } stands in one line, with no comma at its end; for more write a section, as in [process.web.ready]"
_TOML_HINTS = {
    "Invalid value": _IN_QUOTES,
    "Expected newline or end of document": _IN_QUOTES,
    "Unescaped '\\'": "write the text in single quotes",
    "Unclosed inline table": _IN_ONE_LINE,
}


def _toml_hint(what: str, text: str, line: int, column: int = 0) -> str:
    """Return what to do, for the mistakes that are made most."""
    if what.startswith("Invalid initial character for a key part"):
        found = text.split("\n")[line - 1][column - 1 : column] if column else "?"
        return _IN_ONE_LINE if found in ("", "}") else ""
    return next((hint for start, hint in _TOML_HINTS.items() if what.startswith(start)), "")


_Lines = Mapping[tuple[str, ...], int]


def _settings_of(table: dict[str, Any], path: str, lines: _Lines, inside: tuple[str, ...]) -> SettingsFile:
    values: dict[str, Given] = {}
    processes: dict[str, ProcessSettings] = {}
    own = {key: value for key, value in table.items() if key != "process"}
    problems = [
        *capped(_fields(own, SETTINGS, path, lines, inside, values, (*SETTINGS, "process")), path),
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
        sources = {
            PROCESS_SETTINGS[key].field: _source(path, lines, (*inside, name, key))
            for key in section
            if key in PROCESS_SETTINGS and PROCESS_SETTINGS[key].field in fields
        }
        said = {field: given.value for field, given in fields.items()}
        for variable in said.get("env", ()):
            sources[f"env.{variable}"] = _source(path, lines, (*inside, name, "env", variable))
        processes[name] = ProcessSettings(source, **said, sources=sources)


def _fields(
    table: dict[str, Any],
    known: Mapping[str, Setting],
    path: str,
    lines: _Lines,
    inside: tuple[str, ...],
    fields: dict[str, Given],
    names: Iterable[str] = (),
) -> Iterator[Problem]:
    """Put the values of one TOML table into `fields`; yield what is wrong. `names` are all it may have, for hints."""
    for key, raw in table.items():
        source = _source(path, lines, (*inside, key))
        if key not in known:
            yield Problem(REFUSED, f"unknown key {quoted(key)}", source, did_you_mean(key, names or known))
            continue
        field, kind, _ = known[key]
        if kind is PROBE:
            from procman.probe_settings import parse_probe

            probe = parse_probe(key, raw, partial(_part_source, path, lines, (*inside, key)))
            if isinstance(probe, list):
                yield from probe
            else:
                fields[field] = Given(probe, str(source))
            continue
        value = value_of(kind, kind.from_toml, raw)
        if not isinstance(value, Wrong):
            fields[field] = Given(value, str(source))
        elif kind is VARIABLES_OF_TYPE and isinstance(raw, dict):
            yield from _wrong_variables(raw, partial(_part_source, path, lines, (*inside, key)))
        else:
            yield Problem(REFUSED, f"{key}: expected {value.expected}", source)


def _wrong_variables(table: dict[str, Any], source_of: Callable[[str], SourceRef]) -> Iterator[Problem]:
    """Yield which variables of a type cannot be, never with a value."""
    for name, text in table.items():
        if not re.fullmatch(VARIABLE, name):
            hint = "names are letters, digits and _, no digit first"
            yield Problem(REFUSED, f"env: {quoted(name)} is no name of a variable", source_of(name), hint)
        elif not isinstance(text, str):
            yield Problem(REFUSED, f"env: {name}: expected a string", source_of(name), "write the value in quotes")
        elif "\0" in text:
            yield Problem(REFUSED, f"env: {name}: its value has a NUL", source_of(name))


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


def _part_source(path: str, lines: _Lines, key: tuple[str, ...], part: str) -> SourceRef:
    """Return the line of a key of an inline table, of which "" means the table itself."""
    return _source(path, lines, (*key, part) if part else key)


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
        values["color"] = Given("always" if FLAGS.get(word.lower()) else "auto", str(source))
    elif key not in FOREMAN_KEYS:
        yield Problem(REFUSED, f"unknown key {quoted(key)}", source, did_you_mean(key, FOREMAN_KEYS))
    elif word:
        field, kind, _ = SETTINGS[FOREMAN_KEYS[key]]
        value = value_of(kind, kind.from_word, word)
        if isinstance(value, Wrong):
            yield Problem(REFUSED, f"{key}: expected {value.expected}", source)
        elif field in values:
            yield Problem(REFUSED, f"{quoted(key)} is given twice", source, f"the other is {values[field].origin}")
        else:
            values[field] = Given(value, str(source))
