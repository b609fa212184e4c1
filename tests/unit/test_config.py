"""Settings: the order of their sources, their files, and what is said of a wrong one (contract B13-B14)."""

from __future__ import annotations

import math
import signal
from typing import Any

import pytest

from procman.config import (
    DEFAULT,
    IDENTITY,
    SETTINGS,
    VARIABLES,
    Settings,
    name_problems,
    read_caller,
    resolve_settings,
    with_dotenv,
)
from procman.environment import merged, parse_env
from procman.errors import REFUSED
from procman.settings_files import parse_settings

TOML = b"port = 7000\ngrace = '2m'\ncan_die = ['a', 'b']\n"


def read(text: str, path: str = "procman.toml") -> dict[str, Any]:
    """Return the values of one settings file."""
    file = parse_settings(text.encode(), path)
    assert not file.problems
    return {field: given.value for field, given in file.values.items()}


def said(text: str | bytes, path: str = "procman.toml") -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [str(problem) for problem in parse_settings(data, path).problems]


# --- order -----------------------------------------------------------------------------------------------------------


def test_defaults() -> None:
    settings = resolve_settings("/app")
    assert settings == Settings("/app", processes={}, origins={})
    assert settings.origin("base_port") == DEFAULT


def test_each_source_beats_the_next() -> None:
    files = [
        parse_settings(b"port = 3\ngrace = 3\nport_step = 3\n", "procman.toml"),
        parse_settings(b"port: 4\ntimeout: 4\nformation: web=4\n", ".foreman"),
    ]
    caller = {"PROCMAN_PORT": "2", "PROCMAN_GRACE": "2s"}
    settings = resolve_settings("/app", options={"port": 1}, caller=caller, files=files)
    assert settings[:4] == ("/app", 1, 3, 2.0)
    assert settings.formation == "web=4"
    assert settings.origins == {
        "base_port": "-p",
        "grace_s": "PROCMAN_GRACE",
        "port_step": "procman.toml:3",
        "formation": ".foreman:3",
    }


BASE_PORTS: dict[str, tuple[dict[str, Any], int | None, str]] = {
    "option": ({"options": {"port": 1}, "caller": {"PROCMAN_PORT": "2", "PORT": "6"}, "dotenv": "PORT=5"}, 1, "-p"),
    "--no-port": ({"options": {"port": None}, "dotenv": "PORT=5"}, None, "-p"),
    "PROCMAN_PORT": ({"caller": {"PROCMAN_PORT": "2", "PORT": "6"}, "dotenv": "PORT=5"}, 2, "PROCMAN_PORT"),
    "procman.toml": ({"toml": b"port = 3", "caller": {"PORT": "6"}, "dotenv": "PORT=5"}, 3, "procman.toml:1"),
    "no port": ({"toml": b"port = false", "dotenv": "PORT=5"}, None, "procman.toml:1"),
    ".foreman": ({"foreman": b"port: 4", "dotenv": "PORT=5"}, 4, ".foreman:1"),
    ".env": ({"caller": {"PORT": "6"}, "dotenv": "\nPORT=5"}, 5, ".env:2"),
    "caller": ({"caller": {"PORT": "6"}}, 6, "PORT of the environment"),
    "default": ({"caller": {"PORT": ""}}, 5000, DEFAULT),
}


@pytest.mark.parametrize(("given", "port", "origin"), BASE_PORTS.values(), ids=BASE_PORTS)
def test_base_port(given: dict[str, Any], port: int | None, origin: str) -> None:
    files = [
        parse_settings(given.get("toml", b""), "procman.toml"),
        parse_settings(given.get("foreman", b""), ".foreman"),
    ]
    caller = given.get("caller", {})
    settings = resolve_settings("/app", options=given.get("options", {}), caller=caller, files=files)
    dotenv = merged([parse_env(given.get("dotenv", "").encode(), ".env")])
    settings = with_dotenv(settings, dotenv, caller)
    assert (settings.base_port, settings.origin("base_port")) == (port, origin)


def test_procfile_of_the_environment() -> None:
    dotenv = merged([parse_env(b"PROCFILE=Procfile.dev", ".env")])
    assert with_dotenv(Settings("/app"), dotenv, {"PROCFILE": "other"}).procfile == "Procfile.dev"
    assert with_dotenv(Settings("/app"), {}, {"PROCFILE": "dev/Procfile"}).procfile == "dev/Procfile"
    settings = resolve_settings("/app", options={"procfile": "../P"})
    assert with_dotenv(settings, dotenv, {}).procfile == "../P"


def test_wrong_words_of_the_environment_are_not_shown() -> None:
    dotenv = merged([parse_env(b"PORT=hunter2\nPROCFILE=../hunter2", ".env")])
    settings = with_dotenv(Settings("/app"), dotenv, {})
    assert settings[:2] == ("/app", 5000)
    assert [str(problem) for problem in settings.problems] == [
        ".env:1: PORT is not a number from 1 to 65535 — or give -p",
        ".env:2: PROCFILE is not a file inside the root — or give -f",
    ]


def test_everything_wrong_in_all_places_at_once() -> None:
    files = [parse_settings(b"prot = 1\ngrace = -1", "procman.toml"), parse_settings(b"port: x", ".foreman")]
    settings = resolve_settings("/app", caller={"PROCMAN_COLOR": "hunter2"}, files=files)
    assert [str(problem) for problem in settings.problems] == [
        "PROCMAN_COLOR: expected one of auto, always, never",
        'procman.toml:1: unknown key "prot" — did you mean "port"?',
        'procman.toml:2: grace: expected a number of seconds from 0 up, or a time such as "10s", "500ms", "2m"',
        ".foreman:1: port: expected a number from 1 to 65535, or false for no ports",
    ]
    assert all(problem.severity == REFUSED for problem in settings.problems)
    assert settings == Settings("/app", processes={}, origins={}, problems=settings.problems)


def test_env_files_of_a_settings_file_are_relative_to_it() -> None:
    files = [parse_settings(b"env = ['a.env', '/etc/b.env']", "app/procman.toml")]
    assert resolve_settings("/app", files=files).env_files == ("app/a.env", "/etc/b.env")
    assert resolve_settings("/app", caller={"PROCMAN_ENV_FILES": "a,b"}, files=files).env_files == ("a", "b")


# --- the caller's environment ----------------------------------------------------------------------------------------


def test_each_setting_has_its_variable() -> None:
    words = {"port": "1", "port_step": "1", "grace": "1s", "override": "no", "on_exit": "fail", "color": "never"}
    words["needs_within"] = "2m"
    words |= {"log_memory": "1KiB", "log_memory_total": "1KiB", "log_size": "1MiB", "log_files": "2"}
    words |= dict.fromkeys(("timestamp", "prefix", "interpolate"), "yes")
    caller = {name: words.get(key, "x") for name, key in VARIABLES.items()}
    file = read_caller(caller)
    assert not file.problems
    assert set(file.values) == {setting.field for setting in SETTINGS.values()}
    assert file.values["dotenv_wins"].value is False
    assert file.values["base_port"] == (1, "PROCMAN_PORT")
    assert "PROCMAN_ENV_FILES" in VARIABLES


def test_identity_and_empty_variables_are_no_settings() -> None:
    file = read_caller(dict.fromkeys(IDENTITY, "web.1") | {"PROCMAN_PORT": "", "PORT": "x", "PATH": "x"})
    assert not file.values
    assert not file.problems


def test_unknown_variables_are_told_and_no_error() -> None:
    settings = resolve_settings("/app", caller={"PROCMAN_PROT": "1", "PROCMAN_OF_SOMEONE_ELSE": "1"})
    assert [str(problem) for problem in settings.problems] == [
        "PROCMAN_OF_SOMEONE_ELSE: note: no setting of procman has this name",
        'PROCMAN_PROT: warning: no setting of procman has this name — did you mean "PROCMAN_PORT"?',
    ]


# --- TOML ------------------------------------------------------------------------------------------------------------

VALUES: dict[str, tuple[str, Any]] = {
    "port = 7000": ("base_port", 7000),
    "port = false": ("base_port", None),
    "port_step = 10": ("port_step", 10),
    "grace = 5": ("grace_s", 5.0),
    "grace = 0.5": ("grace_s", 0.5),
    "grace = 0": ("grace_s", 0.0),
    "grace = inf": ("grace_s", math.inf),
    "grace = 'inf'": ("grace_s", math.inf),
    "grace = '10s'": ("grace_s", 10.0),
    "grace = '500ms'": ("grace_s", 0.5),
    "grace = '1.5 m'": ("grace_s", 90.0),
    "grace = '1h'": ("grace_s", 3600.0),
    "grace = '7'": ("grace_s", 7.0),
    "needs_within = '2m'": ("needs_within_s", 120.0),
    "needs_within = 0": ("needs_within_s", 0.0),
    "needs_within = 'inf'": ("needs_within_s", math.inf),
    "override = false": ("dotenv_wins", False),
    "on_exit = 'fail'": ("on_exit", "fail"),
    "can_die = ['a', 'b']": ("can_die", ("a", "b")),
    "restart = 'a, b'": ("restart", ("a", "b")),
    "quiet = []": ("quiet", ()),
    "env = '.env,local.env'": ("env_files", (".env", "local.env")),
    "formation = 'web=2'": ("formation", "web=2"),
    "formation = { all = 1, web = 2 }": ("formation", "all=1,web=2"),
    "[formation]\nweb = 2": ("formation", "web=2"),
    "procfile = 'dev/../Procfile.dev'": ("procfile", "Procfile.dev"),
    "procfile = '..dev'": ("procfile", "..dev"),
    "color = 'always'": ("color", "always"),
    "timestamp = false": ("timestamp", False),
    "prefix = false": ("prefix", False),
    "interpolate = true": ("interpolates", True),
    "log_size = '10M'": ("log_bytes", 10 * 2**20),
    "log_size = 4096": ("log_bytes", 4096),
    "log_files = 1": ("log_files", 1),
    "env_encoding = 'latin-1'": ("env_encoding", "latin-1"),
    "log_memory = '64KiB'": ("log_memory", 65536),
    "log_memory = '1 MB'": ("log_memory", 1024**2),
    "log_memory = 0": ("log_memory", 0),
    "log_memory_total = 4096": ("log_memory_total", 4096),
}


@pytest.mark.parametrize(("text", "expected"), VALUES.items(), ids=VALUES)
def test_toml_value(text: str, expected: tuple[str, Any]) -> None:
    assert read(text) == dict([expected])


WRONG = [
    "port = 0",
    "port = 65536",
    "port = '7000'",
    "port = true",
    "port = 7000.0",
    "port_step = 0",
    "port_step = -5",
    "grace = nan",
    "grace = true",
    "grace = '10 parsecs'",
    "grace = '-1s'",
    "grace = '1m30s'",
    "grace = '٣s'",
    "grace = 1979-05-27",
    "override = 1",
    "on_exit = 'never'",
    "on_exit = ['stop']",
    "can_die = [1]",
    "can_die = { a = 1 }",
    "formation = ['web=2']",
    "formation = { web = '2' }",
    "formation = { web = -1 }",
    "procfile = '/etc/Procfile'",
    "procfile = '../Procfile'",
    "procfile = 'a/../../b'",
    "procfile = ''",
    "color = true",
    "timestamp = 'no'",
    "env_encoding = 8",
    "log_size = 4095",
    "log_size = '10 parsecs'",
    "log_size = true",
    "log_files = 0",
    "log_files = '5'",
    "log_memory = '1.5MiB'",
    "log_memory = -1",
    "log_memory = '1.5'",
    "log_memory = '64x'",
    "needs_within = -1",
    "needs_within = 'soon'",
]


@pytest.mark.parametrize("text", WRONG)
def test_toml_wrong_type(text: str) -> None:
    problems = said(f"# settings\n{text}")
    assert len(problems) == 1
    assert problems[0].startswith(f"procman.toml:2: {text.split()[0]}: expected ")


def test_toml_lines() -> None:
    assert said('[process."web"]\ngrace = "x"\n\n[process.worker]\nstop = 1\nenv.A = 1\n[what]\n["port"]\n') == [
        'procman.toml:7: unknown key "what" — ' + "known: " + ", ".join((*SETTINGS, "process")),
        "procman.toml:8: port: expected a number from 1 to 65535, or false for no ports",
        'procman.toml:2: grace: expected a number of seconds from 0 up, or a time such as "10s", "500ms", "2m"',
        'procman.toml:5: unknown key "stop" — did you mean "stop_signal"?',
        "procman.toml:6: env: A: expected a string — write the value in quotes",
    ]
    assert said("[proces.web]\ngrace = 1\n") == ['procman.toml:1: unknown key "proces" — did you mean "process"?']


def test_each_variable_of_a_type_that_is_wrong_is_told_with_its_line_and_without_its_value() -> None:
    text = '[process.web.env]\nA = "a"\nB = 4711\n1C = "c"\nD = "\\u0000"\n[process.worker]\nenv = "A=b"\n'
    assert said(text) == [
        "procman.toml:3: env: B: expected a string — write the value in quotes",
        'procman.toml:4: env: "1C" is no name of a variable — names are letters, digits and _, no digit first',
        "procman.toml:5: env: D: its value has a NUL",
        "procman.toml:7: env: expected a table of NAME = string",
    ]


def test_toml_that_is_none() -> None:
    assert said("a = \n")[0].startswith("procman.toml:1:5: not TOML: Invalid value")
    assert said("port = 1\nport = 2")[0].startswith("procman.toml:2: not TOML: Cannot overwrite a value")
    assert said("a = " + "[" * 100_000) == ["procman.toml: not TOML that can be read"]
    assert said("a = " + "9" * 5000) == ["procman.toml: not TOML that can be read"]
    assert said(".".join("a" * 5000) + " = 1") == ["procman.toml:1: more than 1000 dots in a line"]
    assert said(b"a = '\xff'") == ["procman.toml:1:6: not UTF-8 — save the file as UTF-8"]
    assert said("port = 1".encode("utf-16"))[0].startswith("procman.toml: the file is UTF-16")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ready = {\n port = true\n}", "stands in one line"),
        ("ready = { port = true, within = '1s', }", "stands in one line"),
        ("ready = { port = true\n}", "stands in one line"),
        (r'ready = { log = "on .*:\d+" }', "single quotes"),
        ("grace = 10s", "in quotes"),
        ("grace = ten", "in quotes"),
    ],
)
def test_toml_that_is_often_mistaken_has_a_hint(line: str, hint: str) -> None:
    [told] = said(f"port = 1\n[process.web]\n{line}\n")
    assert told.startswith("procman.toml:3:")
    assert hint in told.partition(" — ")[2]


def test_pyproject() -> None:
    text = "[project]\nname = 'x'\nport = 1\n\n[tool.procman]\nport = 7000\n[tool.procman.process.web]\ngrace = 1\n"
    file = parse_settings(text.encode(), "dir/pyproject.toml")
    assert not file.problems
    assert file.values == {"base_port": (7000, "dir/pyproject.toml:6")}
    assert str(file.processes["web"].source) == "dir/pyproject.toml:7"
    assert said("[tool.procman]\nprot = 1", "pyproject.toml")[0].startswith('pyproject.toml:2: unknown key "prot"')
    assert said("[tool]\nprocman = 1", "pyproject.toml") == ["pyproject.toml:2: procman is no table"]
    assert said("[project]\nname = 'procman'", "pyproject.toml") == []


def test_process_sections() -> None:
    text = (
        "[process.web]\nrestart = 'on-failure'\non_exit = 'ignore'\ngrace = '10s'\nstop_signal = 'INT'\n"
        "env = { A = 'x', B = '' }\n[process.worker]\nstop_signal = 'sigquit'\n[process.clock]\nstop_signal = 1\n"
    )
    processes = resolve_settings("/app", files=[parse_settings(text.encode(), "procman.toml")]).processes
    web = processes["web"]
    assert (web.restart, web.on_exit, web.grace_s, web.stop_signal) == ("on-failure", "ignore", 10.0, signal.SIGINT)
    assert web.env == {"A": "x", "B": ""}
    assert str(web.source) == "procman.toml:1"
    worker = processes["worker"]
    assert (worker.restart, worker.on_exit, worker.grace_s, worker.env) == (None, None, None, {})
    assert worker.stop_signal == signal.SIGQUIT
    assert processes["clock"].stop_signal == signal.SIGHUP


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("restart = true", "restart: expected one of no, on-failure, always"),
        ("on_exit = 'x'", "on_exit: expected one of stop, fail, ignore"),
        ("grace = '1d'", "grace: expected a number of seconds"),
        ("stop_signal = 'FOO'", 'stop_signal: expected a signal such as "INT"'),
        ("stop_signal = 0", "stop_signal: expected a signal"),
        ("stop_signal = true", "stop_signal: expected a signal"),
        ("env = { A = 1 }", "env: A: expected a string"),
        ("env = { A-B = 'x' }", 'env: "A-B" is no name of a variable'),
        ("ready = 'tcp'", "ready: expected a table such as { http = "),
        ("ready = 8080", "ready: expected a table such as"),
        ("raedy = { port = true }", 'unknown key "raedy" — did you mean "ready"?'),
        ("needs = [1]", "needs: expected a list of process types and variables, such as"),
        ("needs = { db = 1 }", "needs: expected a list"),
        ("watch = '*.py'", 'watch: expected a list of patterns of files inside the root, such as ["**/*.py"'),
        ("watch = [1]", "watch: expected a list of patterns"),
        ("watch = ['']", "watch: expected a list of patterns"),
        ("watch = ['/etc/*']", "watch: expected a list of patterns"),
        ("watch = ['a/../../b']", "watch: expected a list of patterns"),
        ("phase = 'build'", 'phase: expected "release"'),
        ("phase = ['release']", 'phase: expected "release"'),
    ],
)
def test_process_sections_wrong(text: str, problem: str) -> None:
    assert said(f"[process.web]\n{text}")[0].startswith(f"procman.toml:2: {problem}")


def test_process_is_a_table_of_tables() -> None:
    assert said("process = 1") == ["procman.toml:1: process is no table — write [process.web]"]
    assert said("[process]\nweb = 1") == ["procman.toml:2: process.web is no table — write [process.web]"]
    assert said("[[process]]\nname = 'web'") == ["procman.toml:1: process is no table — write [process.web]"]


def test_names_that_the_procfile_does_not_have() -> None:
    text = (
        b"can_die = 'web,wbe'\nrestart = 'all'\nquiet = ['all']\n[process.wokrer]\ngrace = 1\n[process.web]\n"
        b"[formation]\nall = 1\nwrker = 2\nweb = 1\n"
    )
    settings = resolve_settings("/app", files=[parse_settings(text, "procman.toml")])
    assert [str(problem) for problem in name_problems(settings, ["web", "worker"])] == [
        'procman.toml:1: unknown process type "wbe" — did you mean "web"?',
        'procman.toml:3: unknown process type "all" — known: web, worker',
        'procman.toml:7: unknown process type "wrker" — did you mean "worker"?',
        'procman.toml:4: unknown process type "wokrer" — did you mean "worker"?',
    ]


def problems_of(text: str, *names: str) -> list[str]:
    """Return what is said of a settings file whose values all can be, beside a Procfile with these types."""
    file = parse_settings(text.encode(), "procman.toml")
    assert not file.problems
    return [str(problem) for problem in name_problems(resolve_settings("/app", files=[file]), names)]


def test_variables_of_a_type_that_count_for_nothing() -> None:
    text = "port = false\n[process.web.env]\nA = 'a'\nPORT = '1'\nPS = 'x'\n"
    why = "tells an instance who it is, so this counts for nothing"
    told = f"procman.toml:5: warning: env: PS {why}"
    assert problems_of(text, "web") == [told]
    with_port = f"procman.toml:4: warning: env: PORT {why} — procman gives each its own port"
    assert problems_of(text.replace("port = false", ""), "web") == [with_port, told]


def test_needs_that_nobody_can_meet() -> None:
    text = """
[process.web]
needs = ["DATABASE_URL", "assets", "asets", "database_url", "_X", ""]
[process.assets]
needs = ["worker"]
[process.WORKER]
needs = []
"""
    assert problems_of(text, "web", "assets", "WORKER") == [
        'procman.toml:3: unknown process type "asets" — did you mean "assets"?',
        'procman.toml:3: unknown process type "database_url" — known: web, assets, WORKER',
        'procman.toml:3: unknown process type "" — known: web, assets, WORKER',
        'procman.toml:5: unknown process type "worker" — known: web, assets, WORKER',
    ]


def test_needs_in_a_circle() -> None:
    text = """
[process.web]
grace = 1
needs = ["DATABASE_URL", "assets"]
[process.assets]
needs = "css,web"
[process.css]
[process.clock]
needs = ["clock"]
"""
    assert problems_of(text, "clock", "css", "assets", "web") == [
        "procman.toml:9: needs go in a circle: clock → clock",
        "procman.toml:6: needs go in a circle: assets → web → assets",
    ]
    straight = text.replace("css,web", "css").replace('["clock"]', "[]")
    assert problems_of(straight, "clock", "css", "assets", "web") == []


def test_each_key_of_a_section_has_its_line() -> None:
    text = (
        "[process.web]\ngrace = 1\n\nwatch = ['a/**']\nphase = 'release'\nneeds = 'A,b'\n"
        "ready.port = 80\n[process.web.env]\nA = 'x'\n"
    )
    web = parse_settings(text.encode(), "procman.toml").processes["web"]
    assert (web.watch, web.phase, web.needs) == (("a/**",), "release", ("A", "b"))
    lines = {field: source.line for field, source in web.sources.items()}
    assert lines == {"grace_s": 2, "watch": 4, "phase": 5, "needs": 6, "ready": 7, "env": 8, "env.A": 9}
    assert web.source_of("grace_s") == ("procman.toml", 2, 0)
    assert web.source_of("on_exit") == web.source == ("procman.toml", 1, 0)


# --- .foreman --------------------------------------------------------------------------------------------------------


def test_foreman() -> None:
    text = (
        "---\n# defaults\nformation: web=2,worker=4   # both\nport: 15000\nprocfile: 'Procfile.dev'\n"
        'env: ".env,local.env"\r\ntimeout: 10\ncolor: true\ntimestamp: false\nroot: .\napp: shop\nlog:\n'
    )
    assert read(text, "dir/.foreman") == {
        "formation": "web=2,worker=4",
        "base_port": 15000,
        "procfile": "Procfile.dev",
        "env_files": (".env", "local.env"),
        "grace_s": 10.0,
        "color": "always",
        "timestamp": False,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prot: 1", 'unknown key "prot" — did you mean "port"?'),
        ("port:1", "not a plain setting — write"),
        ("port: [1]", "not a plain setting"),
        ("formation:\n  web: 2", "not a plain setting"),
        ("port: abc", "port: expected a number from 1 to 65535"),
        ("root: app", "the root is fixed before this file is read — give it with -d"),
        ("port: 1\nport: 2", '"port" is given twice — the other is .foreman:1'),
        ("env: !ruby/object", "not a plain setting"),
        ("hunter2", "not a plain setting"),
        ("env: a" + " " * 20_000, "not a plain setting"),
    ],
)
def test_foreman_wrong(text: str, problem: str) -> None:
    assert said(text, ".foreman")[0].startswith(f".foreman:{len(text.splitlines())}: {problem}")
