"""`ready = {…}` and `liveness = {…}` of procman.toml to probes. The rules are in docs/configuration.md.

Apart from settings_files.py because most settings files have no probe.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from procman.config import duration
from procman.errors import REFUSED, Problem, SourceRef, did_you_mean, quoted
from procman.ports import MAX_PORT
from procman.readiness import (
    COMMAND,
    COMPLETED,
    HTTP,
    LIVENESS_PAUSE_S,
    LOG,
    MIN_PAUSE_S,
    NOTIFY,
    PORT,
    Probe,
)
from procman.records import NamedTuple

READY = "ready"
LIVENESS = "liveness"

KINDS = {READY: (PORT, HTTP, LOG, COMMAND, NOTIFY, COMPLETED), LIVENESS: (PORT, HTTP, COMMAND)}
ASKING = (PORT, HTTP, COMMAND)
"""The kinds of probe that ask again and again; the others wait to be told."""

class _Key(NamedTuple):
    """A key of the inline table."""

    field: str  # of Probe
    expected: str
    read: Callable[[Any], Any]  # raises ValueError
    kinds: tuple[str, ...]  # of probe, for which it means something
    belongs_to: tuple[str, ...] = (READY, LIVENESS)


def _true(value: Any) -> bool:
    if value is not True:
        raise ValueError
    return True


def _port(value: Any) -> int | None:
    """Return a port's number; None for true, the instance's own."""
    if value is True:
        return None
    if type(value) is not int or not 1 <= value <= MAX_PORT:
        raise ValueError
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("/[!-~]*", value):  # it becomes a word of the request
        raise ValueError
    return value


def _pattern(value: Any) -> str:
    """Return a regular expression that can be searched in text and in bytes."""
    if not isinstance(value, str) or not value:
        raise ValueError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Python would rather see written otherwise
        try:
            re.compile(value)
            re.compile(value.encode())
        except re.error as error:
            raise ValueError(error.msg) from None
        except (OverflowError, RecursionError, UnicodeError):
            raise ValueError from None
    return value


def _command(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError
    return value


def _within(value: Any) -> float:
    if (seconds := duration(value)) <= 0:
        raise ValueError
    return seconds


def _pause(value: Any) -> float:
    seconds = duration(value)
    if not MIN_PAUSE_S <= seconds < float("inf"):
        raise ValueError
    return seconds


def _failures(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 1000:
        raise ValueError
    return value


def _statuses(value: Any) -> tuple[int, ...]:
    statuses = value if isinstance(value, list) else [value]
    if not statuses or not all(type(status) is int and 100 <= status <= 599 for status in statuses):
        raise ValueError
    return tuple(statuses)


_A_PORT = f"true for the instance's own port, or a number from 1 to {MAX_PORT}"
_A_TIME = 'a time from 10ms up, such as "500ms", "10s"'

KEYS: Mapping[str, _Key] = {
    "port": _Key("port", _A_PORT, _port, (PORT, HTTP)),
    "http": _Key("path", 'a path that starts with "/", such as "/healthz"', _path, (HTTP,)),
    "log": _Key("pattern", 'a regular expression, such as "Listening on"', _pattern, (LOG,), (READY,)),
    "command": _Key("command", "a command for the shell", _command, (COMMAND,)),
    "notify": _Key("", "true", _true, (NOTIFY,), (READY,)),
    "completed": _Key("", "true", _true, (COMPLETED,), (READY,)),
    "status": _Key("statuses", "a status from 100 to 599, or a list such as [200, 204]", _statuses, (HTTP,)),
    "within": _Key("within_s", 'a time above 0, such as "30s", or "inf"', _within, KINDS[READY], (READY,)),
    "every": _Key("every_s", _A_TIME, _pause, ASKING),
    "timeout": _Key("timeout_s", _A_TIME, _pause, ASKING),
    "failures": _Key("failures", "a number from 1 to 1000", _failures, ASKING, (LIVENESS,)),
}

EXPECTED = {
    READY: 'a table such as { http = "/healthz", within = "30s" }',
    LIVENESS: 'a table such as { http = "/healthz", every = "10s" }',
}


def parse_probe(place: str, table: Any, source_of: Callable[[str], SourceRef]) -> Probe | list[Problem]:
    """Return the probe that `table` describes, or all that is wrong with it.

    `place` is READY or LIVENESS; `source_of` tells the line of a key of the table, of "" that of the table itself.
    """
    if not isinstance(table, dict):
        return [Problem(REFUSED, f"{place}: expected {EXPECTED[place]}", source_of(""))]
    values: dict[str, Any] = {}
    problems = [*_read(place, table, source_of, values)]
    kinds = _kinds(table)
    if len(kinds) > 1:
        both = " and ".join(quoted(kind) for kind in kinds)
        problems.append(Problem(REFUSED, f"{place}: {both} are {len(kinds)} probes", source_of(""), "keep one"))
    if not kinds and not _misspelt(place, table):
        known = ", ".join(KINDS[place])
        hint = f"write {EXPECTED[place].removeprefix('a table such as ')}"
        problems.append(Problem(REFUSED, f"{place}: expected one of {known}", source_of(""), hint))
    if problems:
        return problems
    if kinds == [COMPLETED]:
        values.setdefault("within_s", float("inf"))  # who runs to its end may take its time
    return Probe(kinds[0], source_of(""), **values)


def _kinds(table: Mapping[str, Any]) -> list[str]:
    """Return the kinds of probe that `table` asks for. "port" beside "http" only says where to ask."""
    kinds = [kind for kind in KINDS[READY] if kind in table]
    return [kind for kind in kinds if kind != PORT] if HTTP in kinds else kinds


def _misspelt(place: str, table: Mapping[str, Any]) -> bool:
    """Tell whether an unknown key was told already whose right name could be the missing kind."""
    return any(did_you_mean(key, KINDS[place]).startswith("did") for key in table if key not in KEYS)


def _read(
    place: str, table: Mapping[str, Any], source_of: Callable[[str], SourceRef], values: dict[str, Any]
) -> Iterator[Problem]:
    """Put what the keys say into `values`, by field of Probe; yield what is wrong with each alone."""
    kinds = _kinds(table)
    for name, raw in table.items():
        source = source_of(name)
        key = KEYS.get(name)
        if key is None:
            known = [known for known, other in KEYS.items() if place in other.belongs_to]
            yield Problem(REFUSED, f"{place}: unknown key {quoted(name)}", source, did_you_mean(name, known))
        elif place not in key.belongs_to:
            yield _misplaced(place, name, source)
        elif len(kinds) == 1 and kinds[0] in KINDS[place] and kinds[0] not in key.kinds:
            hint = f"it belongs to {' and '.join(key.kinds)}"
            yield Problem(REFUSED, f'{place}: "{name}" means nothing to a probe by {kinds[0]}', source, hint)
        else:
            try:
                value = key.read(raw)
            except ValueError as error:
                yield Problem(REFUSED, f"{place}: {name}: expected {key.expected}", source, str(error))
            else:
                values |= {key.field: value} if key.field else {}


def _misplaced(place: str, name: str, source: SourceRef) -> Problem:
    if name in KINDS[READY]:
        hint = f"use {', '.join(KINDS[place][:-1])} or {KINDS[place][-1]}"
        return Problem(REFUSED, f'{place}: "{name}" does not tell whether a process is still well', source, hint)
    return Problem(REFUSED, f'{place}: "{name}" belongs to {KEYS[name].belongs_to[0]}', source)


def told(probe: Probe, place: str) -> str:
    """Return `probe` in words, for `check --verbose`: what is asked, and each time that counts."""
    where = "" if probe.port is None else f" {probe.port}"
    asked = {
        PORT: f"port{where or ' of the instance'}",
        HTTP: f"http {probe.path}" + (f" on port{where}" if where else ""),
        LOG: f"log {quoted(probe.pattern)}",
        COMMAND: f"command {quoted(probe.command)}",
    }
    words = [asked.get(probe.kind, probe.kind)]
    if probe.statuses:
        words.append(f"status {' or '.join(str(status) for status in probe.statuses)}")
    if place == READY:
        words.append(f"within {probe.within_s:g} s" if probe.within_s < float("inf") else "within any time")
    if probe.kind in ASKING:
        pause_s = probe.every_s or (None if place == READY else LIVENESS_PAUSE_S)
        words += [f"every {pause_s:g} s"] if pause_s else []
        words.append(f"timeout {probe.timeout_s:g} s")
    if place == LIVENESS:
        words.append(f"{probe.failures} failures" if probe.failures > 1 else "1 failure")
    return ", ".join(words)
