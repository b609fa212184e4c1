r"""Row by row what a `.env` line means (E1-E53), python-dotenv's quirks (Q1-Q20), and the corpus of real files.

A row is an input, the bindings that count under `--lenient`, and the start of each thing that is said. `!` marks what
refuses the file, `~` what refuses it unless lenient, `?` a warning, `.` a note. A new release of python-dotenv that
reads a row otherwise fails here.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from procman.environment import EnvFile, interpolate, is_disabled, layered, merged, parse_env
from procman.errors import AMBIGUOUS, NOTE, REFUSED, WARNING, refused

CORPUS = Path(__file__).parents[1] / "corpus" / "env"
MARKS = {REFUSED: "!", AMBIGUOUS: "~", WARNING: "?", NOTE: "."}

COMMENT = ".e:1: note: Foreman reads the comment"
HASH = (
    "?e:1: warning: '#' inside an unquoted value is kept; Foreman keeps it too, node-foreman and Honcho cut it — quote"
)
DOLLAR = "?e:1: warning: '${' is kept as it is"
NO_EQUALS = "this line has no '='"
PEM = "-----BEGIN KEY-----\nQUJD/+==\nRA==\n-----END KEY-----\n"

ROWS: dict[str, tuple[str | bytes, dict[str, str], list[str]]] = {
    "E1": ("A = 1", {"A": "1"}, []),
    "E2": ("A= 1", {"A": "1"}, [".e:1: note: Foreman keeps the blank behind '='"]),
    "E3": ("  A=1", {"A": "1"}, []),
    "E4": ("A=1  ", {"A": "1"}, []),
    "E5": ("export A=1", {"A": "1"}, []),
    "E6": ("A=x y", {"A": "x y"}, []),
    "E7": ("A=x # c", {"A": "x"}, [COMMENT]),
    "E8": ("A=x # c # d", {"A": "x"}, [COMMENT]),
    "E9": ("A=x#c", {"A": "x#c"}, [HASH]),
    "E10": ("A=#c", {"A": "#c"}, [HASH]),
    "E11": ("A= # c", {"A": ""}, [COMMENT]),
    "E12": ('A="x" # c', {"A": "x"}, [COMMENT]),
    "E13": ("B=1\nA='x'y", {"B": "1"}, ["~e:2:6: text behind the closing quote — quote the whole value"]),
    "E13 double": ('B=1\nA="x" y', {"B": "1"}, ["~e:2:6: text behind the closing quote"]),
    "E14": (r'A="x\ny"', {"A": "x\ny"}, []),
    "E15": (r"A='x\ny'", {"A": r"x\ny"}, []),
    "E16": (r"A=x\ny", {"A": r"x\ny"}, []),
    "E17": (r'A="x\ty"', {"A": "x\ty"}, []),
    "E18": (r'A="x\"y"', {"A": 'x"y'}, []),
    "E19": (r"A='x\'y'", {"A": "x'y"}, [r".e:1: note: \' and \\ stand for ' and \ even in single quotes"]),
    "E20": (r'A="C:\\d\\"', {"A": "C:\\d\\"}, []),
    "E20 a line below": ('A="C:\\\\d\\\\"\nB="x"', {"A": "C:\\d\\", "B": "x"}, []),
    "E21": (r"A=C:\dir\new", {"A": r"C:\dir\new"}, []),
    "E22": ('A="x\ny"\nB=1', {"A": "x\ny", "B": "1"}, []),
    "E22 PEM": (f'A="{PEM}"\nB=1', {"A": PEM, "B": "1"}, []),
    "E22 PEM without quotes": (
        f"A={PEM}",
        {"A": "-----BEGIN KEY-----", "RA": "="},
        ['~e:2:5: a name cannot have "/"', f"~e:4: {NO_EQUALS}"],
    ),
    "E23": ("A=x\\\ny", {"A": "x\\"}, [f"~e:2: {NO_EQUALS}"]),
    "E24": ("B=1\nA=${B}", {"B": "1", "A": "${B}"}, [DOLLAR.replace("1", "2", 1)]),
    "E24 double": ('A="${B}"', {"A": "${B}"}, [DOLLAR]),
    "E25": ("A=$B", {"A": "$B"}, []),
    "E26": ("A='${B}'", {"A": "${B}"}, []),
    "E27": ("A=pa$$word$1", {"A": "pa$$word$1"}, []),
    "E28": ("A=s3cr$T", {"A": "s3cr$T"}, []),
    "E29": ("A=$(echo hi)", {"A": "$(echo hi)"}, []),
    "E30": ("A=", {"A": ""}, []),
    "E31": ('A=""', {"A": ""}, []),
    "E32": ("A=1\nB=2\nA=3", {"A": "3", "B": "2"}, ['?e:3: warning: "A" is set again, so line 1 has no effect']),
    "E33": ("B=1\nA", {"B": "1"}, [f"~e:2: {NO_EQUALS} — write NAME=value"]),
    "E33 export": ("B=1\nexport A", {"B": "1"}, [f"~e:2: {NO_EQUALS}"]),
    "E33 nothing after export": ("B=1\nexport # c", {"B": "1"}, [f"~e:2: {NO_EQUALS}"]),
    "E34": ("B=1\nthis is junk", {"B": "1"}, [f"~e:2: {NO_EQUALS}"]),
    "E34 with =": ("B=1\nthis is=junk", {"B": "1"}, ["~e:2: not an assignment"]),
    "E34 no name": ("B=1\n=x", {"B": "1"}, ["~e:2: not an assignment"]),
    "E34 export": ("B=1\nexport =x", {"B": "1"}, ["~e:2: not an assignment"]),
    "E35": ("B=1\nA: 1", {"B": "1"}, ["~e:2:2: ':' where '=' should be — write NAME=value"]),
    "E35 no blank": ("B=1\nA:1", {"B": "1"}, ["~e:2:2: ':' where '=' should be"]),
    "E36": ("B=1\nA-B=1", {"B": "1", "A-B": "1"}, ['~e:2:2: a name cannot have "-"']),
    "E37": ("A.B=1", {"A.B": "1"}, ["?e:1: warning: '.' in a name: no shell can read it"]),
    "E38": ("1A=1", {"1A": "1"}, ['~e:1:1: a name cannot start with "1"']),
    "E39": ("'A'=1", {"A": "1"}, ["~e:1:1: quotes around the name — write NAME=value"]),
    "E39 double": ('"A"=1', {}, ["~e:1:1: a name cannot start with"]),
    "E40": ('B=1\nA= "x\nC=2', {"B": "1", "C": "2"}, ["~e:2:4: quote opened here never closes"]),
    "E40 swallows": (
        "A='x\nB='y'\nC=1",
        {"B": "y", "C": "1"},
        ["~e:1:3: quote opened here closes on line 2, where the next"],
    ),
    "E40 swallows more": (
        "A='x\nB=1\nC=it's\nD=1",
        {"B": "1", "C": "it's", "D": "1"},
        ["~e:1:3: quote opened here closes on line 3, with text behind it"],
    ),
    "E41": ("A=it's", {"A": "it's"}, []),
    "E42": ('A={"a": "b c"}', {"A": '{"a": "b c"}'}, []),
    "E42 file": ('{\n"A": "1"\n}', {}, ["!e: the file is JSON — write one NAME=value on each line"]),
    "E43": ("A=http://x/y#frag", {"A": "http://x/y#frag"}, [HASH]),
    "E44": ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}, []),
    "E44 in quotes": ('A="x\r\ny"\r\n', {"A": "x\ny"}, []),
    "E44 lines": ("A\r\n\r\nB\r\n", {}, [f"~e:1: {NO_EQUALS}", f"~e:3: {NO_EQUALS}"]),
    "E45": ("A=1\rB=2\r", {"A": "1", "B": "2"}, [".e: note: a lone carriage return ends a line"]),
    "E46": (b"\xef\xbb\xbfA=1", {"A": "1"}, []),
    "E47": ("A=1", {"A": "1"}, []),
    "E48": (b"A=1\nB=x\xe9\n", {"A": "1", "B": "x\ufffd"}, ["!e:2:4: not UTF-8 — save the file as UTF-8, or name"]),
    "E49": ("A=1\nB=a\0b", {"A": "1", "B": "a\ufffdb"}, ["!e:2:4: NUL character"]),
    "E49 UTF-16": ("A=1\n".encode("utf-16"), {}, ["!e: the file is UTF-16, not UTF-8"]),
    "E50": ('A="x\u2028y"', {"A": "x\u2028y"}, []),
    "E50 unquoted": ("A=x\u2028y", {"A": "x\u2028y"}, ["?e:1: warning: a blank that is no space and no tab (U+2028)"]),
    "E51": ("# c\n\n  # c\n\t\nA=1", {"A": "1"}, []),
    "E52": ("A==x\nB=a=b", {"A": "=x", "B": "a=b"}, []),
    "E53": ("A=`x y`", {"A": "`x y`"}, []),
    "empty": ("", {}, []),
    # The quirks that a line can show; the others have tests of their own below.
    "Q3": ("junk\nA=1\n\n\n  more junk", {"A": "1"}, [f"~e:1: {NO_EQUALS}", f"~e:5: {NO_EQUALS}"]),
    "Q4": ("A=\\${B}$${C}", {"A": "\\${B}$${C}"}, [DOLLAR]),
    "Q8": ("A", {}, [f"~e:1: {NO_EQUALS}"]),
    "Q9": ("A$=1", {}, ['~e:1:2: a name cannot have "$"']),
    "Q9 non-ASCII": ("é=1", {}, ['~e:1:1: a name cannot start with "é"']),
    "Q9 export": ("export=1", {"export": "1"}, []),
    "Q10": (r"A='C:\\d'", {"A": r"C:\d"}, [r".e:1: note: \' and \\ stand for"]),
    "Q11": (r'A="\u00e9\q\$\a"', {"A": "\\u00e9\\q\\$\a"}, []),
    "Q12": ("A=\u00a0x", {"A": "x"}, ["?e:1: warning: a blank that is no space and no tab (U+00A0)"]),
    "Q12 before": ("\u2003A=x", {"A": "x"}, ["?e:1: warning: a blank that is no space and no tab (U+2003)"]),
    "Q12 quoted": ('A="\u00a0x"', {"A": "\u00a0x"}, []),
    "Q14": (
        'A="x\nB="\nC=1',
        {"C": "1"},
        ["~e:1:3: quote opened here closes on line 2, where the next", "~e:2:3: quote opened here never closes"],
    ),
    "Q14 inside": ('A="x\nB=1\nC=2"', {"A": "x\nB=1\nC=2"}, ["?e:1: warning: lines inside the quotes read like"]),
    "header": ("# procman: interpolate\nA=${B}", {"A": "${B}"}, []),
    "header below": (
        "A=${B}\n# procman: interpolate",
        {"A": "${B}"},
        [DOLLAR, "?e:2:1: warning: this header says nothing below"],
    ),
    "header unknown": ("# procman: interpolat\nA=1", {"A": "1"}, ["?e:1:1: warning: unknown header"]),
    "blanks": (f"A=x{' ' * 501}y", {}, ["!e:1:4: more than 500 blanks in a row"]),
    "blanks below the limit": (f"A=x{' ' * 500}y", {"A": f"x{' ' * 500}y"}, []),
}


def read(text: str | bytes, *, path: str = "e", interpolates: bool = False) -> EnvFile:
    return parse_env(text.encode() if isinstance(text, str) else text, path, interpolates=interpolates)


def said(file: EnvFile) -> list[str]:
    return [MARKS[problem.severity] + str(problem) for problem in file.problems]


@pytest.mark.parametrize(("text", "values", "starts"), ROWS.values(), ids=ROWS)
def test_row(text: str | bytes, values: dict[str, str], starts: list[str]) -> None:
    file = read(text)
    assert {name: binding.value for name, binding in merged([file]).items()} == values
    told = said(file)
    assert len(told) == len(starts), told
    assert [one[: len(start)] for one, start in zip(told, starts, strict=True)] == starts


def test_each_row_has_a_test() -> None:
    rows = {row.split()[0] for row in ROWS}
    assert {f"E{number}" for number in range(1, 54)} <= rows


def test_no_message_shows_a_value() -> None:
    for line in [
        "hunter2", "A='x'hunter2", "A=\"hunter2", "hunter2 a=b", "hunter2/+=", "hunter2: x", "x\\\nhunter2\nA hunter2",
        "A='hunter2\nB='hunter2'", "{hunter2", "# procman: hunter2", "A=${hunter2}", "A=hunter2#", "A='hunter2\\''",
    ]:  # fmt: skip
        file = read(line)
        files = interpolate([file._replace(interpolates=True)], {})
        assert not [problem for problem in files[0].problems if "hunter2" in str(problem)], line


def test_encoding() -> None:
    file = parse_env("A=é".encode("latin-1"), "e", encoding="latin-1")
    assert file.bindings[0].value == "é"
    assert parse_env("A=é".encode("utf-16"), "e", encoding="utf-16").bindings[0].value == "é"
    assert said(parse_env(b"A=1\nB=\xe9", "e", encoding="ascii"))[0].startswith("!e:2:3: not ascii")
    for odd in ("no-such", "rot13", "a\0b", "undefined"):
        assert "is no encoding of text" in said(parse_env(b"A=1", "e", encoding=odd))[0]


def test_a_name_of_an_encoding_is_shown_without_its_control_characters() -> None:
    (problem,) = parse_env(b"~", "e", "HZ\x1f").problems  # Python takes it for HZ
    assert str(problem).startswith("e:1:1: not HZ\\x1f — ")


def test_too_many_assignments_are_refused() -> None:
    assert said(read("A=1\n" * 100_001))[-1].startswith("!e: more than 100000 assignments")


def test_disabled_q17() -> None:
    assert is_disabled({"PYTHON_DOTENV_DISABLED": "True"})
    assert not is_disabled({"PYTHON_DOTENV_DISABLED": "0"})
    assert not is_disabled({})


# --- several files ---------------------------------------------------------------------------------------------------


def test_the_last_file_wins_and_the_others_are_known_f2() -> None:
    files = [read("A=1\nA=2\nB=1", path="base"), read("A=3", path="local")]
    assert {name: binding.value for name, binding in merged(files).items()} == {"A": "3", "B": "1"}
    layers = layered(files)
    assert str(layers["A"].winner.source) == "local:1"
    assert [str(binding.source) for binding in layers["A"].overridden] == ["base:1", "base:2"]
    assert layers["B"].overridden == ()


INTERPOLATED: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "above": ("B=1\nA=x${B}y", {"B": "1", "A": "x1y"}, []),
    "double quotes": ('B=1\nA="${B}"', {"B": "1", "A": "1"}, []),
    "E26 single quotes": ("B=1\nA='${B}'", {"B": "1", "A": "${B}"}, []),
    "E25 no braces": ("B=1\nA=$B", {"B": "1", "A": "$B"}, []),
    "caller": ("A=${HOME}/x", {"A": "/home/x"}, []),
    "itself": ("HOME=${HOME}:/y", {"HOME": "/home:/y"}, []),
    "itself, twice": ("A=1\nA=${A}2", {"A": "12"}, ['?e:2: warning: "A" is set again']),
    "file before caller": ("HOME=/x\nA=${HOME}", {"HOME": "/x", "A": "/x"}, []),
    "default": ("A=${NO:-d e}", {"A": "d e"}, []),
    "default not needed": ("B=1\nA=${B:-d}", {"B": "1", "A": "1"}, []),
    "empty default": ("A=${NO:-}", {"A": ""}, []),
    "not twice": ("B='${C}'\nA=${B}", {"B": "${C}", "A": "${C}"}, []),
    "Q5 unset": ("A=${NO}", {}, ["~e:1: ${NO} is not set — set it above, or write a default"]),
    "Q5 unset, part of a password": ("A=${no}", {}, ["~e:1: a name in ${} is not set"]),
    "Q5 dash": ("A=${HOME-d}", {}, ["~e:1: '${…}' holds something else than a name"]),
    "Q5 question": ("A=${HOME:?e}", {}, ["~e:1: '${…}' holds something else"]),
    "Q5 blanks": ("A=${ HOME }", {}, ["~e:1: '${…}' holds something else"]),
    "Q5 nothing": ("A=${}", {}, ["~e:1: '${…}' holds something else"]),
    "Q5 nested": ("A=${NO:-${HOME}}", {}, ["~e:1: '${' inside '${…}'"]),
    "Q5 open": ("A=${HOME", {}, ["~e:1: '${' never closes"]),
    "Q5 empty with default": ("B=\nA=${B:-d}", {"B": ""}, ["~e:2: ${B:-…}: B is empty, where a shell takes"]),
    "Q4 backslash": ("A=\\${HOME}", {}, ["~e:1: '\\' before '${'"]),
    "Q4 dollar": ("A=$${HOME}", {}, ["~e:1: '$' before '${'"]),
    "Q6 below": ("A=${B}\nB=1", {"B": "1"}, ["~e:1: ${B} is set only further down — move it up"]),
    "Q6 below and caller": (
        "A=${HOME}\nHOME=/x",
        {"A": "/home", "HOME": "/x"},
        ["?e:1: warning: HOME is set further down, so ${HOME} is the caller's here"],
    ),
    "each fault once": ("A=${NO}${NO}${NO2}", {}, ["~e:1: ${NO} is not set", "~e:1: ${NO2} is not set"]),
}


@pytest.mark.parametrize(("text", "values", "starts"), INTERPOLATED.values(), ids=INTERPOLATED)
def test_interpolation(text: str, values: dict[str, str], starts: list[str]) -> None:
    files = interpolate([read(text, interpolates=True)], {"HOME": "/home"})
    assert {name: binding.value for name, binding in merged(files).items()} == values
    told = said(files[0])
    assert len(told) == len(starts), told
    assert [one[: len(start)] for one, start in zip(told, starts, strict=True)] == starts


def test_interpolation_sees_earlier_files_q7() -> None:
    files = [read("B=1\nX=${B}", path="base"), read("# procman: interpolate\nA=${B}", path="local")]
    values = {name: binding.value for name, binding in merged(interpolate(files, {})).items()}
    assert values == {"B": "1", "X": "${B}", "A": "1"}


def test_interpolation_prefers_the_caller_where_it_wins() -> None:
    files = [read("B=1\nA=${B}", interpolates=True)]
    assert merged(interpolate(files, {"B": "2"}, dotenv_wins=False))["A"].value == "2"
    assert merged(interpolate(files, {"B": "2"}))["A"].value == "1"


def test_values_that_double_each_other_are_refused() -> None:
    lines = ["A0=xx"] + [f"A{number}=${{A{number - 1}}}${{A{number - 1}}}" for number in range(1, 60)]
    file = interpolate([read("\n".join(lines), interpolates=True)], {})[0]
    assert "!e:21: interpolation makes the values too long" in said(file)[0]


# --- the corpus ------------------------------------------------------------------------------------------------------

FILES = json.loads((CORPUS / "expected.json").read_text())["files"]
CASES = json.loads((CORPUS / "tables.json").read_text())["cases"]
REFUSED_FILES = {
    "e031": "E35 NAME: value",
    "e042": "E34 a junk line",
    "e089": "E36 '-' in a name",
    "e098": "E34 backticks around several lines",
}
REFUSED_CASES = {
    "theskumar:test_parser.py:67": "E39 quotes around the name",
    "theskumar:test_parser.py:455": "E40 open quote",
    "theskumar:test_parser.py:529": "Q9 '[' in a name",
    "joho:godotenv_test.go:437": "E34 no name",
    "joho:godotenv_test.go:189": "E36 '-' in a name",
    "bkeepers:parser_spec.rb:112": "E33 export without =",
    "bkeepers:parser_spec.rb:117": "E33 export without =",
    "bkeepers:parser_spec.rb:153": "E33 no =",
}
NEVER_READ = {"uglyKey[%$"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file["id"])
def test_corpus(file: dict[str, dict[str, str]]) -> None:
    """Each binding value is as expected, and nothing is refused but for a reason the tables name."""
    name = str(file["id"])
    env = parse_env((CORPUS / f"{name}.txt").read_bytes(), ".env")
    assert bool(refused(env.problems)) == (name in REFUSED_FILES), said(env)
    assert not refused(env.problems, lenient=True)
    graded = {key: value for key, value in file["expected"].items() if file["tier"].get(key) != "C"}
    values = {key: binding.value for key, binding in merged([env]).items() if key in graded}
    assert values == graded


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_cases_of_the_libraries(case: dict[str, dict[str, str]]) -> None:
    env = read(str(case["input"]))
    assert bool(refused(env.problems)) == (str(case["id"]) in REFUSED_CASES), said(env)
    graded = {key for key, grade in case["grade"].items() if grade in "AB"} - NEVER_READ
    values = {key: binding.value for key, binding in merged([env]).items() if key in graded}
    assert values == {key: case["expected"][key] for key in graded}
