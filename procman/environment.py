"""`.env` text to bindings, and the precedence of layers. The rules, row by row, are in docs/environment.md.

The file is read by python-dotenv's parser alone, wrapped here and nowhere else.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from procman.errors import AMBIGUOUS, Problem, SourceRef


class Binding(NamedTuple):
    """One `NAME=value` of a file."""

    name: str
    value: str
    source: SourceRef


class EnvFile(NamedTuple):
    """All that was read of one file: bindings in file order (duplicates kept), and what is to be said."""

    path: str
    bindings: tuple[Binding, ...]
    problems: tuple[Problem, ...]


def parse_env(data: bytes, path: str) -> EnvFile:
    """Parse a `.env` file's bytes. Never raises: everything wrong stands in `problems`. `path` is for messages only."""
    from dotenv.parser import parse_stream  # 23 ms: only for those who have a .env

    bindings: list[Binding] = []
    problems: list[Problem] = []
    for read in parse_stream(io.StringIO(data.decode("utf-8", "replace"))):
        source = SourceRef(path, read.original.line)
        if read.error or (read.key is not None and read.value is None):
            problems.append(Problem(AMBIGUOUS, "not an assignment", source, "write NAME=value"))
        elif read.key is not None and read.value is not None:
            bindings.append(Binding(read.key, read.value, source))
    return EnvFile(path, tuple(bindings), tuple(problems))


def merged(files: Iterable[EnvFile]) -> Mapping[str, Binding]:
    """Return the binding that wins for each name: the last of the last file."""
    return {binding.name: binding for file in files for binding in file.bindings}
