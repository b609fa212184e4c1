r"""Row by row what a Procfile line means (P1-P38), and the corpus of real files.

A row is an input, the entries that are valid, and the start of each thing that is said. `!` marks what refuses the
file, `~` what refuses it unless lenient, `?` a warning, `.` a note.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from procman.errors import AMBIGUOUS, NOTE, REFUSED, WARNING, judged, refused
from procman.procfile import MAX_TYPES, parse_procfile

CORPUS = Path(__file__).parents[1] / "corpus" / "procfiles"
MARKS = {REFUSED: "!", AMBIGUOUS: "~", WARNING: "?", NOTE: "."}
NO_TYPES = "!P: no process types"

ROWS: dict[str, tuple[bytes, dict[str, str], list[str]]] = {
    "P1": (b"web: run", {"web": "run"}, []),
    "P2 no blank": (b"web:run", {"web": "run"}, []),
    "P3 space before colon": (b"a: x\n\nweb : run", {"a": "x"}, ["~P:3:4: space before ':' — write \"web: …\""]),
    "P3 tab": (b"a: x\nweb\t: run", {"a": "x"}, ["~P:2:4: space before ':'"]),
    "P4 indented": (b"a: x\n  web: run", {"a": "x"}, ['~P:2:3: indented — write "web: …" at the start of the line']),
    "P4 indented, no entry": (b"a: x\n\t--port 1", {"a": "x"}, ["~P:2:2: indented — start it at column 1"]),
    "P5": (b"web-1: run", {"web-1": "run"}, []),
    "P6 dot": (b"a: x\nweb.1: run", {"a": "x"}, ['~P:2:4: "." in the name']),
    "P7 names": (b"1web: a\nWEB: b\nweb_1: c", {"1web": "a", "WEB": "b", "web_1": "c"}, []),
    "P7 twins": (b"web: a\nWeb: b", {"web": "a"}, ['~P:2: "Web" and "web" on line 1 differ only by case']),
    "P8 non-ASCII": ("a: x\nwéb: b".encode(), {"a": "x"}, ['~P:2:2: "é" in the name']),
    "P9 comment": (b"# web: no\na: x", {"a": "x"}, []),
    "P10 indented comment": (b"  # c\n\t# d\na: x", {"a": "x"}, []),
    "P11 commented-out": (b"#web: run\na: x", {"a": "x"}, []),
    "P12 slashes": (b"a: x\n// web: run", {"a": "x"}, ['~P:2:1: not an entry: "//" starts no comment']),
    "P13 hash in the command": (b"web: run # c", {"web": "run # c"}, []),
    "P14 blank lines": (b"\n   \n\t\na: x\n\n", {"a": "x"}, []),
    "P15 CRLF": (b"web: a\r\nb: c\r\n", {"web": "a", "b": "c"}, [".P: note: lines end in CR LF"]),
    "P16 lone CR": (b"web: a\rb: c\r", {}, ["~P:1:7: a carriage return inside the line", NO_TYPES]),
    "P16 lone CR in a comment": (b"a: x\n# c\rb: c\n", {"a": "x"}, ["~P:2:4: a carriage return"]),
    "P16 CR CR LF": (b"web: a\r\r\n", {}, [".P: note: lines", "~P:1:7: a carriage return", NO_TYPES]),
    "P17 BOM": (b"\xef\xbb\xbfweb: run", {"web": "run"}, []),
    "P18": (b"web: run", {"web": "run"}, []),
    "P19 duplicate": (b"web: a\nb: c\nweb: d", {"web": "a", "b": "c"}, ['~P:3: "web" already defined on line 1']),
    "P20 continued": (b"web: a \\\n   b \\\n\tc\nd: e", {"web": "a  b  c", "d": "e"}, []),
    "P20 no blank": (b"web: a\\\nb", {"web": "a b"}, []),
    "P20 CRLF": (b"web: a\\\r\n b\r\n", {"web": "a b"}, [".P: note: lines end"]),
    "P20 after the name": (b"web: \\\n  run", {"web": "run"}, []),
    "P20 two backslashes": (b"web: a\\\\\nb: c", {"web": "a\\\\", "b": "c"}, []),
    "P20 three backslashes": (b"web: a\\\\\\\nb", {"web": "a\\\\ b"}, []),
    "P20 a blank line ends it": (b"web: a \\\n\nb: c", {"web": "a", "b": "c"}, []),
    "P20 end of file": (b"a: x\nweb: a \\\n", {"a": "x"}, ['~P:2:8: "\\" should continue the line, but no line']),
    "P20 entry follows": (b"web: a \\\nb: c", {"b": "c"}, ['~P:1:8: "\\" should continue the line, but the next']),
    "P20 URL follows": (b"web: curl \\\nhttp://x", {"web": "curl  http://x"}, []),
    "P20 comment follows": (b"a: x\nweb: a \\\n # c", {"a": "x"}, ['~P:2:8: "\\" should continue the line, but the n']),
    "P20 blank after it": (
        b"a: x\nweb: a \\ \nb: c",
        {"a": "x", "b": "c"},
        ['~P:2:8: "\\" should continue the line, but a'],
    ),
    "P20 comments are not continued": (b"# c \\\nweb: a", {"web": "a"}, []),
    "P21 trailing blanks": (b"web: run \t ", {"web": "run"}, []),
    "P21 only blanks of the shell": ("web: run\u00a0".encode(), {"web": "run\u00a0"}, []),
    "P22 no command": (b"a: x\nweb:", {"a": "x"}, ['~P:2: "web" has no command — write "web: <command>"']),
    "P23 blank command": (b"a: x\nweb:   ", {"a": "x"}, ['~P:2: "web" has no command']),
    "P24 junk": (b"a: x\nhello world", {"a": "x"}, ['~P:2: not an entry — write "name: command"']),
    "P24 equals": (b"a: x\nweb= x", {"a": "x"}, ["~P:2:4: '=' where ':' should be — write \"web: …\""]),
    "P24 equals and colon": (b"a: x\nURL=http://x:1", {"a": "x"}, ["~P:2:4: '=' where ':' should be"]),
    "P24 no colon": (b"a: x\nweb bundle exec", {"a": "x"}, ["~P:2: not an entry"]),
    "P24 no name": (b"a: x\n: run", {"a": "x"}, ["~P:2: not an entry"]),
    "P25 URL": (b"http://x/y", {"http": "//x/y"}, ['?P:1: warning: read as process type "http"']),
    "P25 meant": (b"http: //x/y", {"http": "//x/y"}, []),
    "P26 empty": (b"", {}, [NO_TYPES]),
    "P26 comments only": (b"# a\n\n", {}, [NO_TYPES]),
    "P27 release": (b"release: a\nweb: b", {"release": "a", "web": "b"}, []),
    "P28 all": (b"a: x\nall: y", {"a": "x"}, ['~P:2: no process type can be called "all"']),
    "P28 system": (b"a: x\nsystem: y", {"a": "x"}, ['~P:2: no process type can be called "system"']),
    "P28 none": (b"none: y", {"none": "y"}, []),
    "P29 quotes": (b"web: \"a b\" 'c'", {"web": "\"a b\" 'c'"}, []),
    "P30 assignment": (b"web: A=1 run", {"web": "A=1 run"}, []),
    "P31 variable": (b"web: run -p $PORT", {"web": "run -p $PORT"}, []),
    "P32 shell": (b"web: a && b | c", {"web": "a && b | c"}, []),
    "P33 invalid UTF-8": (b"a: x\nweb: \xe9\n", {"a": "x", "web": "\ufffd"}, ["!P:2:6: not UTF-8"]),
    "P33 each line": (b"a: \xff\nb: \xff", {"a": "\ufffd", "b": "\ufffd"}, ["!P:1:4: not UTF-8", "!P:2:4: not UTF-8"]),
    "P34 NUL": (b"a: x\nweb: a\0b", {"a": "x", "web": "a\ufffdb"}, ["!P:2:7: NUL character"]),
    "P34 UTF-16": ("web: run".encode("utf-16"), {}, ["!P: the file is UTF-16, not UTF-8"]),
    "P34 UTF-16 without a mark": ("web: run".encode("utf-16-le"), {}, ["!P:1: NUL in the first character: UTF-16"]),
    "P34 UTF-32": ("web: run".encode("utf-32"), {}, ["!P: the file is UTF-32, not UTF-8"]),
    "P35 other line ends": ("web: a\u2028b: c\x0bd\x0c".encode(), {"web": "a\u2028b: c\x0bd\x0c"}, []),
    "P36 long line": (b"web: " + b"x" * 70_000, {"web": "x" * 70_000}, []),
    "P35 a command of other blanks": ("web:\u2028".encode(), {"web": "\u2028"}, []),
    "P7 one variable": (
        b"web-1: a\nweb_1: b",
        {"web-1": "a", "web_1": "b"},
        ['?P:2: warning: "web_1" and "web-1" on line 1 share one variable'],
    ),
    "P37 env": (b"env: A=1 B='x y'", {"env": "A=1 B='x y'"}, ['?P:1: warning: the command of "env" only sets']),
    "P37 a command follows": (b"env: A=1 B=2 run", {"env": "A=1 B=2 run"}, []),
    "P37 a list of commands": (b"env: A=1; run", {"env": "A=1; run"}, []),
    "P37 dotted": (b"a: x\nweb.env: A=1", {"a": "x"}, ['~P:2:4: "." in the name']),
}


@pytest.mark.parametrize(("data", "types", "said"), ROWS.values(), ids=ROWS)
def test_row(data: bytes, types: dict[str, str], said: list[str]) -> None:
    read = parse_procfile(data, "P")
    assert {entry.name: entry.command for entry in read.types} == types
    told = [MARKS[problem.severity] + str(problem) for problem in read.problems]
    assert len(told) == len(said), told
    assert [text[: len(start)] for text, start in zip(told, said, strict=True)] == said


def test_each_row_has_a_test() -> None:
    # P38, `-f -`, is about files: the command line's tests have it.
    assert {row.split()[0] for row in ROWS} == {f"P{number}" for number in range(1, 38)}


def test_entries_know_their_line() -> None:
    read = parse_procfile(b"# c\nweb: a \\\n b\n\nworker: c\n", "dir/Procfile")
    assert [str(entry.source) for entry in read.types] == ["dir/Procfile:2", "dir/Procfile:5"]


def test_without_joining_a_backslash_means_nothing() -> None:
    read = parse_procfile(b"web: a \\\nworker: b\n", "P", joins_lines=False)
    assert [(entry.name, entry.command) for entry in read.types] == [("web", "a \\"), ("worker", "b")]


def test_lenient_lowers_what_is_ambiguous_and_nothing_else() -> None:
    problems = parse_procfile(b"web : a\nhttp://x\nb: \xff\nc: x\r\n", "P").problems
    assert [problem.severity for problem in refused(problems)] == [REFUSED] * 2
    assert [str(problem)[:5] for problem in refused(problems, lenient=True)] == ["P:3:4"]
    assert len(refused(problems, lenient=True, strict=True)) == 2
    lowered = [problem for problem in judged(problems, lenient=True) if problem.severity == WARNING]
    assert str(lowered[0]).startswith("P:1:4: warning: left out: space before ':'")
    assert judged(problems)[-1].severity != AMBIGUOUS


def test_findings_are_counted_when_they_are_many() -> None:
    problems = parse_procfile(b"web: a\n" * 151 + b"http://x\n", "P").problems
    assert len(problems) == 102
    assert [str(problem) for problem in problems[-2:]] == ["P: 50 more like these", str(problems[-1])]
    assert str(problems[-1]).startswith('P:152: warning: read as process type "http"')


def test_another_format_is_not_read_to_its_end() -> None:
    read = parse_procfile(b"x\n" * 20_000, "P")
    assert read.problems[-1].severity == REFUSED
    assert len(read.problems) == 101


def test_junk_is_never_shown() -> None:
    for line in (b"hunter2", b"hunter2@host: x", b" hunter2 x", b"x hunter2: a", b"// hunter2"):
        assert not [problem for problem in parse_procfile(line, "P").problems if "hunter2" in str(problem)]


# --- the corpus ------------------------------------------------------------------------------------------------------

FILES = json.loads((CORPUS / "expected.json").read_text())["files"]
REFUSED_FILES = {
    "004": "P19 duplicate type css",
    "109": "P12 a licence in // comments",
    "115": "P19 duplicate type web, P24 template tags",
    "119": "P24 entries without a colon",
    "170": "P19 duplicate types web and worker, P24 merge marks",
    "182": "P26 empty",
    "184": "P4 the only entry is indented",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file["id"])
def test_corpus(file: dict[str, object]) -> None:
    read = parse_procfile((CORPUS / f"{file['id']}.txt").read_bytes(), "Procfile")
    reason = REFUSED_FILES.get(str(file["id"]))
    assert bool(refused(read.problems)) == bool(reason), read.problems
    if "error-" in str(file.get("decision")):
        assert reason
    if not reason:
        # P21: trailing blanks are cut, as the shell does.
        entries = [[name, command.rstrip(" \t")] for name, command in file["entries"]]  # type: ignore[attr-defined]
        assert [[entry.name, entry.command] for entry in read.types] == entries


def test_too_many_types_are_refused() -> None:
    types = [f"web{number}: run\n" for number in range(MAX_TYPES + 1)]
    assert not refused(parse_procfile("".join(types[1:]).encode(), "P").problems)
    (problem,) = refused(parse_procfile("".join(types).encode(), "P").problems, lenient=True)
    assert str(problem) == "P: more than 1000 process types — is this the right file?"
