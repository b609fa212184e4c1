"""docs/procman.schema.json against the reader: the same keys, defaults and verdicts (issue 7, must hold 1)."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procman.config import PROCESS_SETTINGS, SETTINGS, VARIABLES, ProcessSettings, Settings, resolve_settings
from procman.probe_settings import KEYS, LIVENESS, READY
from procman.procfile import parse_procfile
from procman.readiness import Probe
from procman.settings_files import parse_settings
from procman.spec import resolve

REPOSITORY = Path(__file__).parents[2]
SCHEMA = json.loads((REPOSITORY / "docs" / "procman.schema.json").read_text())
PROCESS = SCHEMA["definitions"]["process"]["properties"]
PROBES = {place: SCHEMA["definitions"][place]["properties"] for place in (READY, LIVENESS)}
CHECK = jsonschema.Draft7Validator(SCHEMA)


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def problems(text: str) -> list[str]:
    return [str(problem) for problem in parse_settings(text.encode(), "procman.toml").problems]


def faults(text: str) -> list[str]:
    return [error.message for error in CHECK.iter_errors(tomllib.loads(text))]


def assert_valid(text: str) -> None:
    assert problems(text) == []
    assert faults(text) == []


def toml(value: Any) -> str:
    """Return a value of JSON as TOML; an object becomes an inline table."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(part) for part in value) + "]"
    return json.dumps(value)


# --- keys ---


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_the_same_keys() -> None:
    assert set(SCHEMA["properties"]) == {*SETTINGS, "process"}
    assert set(PROCESS) == set(PROCESS_SETTINGS)
    for place, keys in PROBES.items():
        assert set(keys) == {name for name, key in KEYS.items() if place in key.belongs_to}


def every_key() -> list[tuple[str, str, dict[str, Any]]]:
    """Return where each key stands, its name and what the schema says of it."""
    tables = {"": SCHEMA["properties"], "[process.web]\n": PROCESS}
    return [
        *((table, name, resolved(part)) for table, parts in tables.items() for name, part in parts.items()),
        *((place, name, resolved(part)) for place, parts in PROBES.items() for name, part in parts.items()),
    ]


def id_of(value: object) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize(("table", "name", "part"), every_key(), ids=id_of)
def test_each_key_is_described(table: str, name: str, part: dict[str, Any]) -> None:
    assert part["title"]
    assert part["description"].endswith(".")
    if (table, name) == ("", "process"):
        return
    assert part["examples"]
    for example in part["examples"]:
        if table in PROBES:
            others = "" if name in KEYS and KEYS[name].field in ("path", "pattern", "command", "") else ", http = '/'"
            others = "" if name == "port" else others
            assert_valid(f"[process.web]\n{table} = {{ {name} = {toml(example)}{others} }}\n")
        else:
            assert_valid(f"{table}{name} = {toml(example)}\n")


# --- defaults ---


def test_the_same_defaults() -> None:
    """What has none in the schema depends on other things: files, or a setting for all."""
    given = {key: part["default"] for key, part in SCHEMA["properties"].items() if "default" in part}
    text = "".join(f"{key} = {toml(value)}\n" for key, value in given.items())
    file = parse_settings(text.encode(), "procman.toml")
    assert not file.problems
    expected = Settings("/app")
    for field, found in file.values.items():
        assert found.value == getattr(expected, field), field
    assert SETTINGS.keys() - given.keys() == {"env", "formation"}


def test_the_same_defaults_of_a_section() -> None:
    types = parse_procfile(b"web: true\n", "Procfile").types
    given = {key: part["default"] for key, part in PROCESS.items() if "default" in part}
    text = "[process.web]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in given.items())
    file = parse_settings(text.encode(), "procman.toml")
    assert not file.problems
    specs = [resolve(types, {}, {"web": 1}, resolve_settings("/app", files=files), {}) for files in ([], [file])]
    assert specs[0] == specs[1]
    web = file.processes["web"]
    assert web.watch == ProcessSettings(web.source).watch
    assert set(PROCESS) - given.keys() == {"on_exit", "grace", "ready", "liveness", "phase"}


@pytest.mark.parametrize("place", PROBES)
def test_the_same_defaults_of_a_probe(place: str) -> None:
    given = {key: resolved(part)["default"] for key, part in PROBES[place].items() if "default" in resolved(part)}
    more = "".join(f", {key} = {toml(value)}" for key, value in given.items())
    text = f"[process.web]\n{place} = {{ port = true{more} }}\n"
    file = parse_settings(text.encode(), "procman.toml")
    assert not file.problems
    probe = getattr(file.processes["web"], place)
    plain = Probe("port", probe.source)
    # None means what the schema says in words: 50ms growing to 1s, or 10 s.
    assert probe == plain._replace(every_s=10.0 if place == LIVENESS else None)
    assert set(given) == ({"within", "timeout"} if place == READY else {"every", "timeout", "failures"})


# --- the docs and the examples ---

DOCS = [path for path in sorted(REPOSITORY.rglob("*.md")) if not {".venv", "build"} & {*path.parts}]


def toml_blocks(path: Path) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in DOCS if toml_blocks(path)], ids=lambda path: path.name)
def test_examples_of_the_docs(path: Path) -> None:
    for block in toml_blocks(path):
        assert_valid(block)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").rglob("procman.toml")), ids=str)
def test_the_examples(path: Path) -> None:
    assert_valid(path.read_text())
    schema = re.match("#:schema (.*)\n", path.read_text())
    assert schema is None or (path.parent / schema[1]).resolve() == REPOSITORY / "docs" / "procman.schema.json"


def rows(heading: str) -> list[list[str]]:
    """Return the cells of each table with these columns in docs/configuration.md."""
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    found = []
    for table in re.findall(rf"^{re.escape(heading)}\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        found += [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
    return found


def test_each_key_has_a_row_with_type_default_and_example() -> None:
    found = rows("| Key | Type | Default | Example | Meaning |")
    assert [cells[0].strip("`") for cells in found if len(cells) != 5] == []
    keys = [cells[0].strip("`") for cells in found]
    assert sorted(keys) == sorted([*SETTINGS, *PROCESS_SETTINGS, *KEYS])
    for place, (key, kind, default, example, meaning) in enumerate(found):
        assert all((kind, default, meaning)), key
        text = example.strip("`")
        is_section = place >= len(SETTINGS)
        assert re.search(rf"\b{key.strip('`')} = ", text), key
        assert_valid(f"[process.web]\n{text}\n" if is_section else f"{text}\n")


def test_the_defaults_in_the_docs_are_those_of_the_schema() -> None:
    for place, (key, _, default, _, _) in enumerate(rows("| Key | Type | Default | Example | Meaning |")):
        name = key.strip("`")
        if place < len(SETTINGS):
            part = SCHEMA["properties"][name]
        elif place < len(SETTINGS) + len(PROCESS_SETTINGS):
            part = PROCESS[name]
        else:
            part = resolved(PROBES[READY].get(name) or PROBES[LIVENESS][name])
        if "default" in part:
            shown = default.partition(";")[0].strip("`")
            assert tomllib.loads(f"x = {shown}")["x"] == part["default"], name


def test_each_setting_has_a_row_with_its_variable_and_option() -> None:
    found = rows("| procman.toml | Variable | Option | .foreman |")
    assert sorted(cells[0].strip("`") for cells in found) == sorted(SETTINGS)
    variables = {key: name for name, key in VARIABLES.items()}
    for key, variable, option, _ in found:
        assert variable == f"`{variables[key.strip('`')]}`"
        assert option.strip("`") == SETTINGS[key.strip("`")].option


# --- verdicts ---

RIGHT = [
    "port = false",
    "grace = inf",
    "grace = 'inf'",
    "grace = '1.5 m'",
    "procfile = './Procfile'",
    "procfile = '..dev'",
    "procfile = '.hidden'",
    "procfile = 'dev/../Procfile'",
    "quiet = ''",
    "formation = 'web=2'",
    "formation = { all = 1, web = 0 }",
    "log_memory = '1 MB'",
    "log_size = 4096",
    "needs_within = 0",
    "[process.web]",
    "[process.web]\nstop_signal = 'sigint'",
    "[process.web]\nstop_signal = 15",
    "[process.web]\nneeds = 'A,b'",
    "[process.web]\nenv = { 'a.b' = '' }",
    "[process.web]\nready = { http = '/', port = true, status = 204, every = 1, timeout = '10ms', within = 0.1 }",
    "[process.web]\nready.completed = true",
    "[process.web]\nready = { log = 'x', within = 'inf' }",
    "[process.web]\nliveness = { command = 'true', failures = 1000 }",
]

WRONG = [
    "prot = 1",
    "port = 0",
    "port = '7000'",
    "port = true",
    "port = 7000.5",
    "port_step = 0",
    "grace = -1",
    "grace = '1d'",
    "grace = true",
    "needs_within = 'soon'",
    "override = 1",
    "on_exit = 'never'",
    "can_die = [1]",
    "restart = { a = 1 }",
    "formation = ['web=2']",
    "formation = { web = '2' }",
    "formation = { web = -1 }",
    "procfile = '/etc/Procfile'",
    "procfile = '../Procfile'",
    "procfile = ''",
    "procfile = '.'",
    "procfile = '..'",
    "color = true",
    "env_encoding = 8",
    "log_size = 4095",
    "log_files = 0",
    "log_memory = -1",
    "log_memory = '1.5MiB'",
    "process = 1",
    "[process]\nweb = 1",
    "[process.web]\nprot = 1",
    "[process.web]\nrestart = true",
    "[process.web]\nsuccess_codes = 1",
    "[process.web]\nsuccess_codes = [256]",
    "[process.web]\nstop_signal = 0",
    "[process.web]\nstop_signal = ''",
    "[process.web]\nphase = 'build'",
    "[process.web]\nneeds = [1]",
    "[process.web]\nwatch = '*.py'",
    "[process.web]\nwatch = ['/etc/*']",
    "[process.web]\nwatch = ['']",
    "[process.web]\nenv = { A = 1 }",
    "[process.web]\nenv = { A-B = 'x' }",
    "[process.web]\nready = true",
    "[process.web]\nready = {}",
    "[process.web]\nready = { within = '1s' }",
    "[process.web]\nready = { port = true, log = 'x' }",
    "[process.web]\nready = { http = '/', command = 'true' }",
    "[process.web]\nready = { http = '/', x = 1 }",
    "[process.web]\nready = { http = 'healthz' }",
    "[process.web]\nready = { http = '/a b' }",
    "[process.web]\nready = { port = false }",
    "[process.web]\nready = { port = 65536 }",
    "[process.web]\nready = { log = '' }",
    "[process.web]\nready = { command = ' ' }",
    "[process.web]\nready = { notify = false }",
    "[process.web]\nready = { http = '/', status = 99 }",
    "[process.web]\nready = { http = '/', status = [] }",
    "[process.web]\nready = { port = true, status = 200 }",
    "[process.web]\nready = { port = true, within = 0 }",
    "[process.web]\nready = { port = true, every = '1d' }",
    "[process.web]\nready = { port = true, timeout = 'inf' }",
    "[process.web]\nready = { port = true, failures = 1 }",
    "[process.web]\nready = { log = 'x', every = '1s' }",
    "[process.web]\nready = { completed = true, timeout = '1s' }",
    "[process.web]\nliveness = { log = 'x' }",
    "[process.web]\nliveness = { notify = true }",
    "[process.web]\nliveness = { completed = true }",
    "[process.web]\nliveness = { port = true, within = '1s' }",
    "[process.web]\nliveness = { port = true, failures = 0 }",
    "[process.web]\nliveness = { every = '1s' }",
]


@pytest.mark.parametrize("text", RIGHT)
def test_right_for_both(text: str) -> None:
    assert_valid(text)


@pytest.mark.parametrize("text", WRONG)
def test_wrong_for_both(text: str) -> None:
    assert problems(text) != []
    assert faults(text) != []


PARTS: list[Any] = [
    *(True, False, 0, 1, 0.001, 8080, 70000, 200, 99),
    *([200], [], [99], {}, "", " ", "/", "/a b", "x", "1s", "10ms", "inf", "-1s"),
]
BASES: list[dict[str, Any]] = [{}, {"port": True}, {"http": "/"}, {"command": "x"}, {"log": "x"}, {"completed": True}]


def assert_alike(place: str, table: dict[str, Any]) -> None:
    """The schema must not refuse what the reader takes; it cannot say that "1ms" is less than 10 ms."""
    text = f"[process.web]\n{place} = {toml(table)}"
    assert (problems(text) == []) == (faults(text) == []), text


@pytest.mark.parametrize("name", [*KEYS, "x"])
def test_both_judge_each_value_of_a_probe_alike(name: str) -> None:
    for place in PROBES:
        for base in BASES:
            for part in PARTS:
                assert_alike(place, {**base, name: part})


@settings(max_examples=1000, deadline=None, database=None)
@given(
    st.sampled_from([READY, LIVENESS]),
    st.dictionaries(st.sampled_from([*KEYS, "x"]), st.sampled_from(PARTS), max_size=4),
)
def test_both_judge_any_probe_alike(place: str, table: dict[str, Any]) -> None:
    assert_alike(place, table)
