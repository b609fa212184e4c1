"""Hostile input: no reader raises anything but a ProcmanError, what is accepted reads the same again, time is linear.

PROCMAN_FUZZ_EXAMPLES sets the number of examples of each test (CI: 10,000). A failure prints a line with
`@reproduce_failure` that repeats it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from procman.cli.group import cli
from procman.config import (
    SETTINGS,
    VARIABLES,
    SettingsFile,
    name_problems,
    resolve_settings,
    with_dotenv,
)
from procman.environment import interpolate, layered, merged, parse_env
from procman.errors import (
    AMBIGUOUS,
    NOTE,
    REFUSED,
    WARNING,
    Problem,
    ProcmanError,
    SourceRef,
    judged,
    refused,
)
from procman.formation import parse_counts, resolve_formation
from procman.ports import assign_ports
from procman.procfile import ProcessType, parse_procfile
from procman.settings_files import parse_settings

gc.enable()  # the command line switches it off for its own first milliseconds

EXAMPLES = int(os.environ.get("PROCMAN_FUZZ_EXAMPLES", "200"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, print_blob=True, database=None)

SECRET = "hunter2"


def mixed(*pieces: str) -> st.SearchStrategy[bytes]:
    """Return bytes made of `pieces`, which matter to the reader at hand, and of anything else."""
    common = [
        "\n",
        "\n",
        "\r\n",
        "\r",
        " ",
        "\t",
        "\\",
        '"',
        "'",
        "#",
        "=",
        ":",
        "web",
        "A",
        SECRET,
        "\ufeff",
        "\u2028",
    ]
    words = st.sampled_from([*common, *pieces]).map(lambda word: word.encode())
    odd = st.binary(max_size=3) | st.text(max_size=3).map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.lists(st.one_of(words, words, words, odd), max_size=40).map(b"".join)


def check_problems(problems: tuple[Problem, ...], data: bytes) -> None:
    lines = data.count(b"\n") + data.count(b"\r") + 1
    for problem in problems:
        assert problem.severity in (REFUSED, AMBIGUOUS, WARNING, NOTE)
        assert str(problem).isprintable()
        assert 0 <= problem.source.line <= lines
        assert problem.source.column >= 0
    assert all(problem.severity != AMBIGUOUS for problem in judged(problems, lenient=True))
    assert len(refused(problems, lenient=True)) <= len(refused(problems)) <= len(refused(problems, strict=True))


# --- Procfile --------------------------------------------------------------------------------------------------------


@fuzzed
@given(mixed("web: run", "worker:", "release: x", "\\\n", "  ", "//", "a.b: c", "all: x", "Web: y", "é: z", "A=1 "))
def test_procfile(data: bytes) -> None:
    read = parse_procfile(data, "P")
    check_problems(read.problems, data)
    assert read.types or refused(read.problems, lenient=True)
    assert len({entry.name.lower() for entry in read.types}) == len(read.types)
    text = "".join(f"{entry.name}: {entry.command}\n" for entry in read.types)
    again = parse_procfile(text.encode(), "P")
    assert [entry[:2] for entry in again.types] == [entry[:2] for entry in read.types]
    assert not read.types or not refused(again.problems)


# --- .env ------------------------------------------------------------------------------------------------------------

ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


@fuzzed
@given(
    mixed("export ", "A=1\n", "B='", 'C="', "${", "}", "${A}", ":-", "x # c", "A-B=", "1=", "\n'A'=", "=\u00a0", "{"),
    st.booleans(),
)
def test_env(data: bytes, interpolates: bool) -> None:
    file = parse_env(data, "e", interpolates=interpolates)
    check_problems(file.problems, data)
    names = " ".join(binding.name for binding in file.bindings)
    replaced = interpolate([file, file], {"A": SECRET, "web": SECRET})
    for problem in [*file.problems, *replaced[1].problems]:
        assert SECRET not in str(problem) or SECRET in names
    values = {name: binding.value for name, binding in merged([file]).items()}
    assert {name: layers.winner.value for name, layers in layered([file]).items()} == values
    text = "".join(f'{name}="{value.translate(ESCAPES)}"\n' for name, value in values.items())
    again = {name: binding.value for name, binding in merged([parse_env(text.encode(), "e")]).items()}
    assert again == values


@fuzzed
@given(st.binary(max_size=40), st.sampled_from(["latin-1", "utf-16", "utf-7", "ascii", "cp037", "idna"]) | st.text())
def test_env_in_any_encoding(data: bytes, encoding: str) -> None:
    for problem in parse_env(data, "e", encoding).problems:
        assert str(problem).isprintable()


# --- formation -------------------------------------------------------------------------------------------------------

TYPES = [ProcessType(name, "run", SourceRef("P", 1)) for name in ("release", "web", "worker")]
COUNTS = st.lists(
    st.sampled_from(["web", "worker", "all", "release", "=", "=2", ",", "0", "65535", "-1", " ", "³", SECRET])
    | st.text(),
    max_size=8,
).map("".join)


@fuzzed
@given(st.lists(COUNTS, max_size=3), st.none() | COUNTS, st.none() | COUNTS, st.none() | COUNTS)
def test_formation(names: list[str], foreman: str | None, honcho: str | None, setting: str | None) -> None:
    try:
        counts = resolve_formation(TYPES, names=names, foreman=foreman, honcho=honcho, setting=setting)
    except ProcmanError:
        return
    assert list(counts) == [entry.name for entry in TYPES]
    text = ",".join(f"{name}={count}" for name, count in counts.items())
    assert resolve_formation(TYPES, foreman=text) == counts
    assert parse_counts(text.split(","), origin="-m") == counts
    try:
        ports = assign_ports(counts, 5000, 100)
    except ProcmanError:
        return
    given_out = [port for taken in ports.values() for port in taken]
    assert len(set(given_out)) == len(given_out) == sum(counts.values())


# --- settings --------------------------------------------------------------------------------------------------------

KEYS = [f"\n{key} = " for key in SETTINGS]
TABLES = ["\n[process.web]\n", "\n[tool.procman]\n", "\n[", "]", "{", "}", "[[", "stop_signal = ", "env.A = "]
PROBES = ["\nready = {", "\nliveness = {", "http = '/'", "log = '('", "port = true", "within = "]
PROBES += ["every = ", ", ", "}", "\nready.", "http = "]
PROBES += ["\nneeds = ['web']", "\nneeds = 'A,b'", "\nwatch = ['**']", "\nphase = 'release'", "\n[process.b]"]
VALUES = ["1", "7000", "-1", "nan", "inf", "true", "false", "'2m'", '"web=2"', "['web']", "'stop'", "1979-05-27", '"""']


def toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(word) for word in value) + "]"
    if isinstance(value, float):
        return repr(value)
    if value is None:  # no ports
        return "false"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@fuzzed
@given(
    mixed(*KEYS, *KEYS, *TABLES, *PROBES, *VALUES, *VALUES), st.sampled_from(["procman.toml", "pyproject.toml"])
)
def test_toml(data: bytes, path: str) -> None:
    file = parse_settings(data, path)
    check_problems(file.problems, data)
    check_settings(file)


@fuzzed
@given(
    mixed("\nport: ", "\nformation: ", "env: ", "timeout: ", "color: ", "root: .\n", "web=2", "7000", "---\n", "[", "&")
)
def test_foreman_file(data: bytes) -> None:
    file = parse_settings(data, ".foreman")
    check_problems(file.problems, data)
    check_settings(file)


def check_settings(file: SettingsFile) -> None:
    keys = {setting.field: key for key, setting in SETTINGS.items()}
    text = "".join(f"{keys[field]} = {toml(given.value)}\n" for field, given in file.values.items())
    again = parse_settings(text.encode(), "procman.toml")
    assert not again.problems
    assert {field: value for field, (value, _) in again.values.items()} == {
        field: value for field, (value, _) in file.values.items()
    }
    if not refused(file.problems):
        found = resolve_settings("/app", files=[file])
        assert all(str(problem).isprintable() for problem in name_problems(found, ["web"]))


WORDS = st.text(st.characters(exclude_characters="\0"), max_size=8) | st.sampled_from(
    ["1", "7000", "10s", "no", "stop"]
)


@fuzzed
@given(st.dictionaries(st.sampled_from([*VARIABLES, "PORT", "PROCFILE", "PROCMAN_X"]), WORDS | st.just(SECRET)))
def test_variables(caller: dict[str, str]) -> None:
    settings = with_dotenv(resolve_settings("/app", caller=caller), {}, caller)
    for problem in settings.problems:
        assert SECRET not in str(problem)
        assert str(problem).isprintable()


# --- the commands: all files at once ----------------------------------------------------------------------------------

FILES = {
    "Procfile": mixed("web: run\n", "worker: a $PORT\n", "release: x", "\\\n", "  ", "//", "a.b: c", "http://x\n"),
    ".env": mixed("export ", "A=1\n", "B='", 'C="', "${", "}", "PORT=", "7000\n", "PROCFILE=", "x\n", "{", "API_KEY="),
    "procman.toml": mixed(*KEYS, *TABLES, *PROBES, *VALUES, "\n[process.web]\nenv = {A = 'x'}\n"),
    "pyproject.toml": mixed("\n[tool.procman]\n", *KEYS, *VALUES),
    ".foreman": mixed("\nport: ", "\nformation: ", "env: ", "timeout: ", "root: .\n", "web=2", "7000", "["),
    ".env.example": mixed("A=\n", "# B=1\n", "export "),
    ".env.production": mixed("A=redis://x\n", "B=", "sqlite://\n"),
}
SPARSE = st.fixed_dictionaries({}, optional=FILES)
FLAGS = st.lists(st.sampled_from(["--lenient", "--verbose", "--interpolate", "--no-override", "--no-port"]), max_size=3)
COMMANDS = [
    *(["check"], ["check", "--heroku"], ["check", "--strict"]),
    *(["env"], ["env", "web.2", "--origin"], ["env", "--json", "--origin"], ["env", "--no-caller", "--show-secrets"]),
]


@fuzzed
@given(SPARSE, st.sampled_from(COMMANDS), FLAGS)
def test_commands(files: dict[str, bytes], command: list[str], flags: list[str]) -> None:
    """Whatever stands in the files: a command says so and ends with a code of the table, and `run` would, too."""
    with tempfile.TemporaryDirectory() as root:
        for name, data in files.items():
            Path(root, name).write_bytes(data)
        result = CliRunner().invoke(cli, [*command, "-d", root, *flags])
    if result.exception is None:
        assert not any(line.startswith("error") for line in result.output.splitlines())
    else:
        assert isinstance(result.exception, ProcmanError), repr(result.exception)
        assert result.exception.exit_code in (2, 65, 66, 78)
        assert all(line.isprintable() and line for line in str(result.exception).split("\n"))


# --- linear time -----------------------------------------------------------------------------------------------------

PROCFILES = {
    "entries": b"web: a\n",
    "junk": b"x\n",
    "blank lines": b"\n",
    "continued": b"\\\n",
    "continued entry": b"web: a \\\n",
    "backslashes": b"\\",
    "blanks": b" ",
    "carriage returns": b"\r",
    "NUL": b"a\0\n",
    "no UTF-8": b"\xff\n",
    "comments": b" #\n",
    "assignments": b"A='b' ",
    "quotes": b"A='\"",
}
ENVS = {
    "assignments": b"A=1\n",
    "junk": b"x\n",
    "blank lines": b"\n",
    "open double quotes": b'A="x\n',
    "open quotes": b"A='\nB=\"\n",
    "escaped quotes": b'A="\\"\n',
    "quoted names": b"'a\n",
    "backslashes": b"\\",
    "blanks": b" ",
    "blanks and text": b" " * 400 + b"x",
    "comments": b"#\n",
    "references": b"${A}",
    "open references": b"${",
    "carriage returns": b"\r",
}
SETTINGS_FILES = {
    "keys": b"a = 1\n",
    "tables": b"[[a]]\n",
    "brackets": b"[",
    "dots": b"a.",
    "blanks": b" ",
    "quotes": b'"a" ',
    "strings": b'"""\n',
    "numbers": b"9",
}
SHAPES: dict[str, tuple[Callable[[bytes], object], bytes, bytes]] = {
    **{
        f"Procfile, {name}": (lambda data: parse_procfile(data, "P"), b"web: A='x' ", one)
        for name, one in PROCFILES.items()
    },
    **{f".env, {name}": (lambda data: read_env(data), b"A=x", one) for name, one in ENVS.items()},
    **{f".env, quoted, {name}": (lambda data: read_env(data), b'A="', one) for name, one in ENVS.items()},
    **{
        f"{path}, {name}": (lambda data, path=path: parse_settings(data, path), b"port = ", one)
        for name, one in SETTINGS_FILES.items()
        for path in ("procman.toml", ".foreman")
    },
}


def read_env(data: bytes) -> object:
    return interpolate([parse_env(data, "e", interpolates=True)], {"A": "x"})


def count_calls(read: Callable[[bytes], object], data: bytes) -> int:
    """Return how many functions, of Python and of C, `read` calls for `data`."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        read(data)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize(("read", "start", "one"), SHAPES.values(), ids=SHAPES)
def test_twice_the_input_is_twice_the_work(read: Callable[[bytes], object], start: bytes, one: bytes) -> None:
    read(start + one)  # imports, and expressions that compile once
    small, large = (count_calls(read, start + one * times) for times in (400, 800))
    # Four times would be the square; at a limit, such as the findings that are told, it is not quite twice.
    assert large <= 2.5 * small + 100


@pytest.mark.parametrize(("read", "start", "one"), SHAPES.values(), ids=SHAPES)
def test_a_large_file_ends(read: Callable[[bytes], object], start: bytes, one: bytes) -> None:
    """What the C code of an expression does no counter sees; but with the square of this size it would take hours."""
    size = 10_000_000 if EXAMPLES >= 10_000 else 100_000
    read(start + one * (size // len(one)))
