"""Procfile text to process types. The rules, row by row, are in docs/procfile.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from procman.errors import AMBIGUOUS, NOTE, REFUSED, WARNING, Problem, SourceRef, capped, quoted, read_text
from procman.records import NamedTuple

# The expression of Foreman and Honcho, but for `\s`, where they differ: Python's counts U+00A0, Ruby's does not.
ENTRY = re.compile(r"([A-Za-z0-9_-]+):([ \t]*)(.*)")

RESERVED = {
    "all": "it means every process type, as in all=2",
    "system": "procman's own lines in the log bear that name",
}
"""Names that no process type may have, each with its meaning."""

MAX_TYPES = 1000
"""No app has so many, and each instance is given a variable for each of them."""


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


def parse_procfile(data: bytes, path: str, *, joins_lines: bool = True) -> Procfile:
    r"""Parse a Procfile's bytes. Never raises: everything wrong stands in `problems`. `path` is for messages only.

    An entry that is refused is not among `types`. With `joins_lines` off a `\` at the end of a line means nothing to
    procman, as in every other tool.
    """
    text, problems = read_text(data, path)
    if "\r\n" in text:
        text = text.replace("\r\n", "\n")
        problems.append(Problem(NOTE, "lines end in CR LF, as on Windows", SourceRef(path)))
    types: dict[str, ProcessType] = {}
    problems += capped(_collect(_entries(text.split("\n"), path, joins_lines), types), path)
    if not types and not any(problem.severity == REFUSED for problem in problems):
        problems.append(Problem(REFUSED, "no process types", SourceRef(path), 'write "web: <command>"'))
    if len(types) > MAX_TYPES:
        message = f"more than {MAX_TYPES} process types"
        problems.append(Problem(REFUSED, message, SourceRef(path), "is this the right file?"))
    return Procfile(path, tuple(types.values()), tuple(problems))


def _collect(found: Iterable[ProcessType | Problem], types: dict[str, ProcessType]) -> Iterator[Problem]:
    """Put every entry with a new name into `types`; yield the problems."""
    first_named: dict[str, ProcessType] = {}
    variables: dict[str, ProcessType] = {}  # by the end of PORT_WEB_1
    for item in found:
        if isinstance(item, Problem):
            yield item
        elif first := first_named.get(item.name.lower()):
            yield _clash(item, first)
        else:
            variable = item.name.lower().replace("-", "_")
            if first := variables.get(variable):
                message = f"{quoted(item.name)} and {quoted(first.name)} on line {first.source.line} share one variable"
                yield Problem(WARNING, message, item.source, f"rename one: PORT_{variable.upper()} names the second")
            types[item.name] = first_named[item.name.lower()] = variables[variable] = item


def _clash(entry: ProcessType, first: ProcessType) -> Problem:
    where = f"on line {first.source.line}"
    if first.name == entry.name:
        message, hint = f"{quoted(entry.name)} already defined {where}", "rename or remove one of them"
    else:
        message = f"{quoted(entry.name)} and {quoted(first.name)} {where} differ only by case"
        hint = "rename one of them: variables and file names made of them would be the same"
    return Problem(AMBIGUOUS, message, entry.source, hint)


def _entries(lines: Sequence[str], path: str, joins_lines: bool) -> Iterator[ProcessType | Problem]:
    """Yield an entry and what is doubtful about it, or what is wrong, for each line that should be one."""
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if "\r" in line:
            place = SourceRef(path, at, line.index("\r") + 1)
            yield Problem(AMBIGUOUS, "a carriage return inside the line", place, "end lines with a line feed")
            continue
        if not line or line.isspace() or _is_comment(line):
            continue
        source = SourceRef(path, at)
        if joins_lines and line.rstrip(" \t").endswith("\\"):
            at, joined = _join(lines, at - 1, source)
            if isinstance(joined, Problem):
                yield joined
            else:
                yield from _read_entry(joined, source)
        else:
            yield from _read_entry(line, source)


def _is_comment(line: str) -> bool:
    return line[0] == "#" or (line[0].isspace() and line.lstrip()[0] == "#")


# --- lines that a backslash continues --------------------------------------------------------------------------------


def _join(lines: Sequence[str], at: int, source: SourceRef) -> tuple[int, str | Problem]:
    r"""Return the index after the entry that starts at `at`, and its text with each `\`+newline made one space."""
    parts: list[str] = []
    line = lines[at]
    while _is_continued(bare := line.rstrip(" \t")):
        fault = "a blank follows it" if bare != line else _cannot_follow(lines, at + 1)
        if fault:
            here = source._replace(line=at + 1, column=len(lines[at].rstrip(" \t")))
            message = f'"\\" should continue the line, but {fault}'
            return at + 1, Problem(AMBIGUOUS, message, here, 'remove the "\\", or mend what follows')
        parts.append(line[:-1])
        at += 1
        line = lines[at].lstrip(" \t")
    parts.append(line)
    return at + 1, " ".join(parts)


def _is_continued(line: str) -> bool:
    """Tell whether a line ends in an odd number of backslashes: each pair is one that the shell is to keep."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _cannot_follow(lines: Sequence[str], at: int) -> str:
    """Say why the line at `at` would be misread as the rest of the line above, or return ''."""
    following = lines[at] if at < len(lines) else ""
    if not following and at + 1 >= len(lines):
        return "no line follows"
    entry = ENTRY.match(following)
    if entry and (entry[2] or not entry[3]):
        return f"the next line reads like an entry of its own ({quoted(entry[1])})"
    if following.lstrip().startswith("#"):
        return "the next line is a comment"
    return "the next line has a carriage return inside" if "\r" in following else ""


# --- one entry -------------------------------------------------------------------------------------------------------


def _read_entry(line: str, source: SourceRef) -> Iterator[ProcessType | Problem]:
    entry = ENTRY.fullmatch(line)
    if entry is None:
        yield _why_no_entry(line, source)
        return
    name, blank, command = entry.groups()
    command = command.rstrip(" \t")
    if not command:
        yield Problem(AMBIGUOUS, f"{quoted(name)} has no command", source, f'write "{name[:60]}: <command>"')
    elif name in RESERVED:
        message = f'no process type can be called "{name}": {RESERVED[name]}'
        yield Problem(AMBIGUOUS, message, source, "rename it")
    else:
        yield ProcessType(name, command, source)
        if command.startswith("//") and not blank:
            message = f'read as process type {quoted(name)} with a command that starts with "//"'
            yield Problem(WARNING, message, source, 'start the line with "#", or put a blank after ":"')
        elif "=" in command.partition(" ")[0] and re.fullmatch(_ONLY_ASSIGNMENTS, command):
            message = f"the command of {quoted(name)} only sets variables and ends at once"
            yield Problem(WARNING, message, source, "put variables into .env")


# A word may be quoted in parts. Each assignment ends at a blank, so that there is one way to match, and linear time.
_ASSIGNMENT = r"""[A-Za-z_][A-Za-z0-9_]*=(?:[^\s'";&|<>()`]|'[^']*'|"[^"]*")*"""
_ONLY_ASSIGNMENTS = rf"{_ASSIGNMENT}(?:[ \t]+{_ASSIGNMENT})*"


def _why_no_entry(line: str, source: SourceRef) -> Problem:
    """Say what keeps `line` from being an entry. Only what is surely a name is shown: the rest may be secret."""

    def found(column: int, message: str, hint: str) -> Problem:
        return Problem(AMBIGUOUS, message, source._replace(column=column), hint)

    text = line.lstrip()
    name = re.match(r"[A-Za-z0-9_-]*", text)
    end = name.end() if name else 0
    rest, shown = text[end:].lstrip(), text[:end][:60]
    if text != line:
        fix = f'write "{shown}: …" at the start of the line' if end and rest[:1] == ":" else "start it at column 1"
        return found(len(line) - len(text) + 1, "indented", f'{fix}, or end the line above with "\\"')
    if line.startswith("//"):
        return found(1, 'not an entry: "//" starts no comment', 'start the comment with "#"')
    if end and rest[:1] == ":":
        return found(end + 1, "space before ':'", f'write "{shown}: …"')
    if end and rest[:1] == "=":
        return found(end + 1, "'=' where ':' should be", f'write "{shown}: …"')
    if re.match(r"[^\s:=]+:", text[end:]):
        return found(end + 1, _bad_character(line[end]), 'use only A-Z, a-z, 0-9, "_" and "-" in the name')
    return found(0, "not an entry", 'write "name: command", or start the line with "#"')


def _bad_character(char: str) -> str:
    if char == ".":
        return '"." in the name of a process type: it separates the instance number, as in web.1'
    return f"{quoted(char)} in the name of a process type"
