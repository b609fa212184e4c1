"""What Heroku would read differently: its own list of process types, and node-foreman's readers in `heroku local`.

Facts from node-foreman 3.0.1 (lib/envs.js, lib/procfile.js), which `heroku local` contains unchanged, and from the list
of types that `heroku local` makes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from procman.environment import Binding, EnvFile
from procman.errors import NOTE, Problem, SourceRef
from procman.procfile import Procfile, parse_procfile


def differences(procfile: Procfile, env_files: Iterable[EnvFile], texts: Mapping[str, bytes]) -> list[Problem]:
    """Return a note for each difference. `texts` are the bytes of the files, by path."""
    data = texts.get(procfile.path, b"")
    return [
        *_in_procfile(procfile, data),
        *(note for file in env_files for note in _in_env(file, _decoded(texts.get(file.path, b"")))),
    ]


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _note(message: str, source: SourceRef, hint: str = "") -> Problem:
    return Problem(NOTE, f"Heroku: {message}", source, hint)


# --- Procfile --------------------------------------------------------------------------------------------------------


def _in_procfile(procfile: Procfile, data: bytes) -> Iterator[Problem]:
    if data.startswith(b"\xef\xbb\xbf"):
        hint = "save the file without it"
        yield _note("the byte order mark becomes part of the first name", SourceRef(procfile.path, 1), hint)
    unjoined = {entry.name: entry for entry in parse_procfile(data, procfile.path, joins_lines=False).types}
    for entry in procfile.types:
        if "-" in entry.name:
            yield _note(f'`heroku local` refuses "-" in the name "{entry.name}"', entry.source, 'use "_"')
        if entry.name not in unjoined or unjoined[entry.name].command != entry.command:
            hint = "write the command in one line, or into a script"
            yield _note('"\\" at the end does not continue the line', entry.source, hint)
        if entry.name == "release":
            yield _note("runs at each deploy, and `heroku local` does not run it", entry.source)
        elif entry.name != "web" and re.search(r"\$\{?PORT\b", entry.command):
            yield _note(f'only web gets a PORT there, and "{entry.name}" uses it', entry.source)


# --- .env, as `heroku local` reads it --------------------------------------------------------------------------------

_CRASH = object()  # a quote that does not close in its line ends it with a stack trace


def _in_env(file: EnvFile, text: str) -> Iterator[Problem]:
    own: dict[int, Binding] = {binding.source.line: binding for binding in file.bindings}
    theirs = dict(_lines(text))
    for line in sorted({*own, *theirs}):
        source = SourceRef(file.path, line)
        binding, (name, value) = own.get(line), theirs.get(line, ("", None))
        if value is _CRASH:
            yield _note("`heroku local` ends with a stack trace: the quote does not close on this line", source)
        elif binding is None:
            yield _note("`heroku local` reads this line as a variable of its own", source)
        elif value is None:
            yield _note(f"`heroku local` does not set {binding.name}: the line is too short", source, "quote the value")
        elif name != binding.name:
            yield _note(f"`heroku local` reads another name than {binding.name}", source, "write NAME=value alone")
        elif value != binding.value:
            yield _note(f"`heroku local` reads another value of {binding.name}{_why(binding, str(value))}", source)


def _why(binding: Binding, theirs: str) -> str:
    if not binding.quote and "#" in binding.value:
        return ', cut at "#"'
    if "\\" in theirs:
        return ", with the backslash in it"
    return ""


def _lines(text: str) -> Iterator[tuple[int, tuple[str, object]]]:
    """Yield line number, name and value of each line that node-foreman takes for an assignment."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip().strip("\ufeff")
        if len(line) <= 2 or line.startswith("#"):  # so `A=` is nothing to it
            continue
        name, _, raw = line.partition("=")
        yield number, (name.strip(), _value(raw.strip()))


def _value(raw: str) -> object:
    if raw[:1] in ("'", '"'):
        end = raw.find(raw[0], 1)
        return raw[1:end] if end > 0 else _CRASH
    return re.sub(r"\s*#.*$", "", raw)
