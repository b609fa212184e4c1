"""Messages, exit codes, and what can be wrong with any text file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman import errors
from procman.errors import (
    AMBIGUOUS,
    MAX_FAULTS,
    MAX_PROBLEMS,
    NOTE,
    REFUSED,
    WARNING,
    Problem,
    ProcfileError,
    ProcmanError,
    SourceRef,
    capped,
    did_you_mean,
    judged,
    place_in,
    quoted,
    read_text,
    refused,
)

PACKAGE = Path(errors.__file__).parent


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ProcmanError", 1),
        ("UsageMistake", 2),
        ("ProcfileError", 65),
        ("EnvironmentFileError", 65),
        ("MissingFileError", 66),
        ("ControlError", 69),
        ("SpawnError", 71),
        ("OutputFileError", 73),
        ("ConfigError", 78),
    ],
)
def test_exit_code(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, ProcmanError)
    assert kind.exit_code == code


def test_only_errors_inherit() -> None:
    known = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ProcmanError)}
    tree = ast.parse((PACKAGE / "errors.py").read_text())
    raised = {node.name for node in tree.body if isinstance(node, ast.ClassDef)} - {"SourceRef", "Problem"}
    assert raised == known


# --- messages ---


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (SourceRef("Procfile"), "Procfile"),
        (SourceRef("Procfile", 3), "Procfile:3"),
        (SourceRef("app/.env", 3, 14), "app/.env:3:14"),
        (SourceRef("Procfile", 0, 2), "Procfile:2"),
    ],
)
def test_source(source: SourceRef, text: str) -> None:
    assert str(source) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ProcmanError("no"), "no"),
        (ProcmanError("no", hint="do"), "no — do"),
        (ProcfileError("no", source=SourceRef("Procfile", 7)), "Procfile:7: no"),
        (
            ProcfileError('"web" has no command', source=SourceRef("Procfile", 7), hint='write "web: <command>"'),
            'Procfile:7: "web" has no command — write "web: <command>"',
        ),
    ],
)
def test_message_says_where_what_and_what_to_do(error: ProcmanError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize(
    ("severity", "text"),
    [
        (REFUSED, "P:3: no — do"),
        (AMBIGUOUS, "P:3: no — do"),
        (WARNING, "P:3: warning: no — do"),
        (NOTE, "P:3: note: no — do"),
    ],
)
def test_problem(severity: str, text: str) -> None:
    assert str(Problem(severity, "no", SourceRef("P", 3), "do")) == text


def test_one_error_tells_all_problems() -> None:
    problems = [Problem(REFUSED, "one", SourceRef("P", 1)), Problem(AMBIGUOUS, "two", SourceRef("P", 2), "do")]
    error = ProcfileError.of(problems)
    assert type(error) is ProcfileError
    assert str(error) == "P:1: one\nP:2: two — do"


# --- what counts ---


@pytest.mark.parametrize(
    ("severity", "lenient", "strict", "becomes"),
    [
        (REFUSED, False, False, REFUSED),
        (REFUSED, True, False, REFUSED),
        (AMBIGUOUS, False, False, REFUSED),
        (AMBIGUOUS, True, False, WARNING),
        (AMBIGUOUS, True, True, WARNING),
        (WARNING, False, False, WARNING),
        (WARNING, False, True, REFUSED),
        (WARNING, True, True, REFUSED),
        (NOTE, False, True, NOTE),
        (NOTE, True, False, NOTE),
    ],
)
def test_judged(severity: str, lenient: bool, strict: bool, becomes: str) -> None:
    problem = Problem(severity, "no", SourceRef("P", 1))
    [found] = judged([problem], lenient, strict)
    assert found.severity == becomes
    assert found.message == ("left out: no" if severity == AMBIGUOUS and lenient else "no")
    assert refused([problem], lenient, strict) == ([found] if becomes == REFUSED else [])


# --- not endless ---


def _problems(count: int, severity: str = AMBIGUOUS) -> list[Problem]:
    return [Problem(severity, f"no {number}", SourceRef("P", number)) for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [0, 1, MAX_PROBLEMS, MAX_PROBLEMS + 1])
def test_few_problems_are_all_told(count: int) -> None:
    assert capped(_problems(count), "P") == _problems(count)


def test_others_are_counted_by_severity() -> None:
    found = capped([*_problems(MAX_PROBLEMS + 5), *_problems(3, WARNING), *_problems(1, NOTE)], "P")
    assert found[:MAX_PROBLEMS] == _problems(MAX_PROBLEMS)
    assert [(problem.severity, problem.message) for problem in found[MAX_PROBLEMS:]] == [
        (AMBIGUOUS, "5 more like these"),
        (WARNING, "3 more like these"),
        (NOTE, "no 1"),
    ]


def test_file_of_another_kind_is_no_longer_read() -> None:
    asked = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal asked
        while True:
            asked += 1
            yield Problem(AMBIGUOUS, "no", SourceRef("P", asked))

    found = capped(endless(), "P")
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1].severity == REFUSED
    assert asked == MAX_PROBLEMS + MAX_FAULTS


def test_warnings_alone_never_stop_the_reading() -> None:
    found = capped(_problems(MAX_FAULTS * 2, WARNING), "P")
    assert {problem.severity for problem in found} == {WARNING}


# --- words of the user's ---


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("web", '"web"'),
        ("wéb", '"wéb"'),
        ("", '""'),
        ("x" * 60, '"' + "x" * 60 + '"'),
        ("x" * 61, '"' + "x" * 57 + '..."'),
        ("a\nb", '"a\\nb"'),
        ("\x1b[2J", '"\\x1b[2J"'),
        ("\u202e", '"\\u202e"'),
    ],
)
def test_quoted(word: str, text: str) -> None:
    assert quoted(word) == text


@given(st.text())
def test_quoted_is_always_one_short_printable_line(word: str) -> None:
    assert quoted(word).isprintable()
    assert len(quoted(word)) <= 60 * 10 + 2


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("wbe", ["web", "worker"], 'did you mean "web"?'),
        ("workers", ["web", "worker"], 'did you mean "worker"?'),
        ("zzz", ["web", "worker"], "known: web, worker"),
        ("zzz", [], ""),
    ],
)
def test_did_you_mean(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known) == hint


# --- text files ---


def _read(data: bytes, encoding: str = "utf-8") -> tuple[str, list[str]]:
    text, problems = read_text(data, "P", encoding, "fix it")
    assert all(problem.severity == REFUSED for problem in problems)
    return text, [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"web: run\n", "web: run\n"),
        ("é漢🎉".encode(), "é漢🎉"),
        (b"\xef\xbb\xbfweb: run", "web: run"),
        (b"a\r\nb\rc", "a\r\nb\rc"),
    ],
)
def test_text_that_is_fine(data: bytes, text: str) -> None:
    assert _read(data) == (text, [])


@pytest.mark.parametrize(
    ("data", "places"),
    [
        (b"abc\0d", ["P:1:4: NUL character"]),
        (b"ok\nab\xff\xfe\nok\n\xc3", ["P:2:3: not UTF-8", "P:4:1: not UTF-8"]),
        ("é\0".encode(), ["P:1:2: NUL character"]),
        (b"\xed\xa0\x80", ["P:1:1: not UTF-8"]),
        ("a: b".encode("utf-16"), ["P: the file is UTF-16, not UTF-8"]),
        ("a: b".encode("utf-16-be"), ["P:1: NUL"]),
        ("a: b".encode("utf-16-le"), ["P:1: NUL"]),
        ("a: b".encode("utf-32"), ["P: the file is UTF-32, not UTF-8"]),
    ],
)
def test_text_that_is_damaged(data: bytes, places: list[str]) -> None:
    found = _read(data)[1]
    assert len(found) == len(places)
    for message, start in zip(found, places, strict=True):
        assert message.startswith(start)


def test_damage_is_never_part_of_the_text() -> None:
    text, _ = _read(b"abc\0d\xffe")
    assert text == "abc\ufffdd\ufffde"


@pytest.mark.parametrize(
    ("data", "encoding", "text", "problem"),
    [
        ("é".encode("latin-1"), "latin-1", "é", ""),
        ("é".encode("utf-16"), "utf-16", "é", ""),
        (b"ab\n\xff", "ascii", "", "P:2:1: not ascii"),
        (b"a", "no-such", "", 'P: "no-such" is no encoding of text'),
        (b"a", "base64", "", 'P: "base64" is no encoding of text'),
        (b"a", "a\0b", "", 'P: "a\\x00b" is no encoding of text'),
        ("é".encode(), "UTF_8", "é", ""),
    ],
)
def test_other_encodings(data: bytes, encoding: str, text: str, problem: str) -> None:
    found, problems = _read(data, encoding)
    assert found == text
    assert len(problems) == bool(problem)
    assert not problem or problems[0].startswith(problem)


@given(st.binary(max_size=200), st.sampled_from(["utf-8", "latin-1", "utf-16", "cp1252", "ascii", "idna", "utf-7"]))
def test_reading_never_raises_and_leaves_no_damage(data: bytes, encoding: str) -> None:
    text, _ = _read(data, encoding)
    assert "\0" not in text
    text.encode()


@pytest.mark.parametrize(("before", "place"), [("", (1, 1)), ("ab", (1, 3)), ("a\n", (2, 1)), ("a\nbc", (2, 3))])
def test_place_in(before: str, place: tuple[int, int]) -> None:
    assert place_in(before) == place
