"""`ready` and `liveness` of procman.toml: what they mean, and what is said of a wrong one (issue 7)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from procman.errors import REFUSED, SourceRef
from procman.probe_settings import KEYS, KINDS, LIVENESS, READY, parse_probe, told
from procman.readiness import Probe
from procman.settings_files import parse_settings

SOURCE = SourceRef("procman.toml", 3)


def section(text: str) -> str:
    return f"[process.web]\ngrace = 1\n{text}\n"


def probe(text: str) -> Probe:
    """Return the probe of a section that says `text`, on line 3."""
    file = parse_settings(section(text).encode(), "procman.toml")
    assert not file.problems
    web = file.processes["web"]
    found = web.ready or web.liveness
    assert found is not None
    return found


def said(text: str) -> list[str]:
    file = parse_settings(section(text).encode(), "procman.toml")
    assert all(problem.severity == REFUSED for problem in file.problems)
    assert file.processes["web"].ready is None
    assert file.processes["web"].liveness is None
    assert file.processes["web"].grace_s == 1.0  # what is right beside it stands
    return [str(problem) for problem in file.problems]


PROBES: dict[str, Probe] = {
    "ready = { port = true }": Probe("port", SOURCE),
    "ready = { port = 8080 }": Probe("port", SOURCE, port=8080),
    "ready = { http = '/' }": Probe("http", SOURCE),
    "ready = { http = '/healthz?a=b', port = 9000 }": Probe("http", SOURCE, path="/healthz?a=b", port=9000),
    "ready = { http = '/healthz', port = true }": Probe("http", SOURCE, path="/healthz"),
    "ready = { http = '/', status = 204 }": Probe("http", SOURCE, statuses=(204,)),
    "ready = { http = '/', status = [200, 401] }": Probe("http", SOURCE, statuses=(200, 401)),
    "ready = { http = '/', within = '2m', every = '1s', timeout = 0.5 }": Probe(
        "http", SOURCE, within_s=120.0, every_s=1.0, timeout_s=0.5
    ),
    "ready = { log = 'Listening on .*:[0-9]+' }": Probe("log", SOURCE, pattern="Listening on .*:[0-9]+"),
    "ready = { log = '[[a]' }": Probe("log", SOURCE, pattern="[[a]"),  # Python has a FutureWarning for it
    "ready = { log = 'up', within = 'inf' }": Probe("log", SOURCE, pattern="up", within_s=math.inf),
    "ready = { command = 'pg_isready -q', every = '100ms' }": Probe(
        "command", SOURCE, command="pg_isready -q", every_s=0.1
    ),
    "ready = { notify = true, within = 5 }": Probe("notify", SOURCE, within_s=5.0),
    "ready = { completed = true }": Probe("completed", SOURCE, within_s=math.inf),
    "ready = { completed = true, within = '1h' }": Probe("completed", SOURCE, within_s=3600.0),
    "ready.http = '/x'\nready.within = '1s'": Probe("http", SOURCE, path="/x", within_s=1.0),
    "[process.web.ready]\nport = true": Probe("port", SOURCE),
    "liveness = { port = true }": Probe("port", SOURCE),
    "liveness = { http = '/up', every = '5s', timeout = '1s', failures = 2 }": Probe(
        "http", SOURCE, path="/up", every_s=5.0, timeout_s=1.0, failures=2
    ),
    "liveness = { command = 'true', failures = 1 }": Probe("command", SOURCE, command="true", failures=1),
}


@pytest.mark.parametrize(("text", "expected"), PROBES.items(), ids=PROBES)
@pytest.mark.filterwarnings("error")
def test_probe(text: str, expected: Probe) -> None:
    assert probe(text) == expected


WRONG: dict[str, list[str]] = {
    "ready = true": ['ready: expected a table such as { http = "/healthz", within = "30s" }'],
    "liveness = '/'": ['liveness: expected a table such as { http = "/healthz", every = "10s" }'],
    "ready = {}": [
        (
            "ready: expected one of port, http, log, command, notify, completed"
            ' — write { http = "/healthz", within = "30s" }'
        )
    ],
    "liveness = { every = '1s' }": [
        'liveness: expected one of port, http, command — write { http = "/healthz", every = "10s" }'
    ],
    "ready = { within = '1s' }": ["ready: expected one of port"],
    "ready = { port = true, log = 'up' }": ['ready: "port" and "log" are 2 probes — keep one'],
    "ready = { http = '/', port = 80, command = 'true', notify = true }": [
        'ready: "http" and "command" and "notify" are 3 probes — keep one'
    ],
    "ready = { htpp = '/' }": ['ready: unknown key "htpp" — did you mean "http"?'],
    "ready = { http = '/', withn = '1s' }": ['ready: unknown key "withn" — did you mean "within"?'],
    "ready = { http = '/', x = 1 }": [
        'ready: unknown key "x" — known: port, http, log, command, notify, completed, status, within, every, timeout'
    ],
    "liveness = { http = '/', x = 1 }": [
        'liveness: unknown key "x" — known: port, http, command, status, every, timeout, failures'
    ],
    "ready = { port = false }": ["ready: port: expected true for the instance's own port, or a number from 1 to 65535"],
    "ready = { port = 0 }": ["ready: port: expected true"],
    "ready = { port = '80' }": ["ready: port: expected true"],
    "ready = { port = 65536 }": ["ready: port: expected true"],
    "ready = { http = true }": ['ready: http: expected a path that starts with "/", such as "/healthz"'],
    "ready = { http = 'healthz' }": ["ready: http: expected a path"],
    "ready = { http = '' }": ["ready: http: expected a path"],
    "ready = { http = 'http://localhost/' }": ["ready: http: expected a path"],
    "ready = { http = '/a b' }": ["ready: http: expected a path"],
    'ready = { http = "/\\r\\nHost: x" }': ["ready: http: expected a path"],
    "ready = { http = '/é' }": ["ready: http: expected a path"],
    "ready = { log = '(' }": ['ready: log: expected a regular expression, such as "Listening on" — missing )'],
    "ready = { log = '' }": ["ready: log: expected a regular"],
    "ready = { log = 1 }": ["ready: log: expected a regular"],
    "ready = { log = 'a{99999999999999999999}' }": ["ready: log: expected a regular"],
    "ready = { log = '(?L)a' }": ["ready: log: expected a regular"],
    r"ready = { log = '\u0041' }": ["ready: log: expected a regular"],  # not in bytes
    "ready = { command = ' ' }": ["ready: command: expected a command for the shell"],
    "ready = { command = ['true'] }": ["ready: command: expected a command"],
    'ready = { command = "a\\u0000b" }': ["ready: command: expected a command"],
    "ready = { notify = false }": ["ready: notify: expected true"],
    "ready = { completed = 1 }": ["ready: completed: expected true"],
    "ready = { http = '/', status = 99 }": ["ready: status: expected a status from 100 to 599, or a list such as"],
    "ready = { http = '/', status = [] }": ["ready: status: expected a status"],
    "ready = { http = '/', status = '200' }": ["ready: status: expected a status"],
    "ready = { http = '/', status = [true] }": ["ready: status: expected a status"],
    "ready = { port = true, within = 0 }": ['ready: within: expected a time above 0, such as "30s", or "inf"'],
    "ready = { port = true, within = 'soon' }": ["ready: within: expected a time"],
    "ready = { port = true, within = true }": ["ready: within: expected a time"],
    "ready = { port = true, within = nan }": ["ready: within: expected a time"],
    "ready = { port = true, every = '1ms' }": ['ready: every: expected a time from 10ms up, such as "500ms", "10s"'],
    "ready = { port = true, timeout = 'inf' }": ["ready: timeout: expected a time from 10ms up"],
    "liveness = { port = true, failures = 0 }": ["liveness: failures: expected a number from 1 to 1000"],
    "liveness = { port = true, failures = true }": ["liveness: failures: expected a number"],
    "ready = { port = true, failures = 2 }": ['ready: "failures" belongs to liveness'],
    "liveness = { port = true, within = '1s' }": ['liveness: "within" belongs to ready'],
    "liveness = { log = 'x' }": [
        'liveness: "log" does not tell whether a process is still well — use port, http or command'
    ],
    "liveness = { notify = true, every = '1s' }": ['liveness: "notify" does not tell'],
    "liveness = { completed = true }": ['liveness: "completed" does not tell'],
    "ready = { log = 'x', every = '1s' }": [
        'ready: "every" means nothing to a probe by log — it belongs to port and http and command'
    ],
    "ready = { port = true, status = 200 }": [
        'ready: "status" means nothing to a probe by port — it belongs to http'
    ],
    "ready = { http = 'x', status = 1, every = 0, wihtin = 1 }": [
        "ready: http: expected a path",
        "ready: status: expected a status",
        "ready: every: expected a time",
        'ready: unknown key "wihtin" — did you mean "within"?',
    ],
    "ready = 1\nliveness = 2": ["ready: expected a table", "liveness: expected a table"],
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WRONG.items(), ids=WRONG)
def test_wrong_probe(text: str, expected: list[str]) -> None:
    problems = said(text)
    assert len(problems) == len(expected)
    for problem, wanted in zip(problems, expected, strict=True):
        assert problem.partition(": ")[2].startswith(wanted)
        assert problem.isprintable()


def test_the_line_of_each_key_where_it_has_one() -> None:
    assert [problem.partition(": ")[0] for problem in said("[process.web.ready]\nhttp = 1\n\nevery = 0")] == [
        "procman.toml:4",
        "procman.toml:6",
    ]
    assert said("\nready = { http = 1 }")[0].startswith("procman.toml:4: ready: http: ")


@pytest.mark.parametrize("place", [READY, LIVENESS])
def test_each_key_is_a_kind_or_belongs_to_one(place: str) -> None:
    for name, key in KEYS.items():
        assert set(key.kinds) <= set(KINDS[READY])
        assert (name in KINDS[place]) <= (place in key.belongs_to)
        assert not key.field or key.field in Probe._fields


@pytest.mark.parametrize(
    ("place", "table", "expected"),
    [
        (READY, {"port": True}, "port of the instance, within 30 s, timeout 5 s"),
        (READY, {"port": 8080, "every": "1s"}, "port 8080, within 30 s, every 1 s, timeout 5 s"),
        (READY, {"http": "/up", "status": [200, 204]}, "http /up, status 200 or 204, within 30 s, timeout 5 s"),
        (READY, {"http": "/", "port": 80, "within": "inf"}, "http / on port 80, within any time, timeout 5 s"),
        (READY, {"log": "a\x1b b"}, r'log "a\x1b b", within 30 s'),
        (READY, {"command": "x" * 100}, f'command "{"x" * 57}...", within 30 s, timeout 5 s'),
        (READY, {"notify": True}, "notify, within 30 s"),
        (READY, {"completed": True}, "completed, within any time"),
        (LIVENESS, {"http": "/up"}, "http /up, every 10 s, timeout 5 s, 3 failures"),
        (LIVENESS, {"command": "true", "failures": 1, "every": 1}, 'command "true", every 1 s, timeout 5 s, 1 failure'),
    ],
)
def test_told(place: str, table: dict[str, Any], expected: str) -> None:
    found = parse_probe(place, table, lambda key: SOURCE)
    assert isinstance(found, Probe)
    assert told(found, place) == expected
