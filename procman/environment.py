"""`.env` text to bindings, and the precedence of layers. The rules, row by row, are in docs/environment.md.

The file is read by python-dotenv's parser alone, wrapped here and nowhere else. No message holds a value, nor any word
of a line that is no assignment: it may be the second line of a key.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping

from procman.errors import (
    AMBIGUOUS,
    MAX_PROBLEMS,
    NOTE,
    REFUSED,
    WARNING,
    Problem,
    SourceRef,
    capped,
    quoted,
    read_text,
)
from procman.records import NamedTuple

MAX_STATEMENTS = 100_000
"""Assignments and comments of one file. No system starts a program with such an environment, and reading takes 1 s."""

MAX_BLANKS = 500
"""Blanks in a row. The parser looks for a comment behind each of them, so its time grows with their square."""

MAX_INTERPOLATED = 4_000_000
"""Characters that interpolation may make of all values: forty lines that double each other would fill any memory."""


class Binding(NamedTuple):
    """One `NAME=value` of a file."""

    name: str
    value: str
    source: SourceRef
    quote: str = ""  # what the value stood in: ', " or nothing


class EnvFile(NamedTuple):
    """All that was read of one file: bindings in file order (duplicates kept), and what is to be said."""

    path: str
    bindings: tuple[Binding, ...]
    problems: tuple[Problem, ...]
    interpolates: bool = False  # asked for by the caller or by the file's own header


class Layered(NamedTuple):
    """Who sets a name: the binding that counts, and those it overrides, the first of the first file first."""

    winner: Binding
    overridden: tuple[Binding, ...]


def parse_env(data: bytes, path: str, encoding: str = "utf-8", *, interpolates: bool = False) -> EnvFile:
    """Parse a `.env` file's bytes. Never raises: everything wrong stands in `problems`. `path` is for messages only.

    With `interpolates`, or the header `# procman: interpolate`, a value that holds `${` is no cause for a warning; its
    replacement is `interpolate`'s, for it needs all files.
    """
    hint = "save the file as UTF-8, or name its encoding with --env-encoding"
    text, problems = read_text(data, path, encoding, hint)
    text = text.replace("\r\n", "\n")
    if text.lstrip()[:1] == "{":
        problems.append(Problem(REFUSED, "the file is JSON", SourceRef(path), "write one NAME=value on each line"))
        return EnvFile(path, (), tuple(problems))
    if blanks := re.search(_LONG_BLANKS, text):
        place = SourceRef(path, *_place(text[: blanks.start()]))
        problems.append(Problem(REFUSED, f"more than {MAX_BLANKS} blanks in a row", place, "remove them"))
        return EnvFile(path, (), tuple(problems))
    if "\r" in text:
        problems.append(Problem(NOTE, "a lone carriage return ends a line, too", SourceRef(path), "end lines with LF"))
    interpolates = interpolates or _has_header(text)
    bindings: list[Binding] = []
    problems += capped(_collect(_read(text, path, 1, interpolates), bindings), path)
    return EnvFile(path, tuple(bindings), tuple(problems), interpolates)


def merged(files: Iterable[EnvFile]) -> Mapping[str, Binding]:
    """Return the binding that wins for each name: the last of the last file."""
    return {binding.name: binding for file in files for binding in file.bindings}


def layered(files: Iterable[EnvFile]) -> dict[str, Layered]:
    """Return who sets each name and what that overrides; the winners are those of `merged`."""
    by_name: dict[str, list[Binding]] = {}
    for file in files:
        for binding in file.bindings:
            by_name.setdefault(binding.name, []).append(binding)
    return {name: Layered(all_of_it[-1], tuple(all_of_it[:-1])) for name, all_of_it in by_name.items()}


def is_disabled(caller: Mapping[str, str]) -> bool:
    """Tell whether the caller switched `.env` off for python-dotenv; its own parser does not look."""
    return caller.get("PYTHON_DOTENV_DISABLED", "").casefold() in ("1", "true", "t", "yes", "y")


# --- the parser's statements -----------------------------------------------------------------------------------------

# The expressions of this module are texts, which `re` compiles when one is first used: a run without a `.env` saves it.
_LONG_BLANKS = rf"(?<![^\S\r\n])[^\S\r\n]{{{MAX_BLANKS + 1}}}"
_HEADER = r"#[ \t]*procman:[ \t]*(.*)"


class _Statement(NamedTuple):
    """What python-dotenv made of one stretch of text: an assignment, a comment, blank lines or an error."""

    text: str  # from its first character to the end of its last line
    name: str | None
    value: str | None
    is_error: bool
    source: SourceRef  # of its first character
    indent: str  # the blanks before it


def _statements(text: str, path: str, line: int) -> Iterator[_Statement]:
    from dotenv.parser import parse_stream  # 23 ms: only for those who have a .env

    for read in parse_stream(io.StringIO(text)):
        whole = read.original.string
        body = whole.lstrip()
        indent = whole[: len(whole) - len(body)]
        lines, column = _place(indent)
        # Its own count of lines starts at the blank lines above.
        source = SourceRef(path, line + lines - 1, column)
        yield _Statement(body.rstrip("\r\n"), read.key, read.value, read.error, source, indent[1 - column :])
        line += _place(whole)[0] - 1


def _place(before: str) -> tuple[int, int]:
    """Return line and column of the character after the text `before`; a lone carriage return ends a line, too."""
    newline = max(before.rfind("\n"), before.rfind("\r"))
    return before.count("\n") + before.count("\r") + 1, len(before) - newline


def _has_header(text: str) -> bool:
    """Tell whether `# procman: interpolate` stands above the first assignment."""
    for line in io.StringIO(text):
        word = line.strip()
        if word and not word.startswith("#"):
            return False
        header = re.fullmatch(_HEADER, word)
        if header and header[1] == "interpolate":
            return True
    return False


def _collect(found: Iterable[Binding | Problem], bindings: list[Binding]) -> Iterator[Problem]:
    """Put every binding into `bindings`; yield the problems."""
    lines: dict[str, int] = {}
    for item in found:
        if isinstance(item, Problem):
            yield item
            continue
        if first := lines.get(item.name):
            message = f"{quoted(item.name)} is set again, so line {first} has no effect"
            yield Problem(WARNING, message, item.source, "remove one of them")
        lines[item.name] = item.source.line
        bindings.append(item)


def _read(text: str, path: str, line: int, interpolates: bool) -> Iterator[Binding | Problem]:
    """Yield bindings and what is to be said about them, for `text`, whose first line is the file's `line`."""
    for count, statement in enumerate(_statements(text, path, line)):
        if count == MAX_STATEMENTS:
            message = f"more than {MAX_STATEMENTS} assignments and comments, so the rest was not read"
            yield Problem(REFUSED, message, SourceRef(path), "is this the right file?")
            return
        if statement.name is None and not statement.is_error and statement.text[:1] in ("", "#"):
            yield from _odd_header(statement, interpolates)
            continue
        faults = list(_faults(statement))
        yield from faults
        if all(fault.is_kept for fault in faults):
            yield from _bind(statement, interpolates)
        elif swallowed := statement.text.partition("\n")[2]:
            # A quote that closes too late took lines with it: they count, as far as they are valid by themselves.
            yield from _read(swallowed, path, statement.source.line + 1, interpolates)


def _odd_header(statement: _Statement, interpolates: bool) -> Iterator[Problem]:
    header = re.fullmatch(_HEADER, statement.text)
    if header and header[1].strip() != "interpolate":
        yield Problem(WARNING, "unknown header", statement.source, 'known: "# procman: interpolate"')
    elif header and not interpolates:
        message = "this header says nothing below the first assignment"
        yield Problem(WARNING, message, statement.source, "write it into the first line")


# --- what is wrong with a statement ----------------------------------------------------------------------------------

NAME = r"[A-Za-z_][A-Za-z0-9_.]*"
_HEAD = r"(?:export[^\S\r\n]+)?([^=#\s]+)([^\S\r\n]*)=([^\S\r\n]*)(['\"]?)"
_COLON = rf"(?:export[^\S\r\n]+)?{NAME}[^\S\r\n]*:"
_QUOTED = {"'": r"(?s)'(?:[^'\\]++|\\.)*+'", '"': r'(?s)"(?:[^"\\]++|\\.)*+"'}
_OPENS_AGAIN = rf"[^\S\n]*(?:export[^\S\n]+)?{NAME}[^\S\n]*=[^\S\n]*"
_ASSIGNMENT_INSIDE = r"\n[^\S\n]*(?:export[^\S\n]+)?[A-Z_][A-Z0-9_]*=[^=\s'\"]"

_WRITE = 'write NAME=value, or start the line with "#"'


def _faults(statement: _Statement) -> Iterator[Problem]:
    """Yield what keeps a statement from being an assignment that every reader would read alike."""
    text, source = statement.text, statement.source
    head = re.match(_HEAD, text)
    if head is None:
        yield _no_assignment(text, source)
        return
    if head[4] and (fault := _quote_fault(text, head, source._replace(column=source.column + head.start(4)))):
        yield fault
    elif statement.is_error or statement.value is None:
        yield _no_assignment(text, source)
    elif head[1] == f"'{statement.name}'" and re.fullmatch(NAME, head[1][1:-1]):
        yield Problem(AMBIGUOUS, "quotes around the name", source, "write NAME=value", is_kept=True)
    elif not re.fullmatch(NAME, head[1]):
        yield _bad_name(head[1], source._replace(column=source.column + head.start(1)))


def _no_assignment(text: str, source: SourceRef) -> Problem:
    if colon := re.match(_COLON, text):
        place = source._replace(column=source.column + colon.end() - 1)
        return Problem(AMBIGUOUS, "':' where '=' should be", place, "write NAME=value")
    if "=" in text:
        return Problem(AMBIGUOUS, "not an assignment", source._replace(column=0), _WRITE)
    return Problem(AMBIGUOUS, "this line has no '='", source._replace(column=0), _WRITE)


def _bad_name(name: str, source: SourceRef) -> Problem:
    valid = re.match(NAME, name)
    at = valid.end() if valid else 0
    what = "a name cannot start with" if at == 0 else "a name cannot have"
    hint = 'use only A-Z, a-z, 0-9 and "_", and no digit first'
    place = source._replace(column=source.column + at)
    is_kept = re.fullmatch(r"[A-Za-z0-9_.-]+", name) is not None  # what other tools pass on
    return Problem(AMBIGUOUS, f"{what} {quoted(name[at])}", place, hint, is_kept)


def _quote_fault(text: str, head: re.Match[str], source: SourceRef) -> Problem | None:
    """Say what is wrong with a quoted value; `source` is its opening quote."""
    closed = re.compile(_QUOTED[head[4]]).match(text, head.start(4))
    if closed is None:
        return Problem(AMBIGUOUS, "quote opened here never closes", source, f"close it with {head[4]}")
    inside = closed[0][1:-1]
    last_line = source.line + inside.count("\n")
    if "\n" in inside and re.fullmatch(_OPENS_AGAIN, inside[inside.rindex("\n") + 1 :]):
        message = f"quote opened here closes on line {last_line}, where the next assignment opens one"
        return Problem(AMBIGUOUS, message, source, "close it on its own line")
    rest = text[closed.end() :].lstrip()
    if not rest or rest[0] == "#":
        return None
    if "\n" in inside:
        message = f"quote opened here closes on line {last_line}, with text behind it"
        return Problem(AMBIGUOUS, message, source, f"close it where the value ends, or write \\{head[4]} inside")
    place = source._replace(column=source.column + len(closed[0]))
    return Problem(AMBIGUOUS, "text behind the closing quote", place, "quote the whole value")


# --- bindings, and what is doubtful about them -----------------------------------------------------------------------


def _bind(statement: _Statement, interpolates: bool) -> Iterator[Binding | Problem]:
    head = re.match(_HEAD, statement.text)
    if head is None or statement.name is None or statement.value is None:
        return  # never: _faults would have said so
    source = statement.source._replace(column=0)
    quote = head[4]
    yield Binding(statement.name, statement.value, source, quote)
    raw = statement.text[head.end(3) :]
    for severity, message, hint in [
        *_name_doubts(statement.name),
        *_blank_doubts(statement, head, raw),
        *(_quoted_doubts(raw, quote) if quote else _unquoted_doubts(raw, statement.value)),
    ]:
        yield Problem(severity, message, source, hint)
    if "${" in statement.value and quote != "'" and not interpolates:
        message = "'${' is kept as it is; forego, goreman and overmind replace it"
        yield Problem(WARNING, message, source, "write the value in single quotes, or ask for --interpolate")


_Doubts = Iterator[tuple[str, str, str]]  # severity, message, hint


def _name_doubts(name: str) -> _Doubts:
    if "." in name:
        yield WARNING, "'.' in a name: no shell can read it", 'use "_" unless the program asks for "."'


def _blank_doubts(statement: _Statement, head: re.Match[str], raw: str) -> _Doubts:
    outside = statement.indent + head[0] + ("" if head[4] else raw)
    odd = re.search(r"[^\S \t\r\n]", outside)
    if odd:
        yield WARNING, f"a blank that is no space and no tab (U+{ord(odd[0]):04X})", "quote the value, or remove it"
    elif head[3] and not head[2] and statement.value:
        yield NOTE, "Foreman keeps the blank behind '='", "write the value right behind '='"


def _unquoted_doubts(raw: str, value: str) -> _Doubts:
    if "#" in value:
        message = "'#' inside an unquoted value is kept; Foreman keeps it too, node-foreman and Honcho cut it"
        yield WARNING, message, "quote the value"
    if raw[len(value) :].lstrip()[:1] == "#":
        yield NOTE, "Foreman reads the comment as part of the value", "write the comment above"


def _quoted_doubts(raw: str, quote: str) -> _Doubts:
    closed = re.match(_QUOTED[quote], raw)
    inside = closed[0] if closed else ""
    if quote == "'" and ("\\'" in inside or "\\\\" in inside):
        yield NOTE, "\\' and \\\\ stand for ' and \\ even in single quotes; other tools keep both", "use double quotes"
    if re.search(_ASSIGNMENT_INSIDE, inside):
        yield WARNING, "lines inside the quotes read like assignments", "is the closing quote where it should be?"
    if raw[len(inside) :].lstrip()[:1] == "#":
        yield NOTE, "Foreman reads the comment as part of the value", "write the comment above"


# --- interpolation ---------------------------------------------------------------------------------------------------

_REFERENCE = r"([\\$]?)\$\{([^}]*)(\}?)"
_REFERRED = rf"(?s)({NAME})(?::-(.*))?"


class _Known(NamedTuple):
    """What a reference can mean."""

    above: dict[str, str]  # the assignments so far
    names: frozenset[str]  # all that any file assigns
    caller: Mapping[str, str]
    dotenv_wins: bool


def interpolate(files: Iterable[EnvFile], caller: Mapping[str, str], *, dotenv_wins: bool = True) -> list[EnvFile]:
    """Return `files` with `${NAME}` and `${NAME:-default}` replaced in those that interpolate.

    One pass over all files in order: a name means its last assignment above, in this file or an earlier one, else the
    variable of the `caller`; with `dotenv_wins` off the caller's comes first. Single-quoted values are literal. What
    cannot be replaced in one sure way is among the file's problems, and its binding is gone.
    """
    files = list(files)
    names = frozenset(binding.name for file in files for binding in file.bindings)
    known = _Known({}, names, caller, dotenv_wins)
    room = MAX_INTERPOLATED
    done: list[EnvFile] = []
    for file in files:
        bindings: list[Binding] = []
        problems: list[Problem] = []
        for binding in file.bindings:
            if file.interpolates and binding.quote != "'" and "${" in binding.value:
                value, faults = _replaced(binding, known, room)
                room -= len(value or "")
                problems += faults
                if value is None:
                    continue
                binding = binding._replace(value=value)
            known.above[binding.name] = binding.value
            bindings.append(binding)
        done.append(file._replace(bindings=tuple(bindings), problems=(*file.problems, *capped(problems, file.path))))
    return done


def _replaced(binding: Binding, known: _Known, room: int) -> tuple[str | None, list[Problem]]:
    """Return the value of `binding` with its references replaced, at most `room` characters, and the problems.

    It is None when a problem is more than a warning.
    """
    parts: list[str] = []
    problems: dict[Problem, None] = {}  # each once
    at = 0
    for reference in re.finditer(_REFERENCE, binding.value):
        text, problem = _meaning(reference, binding, known)
        if problem:
            problems[problem] = None
        parts += (binding.value[at : reference.start()], text)
        at = reference.end()
        room -= len(parts[-1]) + len(parts[-2])
        if room < 0:
            problem = Problem(REFUSED, "interpolation makes the values too long to pass on", binding.source)
            return None, [*problems, problem]
        if len(problems) > MAX_PROBLEMS:
            break
    is_sure = all(problem.severity == WARNING for problem in problems)
    return "".join([*parts, binding.value[at:]]) if is_sure else None, list(problems)


def _meaning(reference: re.Match[str], binding: Binding, known: _Known) -> tuple[str, Problem | None]:
    """Return what stands for a reference, and what is to be said about it."""
    escape, inside, end = reference.groups()
    form = re.fullmatch(_REFERRED, inside)
    if fault := _odd_form(escape, inside, end, form):
        return "", Problem(AMBIGUOUS, fault, binding.source, "write ${NAME} or ${NAME:-default}, or use single quotes")
    name, default = form.groups() if form else ("", None)
    value = _value_of(name, known)
    is_below = name in known.names and name not in known.above and name != binding.name
    if value is None and default is None:
        what = f"${{{name}}}" if is_below or name.isupper() else "a name in ${}"  # else it may be part of a password
        state = "is set only further down" if is_below else "is not set"
        hint = "move it up" if is_below else "set it above, or write a default as in ${NAME:-default}"
        return "", Problem(AMBIGUOUS, f"{what} {state}", binding.source, hint)
    if value == "" and default:
        message = f"${{{name}:-…}}: {name} is empty, where a shell takes the default and python-dotenv does not"
        return "", Problem(AMBIGUOUS, message, binding.source, f"set {name}, or remove it")
    if is_below and value is not None and (known.dotenv_wins or name not in known.caller):
        message = f"{name} is set further down, so ${{{name}}} is the caller's here"
        return value, Problem(WARNING, message, binding.source, "move it up")
    return value if value is not None else default or "", None


def _odd_form(escape: str, inside: str, end: str, form: re.Match[str] | None) -> str:
    """Say why a reference could be read in two ways, or return ''. It never shows what is no name."""
    if escape:
        return f"'{escape}' before '${{': no reader takes it for an escape"
    if not end:
        return "'${' never closes"
    if "${" in inside:
        return "'${' inside '${…}'"
    return "" if form else "'${…}' holds something else than a name"


def _value_of(name: str, known: _Known) -> str | None:
    layers = (known.above, known.caller) if known.dotenv_wins else (known.caller, known.above)
    return next((layer[name] for layer in layers if name in layer), None)
