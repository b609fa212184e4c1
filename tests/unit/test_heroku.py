"""What `check --heroku` tells, against what node-foreman's own readers did with the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from procman.environment import merged, parse_env
from procman.errors import NOTE
from procman.heroku import _CRASH, _lines, differences
from procman.procfile import Procfile, parse_procfile

CORPUS = Path(__file__).parents[1] / "corpus" / "env"

# Made by running node-foreman 3.0.1; null where it threw.
FROZEN = json.loads((CORPUS / "node-foreman.json").read_text())
TEXTS = [
    *((text.encode(), read) for text, read in FROZEN["cases"]),
    *(((CORPUS / name).read_bytes(), read) for name, read in FROZEN["files"].items()),
]
NAMES = [*(ascii(text) for text, _ in FROZEN["cases"]), *FROZEN["files"]]

NO_PROCFILE = Procfile("Procfile", (), ())


def of_env(data: bytes) -> list[str]:
    return [str(note) for note in differences(NO_PROCFILE, [parse_env(data, ".env")], {".env": data})]


def of_procfile(text: str) -> list[str]:
    notes = differences(parse_procfile(text.encode(), "Procfile"), [], {"Procfile": text.encode()})
    assert all(note.severity == NOTE for note in notes)
    return [str(note).replace("Procfile:", "").replace("note: Heroku: ", "") for note in notes]


@pytest.mark.parametrize(("data", "theirs"), TEXTS, ids=NAMES)
def test_its_reader_of_env_files(data: bytes, theirs: dict[str, str] | None) -> None:
    read = dict(pair for _, pair in _lines(data.decode()))
    assert (None if _CRASH in read.values() else read) == theirs


@pytest.mark.parametrize(("data", "theirs"), TEXTS, ids=NAMES)
def test_a_note_wherever_a_value_differs_and_nowhere_else(data: bytes, theirs: dict[str, str] | None) -> None:
    file = parse_env(data, ".env")
    notes = of_env(data)
    if theirs is None:
        assert any("stack trace" in note for note in notes)
        return
    winners = merged([file])
    for name, binding in winners.items():
        if theirs.get(name) != binding.value:
            assert any(note.startswith(f"{binding.source}: ") for note in notes), name
    if all(theirs.get(binding.name) == binding.value for binding in file.bindings) and not theirs.keys() - winners:
        assert notes == []


CRASH = "`heroku local` ends with a stack trace: the quote does not close on this line"


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("A=1\nB=x y\nC='x'\n", []),
        ("A=x#c\n", [".env:1: note: Heroku: `heroku local` reads another value of A, cut at \"#\""]),
        ('A="x\\ny"\n', [".env:1: note: Heroku: `heroku local` reads another value of A, with the backslash in it"]),
        ('A="x\\"y"\n', [".env:1: note: Heroku: `heroku local` reads another value of A, cut at the quote inside"]),
        (
            "A=\n",
            [".env:1: note: Heroku: `heroku local` does not set A: the line is too short — quote the value"],
        ),
        (
            "export A=1\n",
            [".env:1: note: Heroku: `heroku local` reads another name than A — write NAME=value alone"],
        ),
        (
            'KEY="one\ntwo\nthree"\nB=x#y\n',  # the rest of a value is told once
            [
                f".env:1: note: Heroku: {CRASH} — write the value in one line, or quote it",
                ".env:4: note: Heroku: `heroku local` reads another value of B, cut at \"#\"",
            ],
        ),
        ("A=1\rB=x#y\n", None),  # a lone carriage return: the lines keep their numbers
    ],
)
def test_env_notes(text: str, notes: list[str] | None) -> None:
    found = of_env(text.encode())
    if notes is None:
        assert [note.partition(": ")[0] for note in found] == [".env:1", ".env:2"]
    else:
        assert found == notes


def test_env_notes_show_no_value() -> None:
    values = ["hunter2#hunter2", '"hunter2\\nhunter2"', '"hunter2', "\u00a0hunter2", "'hunter2' hunter2"]
    text = "".join(f"A{number}={value}\n" for number, value in enumerate(values))
    assert "A0" in "".join(of_env(text.encode()))
    assert "hunter2" not in "".join(of_env(text.encode()))


def test_another_encoding_differs() -> None:
    data = "A=ä\n".encode("latin-1")
    file = parse_env(data, ".env", "latin-1")
    (note,) = differences(NO_PROCFILE, [file], {".env": data})
    assert "another value of A" in note.message


CUT = "`heroku local` cuts the command of \"web\" at a blank that is no space, or a line separator — write spaces"
BLANKS = "`heroku local` reads no file with a line of blanks"


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("web: gunicorn -b :$PORT\nworker: sleep 1\n\n# comment\n#x: y\n", []),
        ("web:run\nweb_2:\trun  # c\n", []),
        ("web: echo a\\\\\n", []),
        ("web: a\r\nworker: b\r\n", []),
        ("web: a\r\n\r\nworker: b\r\n", [f"2: {BLANKS} — end lines with LF"]),
        ("web: a\n \t\nworker: b\n", [f"2: {BLANKS} — empty it"]),
        ("  # c\nweb: a\n", ["1: `heroku local` reads no file with an indented comment — start it at column 1"]),
        ("my-web: a\n", ['1: `heroku local` refuses "-" in the name "my-web" — use "_"']),
        ("\ufeffweb: a\n", ["1: the byte order mark becomes part of the first name — save the file without it"]),
        (
            "web: a \\\n  b \\\n\tc\nclock: d\n",
            ['1: "\\" at the end does not continue the line — write the command in one line, or into a script'],
        ),
        ("release: a\n", ["1: runs at each deploy, and `heroku local` does not run it"]),
        ("clock: a ${PORT:-1}\n", ['1: only web gets a PORT there, and "clock" uses it']),
        ("clock: a $PORTAL ${PORTAL} PORT\n", []),
        ("web: a\u2028b\n", [f"1: {CUT}"]),
        ("web:\u00a0a\n", [f"1: {CUT}"]),
        ("web: a\u00a0b\n", []),
    ],
)
def test_procfile(text: str, notes: list[str]) -> None:
    assert of_procfile(text) == notes


def test_many_notes_are_counted() -> None:
    notes = of_procfile("web: a\n" + " \n" * 1000)
    assert len(notes) == 101
    assert "900 more like these" in notes[-1]
