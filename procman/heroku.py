"""What Heroku would read differently: its own list of process types, and node-foreman's readers in `heroku local`.

Facts from node-foreman 3.0.1 (lib/envs.js, lib/procfile.js), which `heroku local` contains unchanged, and from the list
of types that `heroku local` makes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from procman.environment import Binding, EnvFile
from procman.errors import NOTE, Problem, SourceRef, capped
from procman.procfile import ProcessType, Procfile


def differences(procfile: Procfile, env_files: Iterable[EnvFile], texts: Mapping[str, bytes]) -> list[Problem]:
    """Return a note for each difference. `texts` are the bytes of the files, by path."""
    return [
        *capped(_in_procfile(procfile, texts.get(procfile.path, b"")), procfile.path),
        *(
            note
            for file in env_files
            for note in capped(_in_env(file, _decoded(texts.get(file.path, b""))), file.path)
        ),
    ]


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _note(message: str, source: SourceRef, hint: str = "") -> Problem:
    return Problem(NOTE, f"Heroku: {message}", source, hint)


# What JavaScript's trim() and \s take for a blank, and what ends a line for its `.`, `^` and `$`.
_BLANKS = "\t\v\f \u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000\ufeff\n\r\u2028\u2029"
_LINE_ENDS = "\r\u2028\u2029"  # and \n, where both readers split the text


# --- Procfile --------------------------------------------------------------------------------------------------------


def _in_procfile(procfile: Procfile, data: bytes) -> Iterator[Problem]:
    text = _decoded(data)
    if text.startswith("\ufeff"):
        hint = "save the file without it"
        yield _note("the byte order mark becomes part of the first name", SourceRef(procfile.path, 1), hint)
    lines = text.removeprefix("\ufeff").split("\n")
    for entry in procfile.types:
        yield from _in_entry(entry, lines[entry.source.line - 1])
    for number, (above, line) in enumerate(zip(["", *lines], lines, strict=False), 1):
        if above.endswith("\\") or not line or line[0] == "#":
            continue
        if line.isspace():
            hint = "end lines with LF" if line == "\r" else "empty it"
            yield _note("`heroku local` reads no file with a line of blanks", SourceRef(procfile.path, number), hint)
        elif line.lstrip()[0] == "#":
            hint = "start it at column 1"
            yield _note("`heroku local` reads no file with an indented comment", SourceRef(procfile.path, number), hint)


def _in_entry(entry: ProcessType, line: str) -> Iterator[Problem]:
    if "-" in entry.name:
        yield _note(f'`heroku local` refuses "-" in the name "{entry.name}"', entry.source, 'use "_"')
    found = re.search(rf":[{_BLANKS}]*([^{_LINE_ENDS}]*)", line)
    theirs = found[1].strip(_BLANKS) if found else ""
    if theirs != entry.command and theirs.endswith("\\"):
        hint = "write the command in one line, or into a script"
        yield _note('"\\" at the end does not continue the line', entry.source, hint)
    elif theirs != entry.command:
        message = f'`heroku local` cuts the command of "{entry.name}" at a blank that is no space, or a line separator'
        yield _note(message, entry.source, "write spaces")
    if entry.name == "release":
        yield _note("runs at each deploy, and `heroku local` does not run it", entry.source)
    elif entry.name != "web" and re.search(r"\$(PORT\b|\{PORT\b)", entry.command):
        yield _note(f'only web gets a PORT there, and "{entry.name}" uses it', entry.source)


# --- .env, as `heroku local` reads it --------------------------------------------------------------------------------

_CRASH = object()  # a quote that does not close in its line ends it with a stack trace


def _in_env(file: EnvFile, text: str) -> Iterator[Problem]:
    own: dict[int, Binding] = {binding.source.line: binding for binding in file.bindings}
    theirs = dict(_lines(text))
    crashed = False
    for line in sorted({*own, *theirs}):
        source = SourceRef(file.path, line)
        binding, (name, value) = own.get(line), theirs.get(line, ("", None))
        if binding is None and crashed:
            continue  # the rest of a value of several lines
        crashed = value is _CRASH
        if value is _CRASH:
            hint = "write the value in one line, or quote it" if binding else ""
            message = "`heroku local` ends with a stack trace: the quote does not close on this line"
            yield _note(message, source, hint)
        elif binding is None:
            yield _note("`heroku local` reads this line as a variable of its own", source)
        elif value is None:
            is_short = len(binding.name + binding.value) < 2
            why = ": the line is too short" if is_short else ""
            yield _note(f"`heroku local` does not set {binding.name}{why}", source, "quote the value" if why else "")
        elif name != binding.name:
            yield _note(f"`heroku local` reads another name than {binding.name}", source, "write NAME=value alone")
        elif value != binding.value:
            yield _note(f"`heroku local` reads another value of {binding.name}{_why(binding, str(value))}", source)


def _why(binding: Binding, theirs: str) -> str:
    if not binding.quote and "#" in binding.value:
        return ', cut at "#"'
    if binding.quote and theirs.endswith("\\") and binding.value.startswith(theirs[:-1] + binding.quote):
        return ", cut at the quote inside"
    if "\\" in theirs:
        return ", with the backslash in it"
    return ""


def _lines(text: str) -> Iterator[tuple[int, tuple[str, object]]]:
    """Yield line number, name and value of each line that node-foreman takes for an assignment.

    Lines end at LF for it; a lone carriage return is counted all the same, for our own numbers do.
    """
    number = 1
    for whole in text.split("\n"):
        line = _without_comments(whole).strip(_BLANKS)
        if len(line.encode("utf-16-le", "replace")) > 4:  # of its characters more than 2; so `A=` is nothing to it
            name, _, raw = line.partition("=")
            yield number, (name.strip(_BLANKS), _value(raw.strip(_BLANKS)))
        number += 1 + whole.removesuffix("\r").count("\r")


def _without_comments(line: str) -> str:
    parts = re.split(f"([{_LINE_ENDS}])", line)
    return "".join(part for part in parts if not part.lstrip(_BLANKS).startswith("#"))


def _value(raw: str) -> object:
    if raw[:1] in ("'", '"'):
        end = raw.find(raw[0], 1)
        return raw[1:end] if end > 0 else _CRASH
    # A comment runs to the end of the text, and a line end inside, which the expression takes for one, keeps it.
    comment = raw.find("#", max(raw.rfind(end) for end in _LINE_ENDS) + 1)
    return raw if comment < 0 else raw[:comment].rstrip(_BLANKS)
