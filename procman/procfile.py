"""Procfile text to process types. The rules, row by row, are in docs/procfile.md."""

from __future__ import annotations

import re
from typing import NamedTuple

from procman.errors import AMBIGUOUS, REFUSED, Problem, SourceRef

ENTRY = re.compile(r"([A-Za-z0-9_-]+):[ \t]*(.*)")


class ProcessType(NamedTuple):
    """One entry of a Procfile. Its position in the file fixes its ports and its colour."""

    name: str
    command: str
    source: SourceRef


class Procfile(NamedTuple):
    """All that was read: the valid entries in file order, and what is to be said about the rest."""

    path: str
    types: tuple[ProcessType, ...]
    problems: tuple[Problem, ...]


def parse_procfile(data: bytes, path: str) -> Procfile:
    """Parse a Procfile's bytes. Never raises: everything wrong stands in `problems`. `path` is for messages only."""
    types: dict[str, ProcessType] = {}
    problems: list[Problem] = []
    for number, raw in enumerate(data.decode("utf-8", "replace").split("\n"), 1):
        line = raw.rstrip()
        if not line or line.lstrip().startswith("#"):
            continue
        source = SourceRef(path, number)
        entry = ENTRY.fullmatch(line)
        if entry is None:
            problems.append(Problem(AMBIGUOUS, "not an entry", source, 'write "name: command"'))
        elif not entry[2]:
            problems.append(
                Problem(AMBIGUOUS, f'"{entry[1]}" has no command', source, f'write "{entry[1]}: <command>"')
            )
        elif entry[1] in types:
            first = types[entry[1]].source.line
            problems.append(Problem(AMBIGUOUS, f'"{entry[1]}" already defined on line {first}', source))
        else:
            types[entry[1]] = ProcessType(entry[1], entry[2], source)
    if not types and not problems:
        problems.append(Problem(REFUSED, "no process types", SourceRef(path), 'write "web: <command>"'))
    return Procfile(path, tuple(types.values()), tuple(problems))
