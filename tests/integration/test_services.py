"""`procman services`: each attached resource, its state, its delay, who needs it; no secrets (docs/services.md)."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.app import CEILING_S, App
from tests.support.servers import Handler, Peer, Server

FIELDS = ["variable", "kind", "address", "url", "state", "reason", "delay_ms", "needed_by"]
SECRET = "hunter2xyz"

Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def begin(handle: Handler) -> Server:
        servers.append(Server(handle))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


def says(answer: bytes) -> Handler:
    def handle(peer: Peer) -> None:
        peer.says(answer)
        peer.hears_all()

    return handle


def is_silent(peer: Peer) -> None:
    peer.hears_all()


def records(app: App, *arguments: str, code: int = 0, **kwargs: Any) -> dict[str, dict[str, Any]]:
    """Return what `procman services --json` tells, by variable; the names of the fields are those of the docs."""
    run = app.call("services", "--json", *arguments, **kwargs)
    assert run.code == code, run.failure("wrong code")
    found = json.loads(run.text)
    assert all(list(record) == FIELDS for record in found)
    assert SECRET not in run.text + run.err_text
    return {record["variable"]: record for record in found}


def test_what_types_need_and_what_else_dotenv_names(app: App, serve: Serve) -> None:
    redis, smtp = serve(says(b"+PONG\r\n")), serve(says(b"220 mail ESMTP\r\n"))
    app(
        "web: true\nworker: true\nassets: true\n",
        dotenv=(
            f"REDIS_URL=redis://user:{SECRET}@127.0.0.1:{redis.port}/0?key={SECRET}\n"
            f"MAIL=smtp://user:{SECRET}@127.0.0.1:{smtp.port}\n"
            f"PAGE=https://example.org/{SECRET}\nNAME=value\nCACHE=sqlite:///cache.db\n"
        ),
        procman__toml=(
            '[process.web]\nneeds = ["REDIS_URL", "assets"]\n[process.worker]\nneeds = ["REDIS_URL"]\n'
        ),
    )
    found = records(app)
    assert list(found) == ["REDIS_URL", "MAIL", "CACHE"]
    delay_ms = found["REDIS_URL"].pop("delay_ms")
    assert 0 < delay_ms < CEILING_S * 1000
    assert found["REDIS_URL"] == {
        "variable": "REDIS_URL",
        "kind": "Redis",
        "address": f"127.0.0.1:{redis.port}",
        "url": f"redis://user:***@127.0.0.1:{redis.port}/0?key=***",
        "state": "up",
        "reason": None,
        "needed_by": ["web", "worker"],
    }
    assert (found["MAIL"]["state"], found["MAIL"]["needed_by"]) == ("up", [])
    assert [found["CACHE"][field] for field in ("state", "reason", "delay_ms")] == ["unchecked", "a file", None]
    assert redis.count == smtp.count == 1, "asked once"
    assert SECRET.encode() not in redis.heard + smtp.heard


def test_the_table(app: App, serve: Serve) -> None:
    redis, loading = serve(says(b"+PONG\r\n")), serve(says(b"-LOADING the dataset\r\n"))
    app(
        "web: true\n",
        dotenv=(
            f"A=redis://:{SECRET}@127.0.0.1:{redis.port}\nB=redis://127.0.0.1:{loading.port}\nC=sqlite::memory:\n"
            f"D=postgres://u:{SECRET}/x@h\n"
        ),
        procman__toml='[process.web]\nneeds = ["A", "D", "E"]\n',
    )
    run = app.call("services")
    assert run.code == 1
    lines = [re.split("  +", line) for line in run.text.splitlines()]
    assert lines[0] == ["VARIABLE", "KIND", "ADDRESS", "STATE", "DELAY", "NEEDED BY"]
    by_name = {line[0]: line[1:] for line in lines[1:]}
    assert list(by_name) == ["A", "D", "E", "B", "C"]
    assert by_name["A"][:3] == ["Redis", f"127.0.0.1:{redis.port}", "answers"]
    assert re.fullmatch(r"[0-9.]+ ms", by_name["A"][3])
    assert by_name["A"][4] == "web"
    assert by_name["B"] == ["Redis", f"127.0.0.1:{loading.port}", "LOADING the dataset", "-", "-"]
    assert by_name["C"] == ["file", "-", "not asked: a file", "-", "-"]
    assert by_name["D"][:2] == ["-", "-"]
    assert "%2F" in by_name["D"][2]
    assert by_name["E"] == ["-", "-", "not set", "-", "web"]
    assert SECRET not in run.text + run.err_text
    assert run.err_text == ""


@pytest.mark.parametrize(
    ("value", "state", "reason"),
    [
        (None, "unset", "not set"),
        ("", "unset", "not set"),
        (SECRET, "invalid", "it is no URL such as postgres://localhost/name"),
        (f"redis://h:{SECRET}", "invalid", "its port is no number from 1 to 65535"),
        (f"nothing://{SECRET}", "invalid", "its scheme is not known"),
    ],
)
def test_a_need_that_names_nothing(app: App, value: str | None, state: str, reason: str) -> None:
    dotenv = "" if value is None else f"DATABASE_URL={value}\n"
    app("web: true\n", dotenv=dotenv, procman__toml='[process.web]\nneeds = ["DATABASE_URL"]\n')
    found = records(app, code=1)["DATABASE_URL"]
    assert (found["kind"], found["address"], found["state"], found["delay_ms"]) == (None, None, state, None)
    assert found["reason"].startswith(reason)
    assert found["needed_by"] == ["web"]


def test_values_come_from_where_processes_get_them(app: App, serve: Serve) -> None:
    """The caller's variable, the env file that -e names, and the type's own `env`: a row for each address."""
    redis = serve(says(b"+PONG\r\n"))
    url = f"redis://127.0.0.1:{redis.port}"
    app(
        "web: true\nworker: true\n",
        dotenv="REDIS_URL=redis://nowhere.invalid\n",
        procman__toml=(
            '[process.web]\nneeds = ["REDIS_URL", "OTHER"]\n'
            f'[process.worker]\nneeds = ["REDIS_URL"]\nenv = {{ REDIS_URL = "{url}/7", CACHE_URL = "{url}/8" }}\n'
        ),
    )
    app.write("other.env", f"REDIS_URL={url}/1\n")
    run = app.call("services", "--json", "-e", "other.env", env={"OTHER": f"{url}/2"})
    assert run.code == 0, run.failure("wrong code")
    found = [(record["variable"], record["url"], record["needed_by"]) for record in json.loads(run.text)]
    assert found == [
        ("REDIS_URL", f"{url}/1", ["web"]),
        ("OTHER", f"{url}/2", ["web"]),
        ("REDIS_URL", f"{url}/7", ["worker"]),
        ("CACHE_URL", f"{url}/8", []),
    ]
    run = app.call("services", "--json", "--no-override", env={"REDIS_URL": f"{url}/3", "OTHER": f"{url}/2"})
    assert run.code == 0, run.failure("wrong code")
    assert json.loads(run.text)[0]["url"] == f"{url}/3"


def test_all_are_asked_at_once(app: App, serve: Serve) -> None:
    """None is answered before all have been asked."""
    together = threading.Barrier(5)

    def waits_for_the_others(peer: Peer) -> None:
        together.wait(CEILING_S)
        peer.says(b"+PONG\r\n")
        peer.hears_all()

    servers = [serve(waits_for_the_others) for _ in range(5)]
    app("web: true\n", dotenv="".join(f"R{server.port}=redis://127.0.0.1:{server.port}\n" for server in servers))
    assert [record["state"] for record in records(app).values()] == ["up"] * 5


def test_timeout(app: App, serve: Serve) -> None:
    silent = serve(is_silent)
    app("web: true\n", dotenv=f"R=redis://127.0.0.1:{silent.port}\n")
    found = records(app, "--timeout", "200ms", code=1)
    assert (found["R"]["state"], found["R"]["reason"]) == ("down", "no answer within 0.2 s")


def test_a_name_is_looked_up(app: App, serve: Serve) -> None:
    """In a helper child; the fixture sees that none is left. The name exists nowhere, so somebody had to look."""
    app("web: true\n", dotenv="R=redis://nonexistent.invalid\n")
    found = records(app, code=1, env={"RES_OPTIONS": "timeout:1 attempts:1"})
    assert "name" in found["R"]["reason"]


def test_ctrl_c_ends_it_and_the_helper(app: App, serve: Serve) -> None:
    silent = serve(is_silent)
    app("web: true\n", dotenv=f"R=redis://127.0.0.1:{silent.port}\n")
    run = app.procman("services", "--timeout", "inf")
    silent.wait_until(lambda: silent.count == 1, "question")
    run.signal(signal.SIGINT)
    assert run.wait() == 130
    assert run.text == ""


def test_without_any(app: App) -> None:
    app("web: true\n", dotenv="A=1\n")
    assert records(app) == {}
    run = app.call("services")
    assert (run.code, run.text) == (0, "")
    assert "no backing service" in run.err_text


def test_what_cannot_be_read_is_told_as_by_check(app: App) -> None:
    app("web true\n")
    assert app.call("services").code == 65
    assert app.call("services", "--timeout", "soon").code == 2
    app("web: true\n", procman__toml='[process.web]\nneeds = "x"\nbad = 1\n')
    assert app.call("services").code == 78


def test_colours_only_where_they_are_wanted(app: App, serve: Serve) -> None:
    redis = serve(says(b"+PONG\r\n"))
    app("web: true\n", dotenv=f"R=redis://127.0.0.1:{redis.port}\n", procman__toml='[process.web]\nneeds = ["NONE"]\n')
    assert "\x1b" not in app.call("services").text
    coloured = app.call("services", env={"FORCE_COLOR": "1"}).text
    assert "\x1b[32manswers\x1b[0m" in coloured
    assert "\x1b[31mnot set\x1b[0m" in coloured
