"""Ready, in order, alive: through the command line, with procman.toml (docs/readiness.md)."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.faults.helpers import guard_and_supervisor
from tests.support.app import App, Run

SLEEP = "exec sleep 1000"


def toml(**sections: str) -> str:
    """Return procman.toml with a section for each process type."""
    return "\n".join(f"[process.{name}]\n{text}\n" for name, text in sections.items())


def quote(text: str) -> str:
    return json.dumps(text)


def last_line(run: Run) -> str:
    return run.text.rstrip("\n").split("\n")[-1].split("| ", 1)[1]


def order(run: Run, *wanted: tuple[str, str]) -> list[tuple[str, str]]:
    """Return those of `wanted` (event, name) in the order in which they were seen first."""
    seen = [(event["event"], event.name) for event in run.events if "name" in event]
    return list(dict.fromkeys(pair for pair in seen if pair in wanted))


def stop(run: Run) -> None:
    run.signal(signal.SIGTERM)
    assert run.wait() == 0, run.failure("stopped")


# --- each kind ---

KINDS = {
    "port": ("ready = { port = true }", ("listen",)),
    "http": ('ready = { http = "/healthz" }', ("status:200", "listen")),
    "redirect": ('ready = { http = "/" }', ("status:302", "listen")),
    "status": ('ready = { http = "/", status = [404, 405] }', ("status:404", "listen")),
    "log": ("ready = { log = '^listening on [0-9]+$' }", ("say:listening on 80",)),
    "command": ('ready = { command = "test -e there" }', ()),
    "notify": ("ready = { notify = true }", ("notify:STATUS=loading", "notify:READY=1")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_ready_when_it_says_so_and_not_before(app: App, kind: str) -> None:
    section, steps = KINDS[kind]
    gate = app.fifo()
    child = app.child("serve", "say:waiting", f"<{gate.path}", *steps, "pause")
    run = app(f"web: {child}", procman__toml=toml(web=section)).start()
    run.wait_output("waiting")
    assert not [event for event in run.events if event.is_("ready")]
    app.write("there", "")
    gate.send()
    run.wait_for("ready", "web.1")
    run.wait_notice("^ready after [0-9.]+ s$")
    run.wait_notice("^all ready after ")
    stop(run)


@pytest.mark.parametrize("victim", ["nobody", "supervisor", "guard"])
def test_the_sockets_for_notifications_are_gone_behind_the_run(app: App, victim: str) -> None:
    run = app(
        "web: echo $NOTIFY_SOCKET; exec sleep 1000", procman__toml=toml(web='ready = { notify = true, within = "inf" }')
    ).start("web=2")
    run.wait_all("output", ["web.1", "web.2"])
    sockets = [Path(run.output_of(f"web.{number}")[0]) for number in (1, 2)]
    assert all(path.is_socket() for path in sockets)
    assert sockets[0].parent == sockets[1].parent
    if victim == "nobody":
        run.signal(signal.SIGTERM)
    else:
        guard, supervisor = guard_and_supervisor(run)
        os.kill(supervisor if victim == "supervisor" else guard, signal.SIGKILL)
    run.wait()
    run.wait_until(lambda: not sockets[0].parent.exists(), "directory removed")


def test_the_one_line_that_says_where_all_are(app: App) -> None:
    serve = app.child("serve", "listen", "pause")
    app(
        f"web: {serve} $PORT\nworker: {SLEEP}\napi: {serve}",
        procman__toml=toml(web="ready = { port = true }", api='ready = { http = "/" }'),
    )
    run = app.start()
    told = run.wait_notice("^all ready after ").text
    places = f"web.1 http://localhost:{app.port}, api.1 http://localhost:{app.port + 200}"
    assert re.fullmatch(rf"all ready after [0-9]+\.[0-9] s: {places}", told)
    for name in ("web.1", "worker.1", "api.1"):
        run.wait_for("ready", name)
    stop(run)
    assert len([text for text in run.notices() if text.startswith("all ready")]) == 1


@pytest.mark.parametrize(
    ("section", "steps", "is_told"),
    [
        ("ready = { port = true }", ("listen",), True),
        ("ready = { log = 'up' }", ("listen", "say:up"), True),
        ("ready = { log = 'up' }", ("say:up",), False),
        ("needs = ['worker']", (), False),
    ],
)
def test_the_address_of_a_web_whose_command_does_not_name_the_port(
    app: App, section: str, steps: tuple[str, ...], is_told: bool
) -> None:
    serve = app.child("serve", *steps, "pause")
    run = app(f"web: {serve}\nworker: {SLEEP}", procman__toml=toml(web=section)).start()
    told = run.wait_notice("^all ready after ").text
    assert told.endswith(f": web.1 http://localhost:{app.port}") == is_told
    stop(run)


def test_each_instance_says_so_for_itself(app: App) -> None:
    """NOTIFY_SOCKET is another one for each of them."""
    gates = [app.fifo(f"gate.web.{number}") for number in (1, 2, 3)]
    child = app.child("serve", "say:up").replace("say:up", f"'say:up' \"<{app.root}/gate.$PS\" notify:READY=1 pause", 1)
    run = app(f"web: {child}", procman__toml=toml(web="ready = { notify = true }")).start("web=3")
    run.wait_all("output", ["web.1", "web.2", "web.3"])
    for number in (2, 3, 1):
        assert not [event for event in run.events if event.is_("ready", f"web.{number}")]
        gates[number - 1].send()
        run.wait_for("ready", f"web.{number}")
    stop(run)


def test_without_a_word_it_is_ready_at_once(app: App) -> None:
    run = app(f"web: {SLEEP}").start()
    run.wait_for("ready", "web.1")
    stop(run)
    assert not [text for text in run.notices() if "ready" in text]


# --- time is up ---


@pytest.mark.parametrize(
    ("section", "steps", "reason"),
    [
        ("port = true", ("pause",), "connection refused"),
        ('http = "/", every = "20ms"', ("status:503", "listen", "pause"), "answered 503"),
        ('http = "/", status = 204', ("listen", "pause"), "answered 200"),
        ('http = "/", timeout = "100ms"', ("silent", "listen", "pause"), "no answer within 0.1 s"),
        ("log = 'Listening'", ("say:listening", "pause"), 'no line of its output matches "Listening"'),
        ('command = "echo not yet; exit 3"', ("pause",), "its command exited with 3: not yet"),
        ('command = "sleep 1000", timeout = "100ms"', ("pause",), "its command took longer than 0.1 s"),
        ("notify = true", ("pause",), "it has not sent READY=1"),
        ("notify = true", ("notify:STATUS=3 of 7", "pause"), "3 of 7"),
        ("completed = true", ("pause",), "it has not ended"),
    ],
)
def test_an_instance_that_is_not_ready_in_time(app: App, section: str, steps: tuple[str, ...], reason: str) -> None:
    ready = f'ready = {{ {section}, within = "1s" }}'
    run = app(f"web: {app.child('serve', *steps)}\nworker: {SLEEP}", procman__toml=toml(web=ready)).start()
    assert run.wait() == 75
    fault = f"was not ready within 1 s: {reason}"
    assert fault in run.notices()
    assert last_line(run) == f"web.1 {fault}; nothing is left running"
    assert run.wait_for("exited", "web.1").code == 0  # it obeyed: its own code is not what it failed of
    assert not [event for event in run.events if event.is_("ready", "web.1")]


def test_no_place_for_the_socket_of_notifications(app: App) -> None:
    app.env["TMPDIR"] = "/tmp/is-not-there"
    section = 'ready = { notify = true, within = "100ms" }'
    run = app(f"web: {SLEEP}", procman__toml=toml(web=section)).start()
    assert run.wait() == 75
    told = run.wait_notice("^no socket for its notifications: ").text
    assert "is-not-there/procman-" in told
    assert "TMPDIR" in told
    assert last_line(run) == "web.1 was not ready within 0.1 s: it has no NOTIFY_SOCKET; nothing is left running"


def test_not_ready_in_time_counts_as_a_failure_for_restart(app: App) -> None:
    """The second time it is quicker."""
    command = f"if test -e there; then {app.child('serve', 'listen', 'pause')}; else touch there; {SLEEP}; fi"
    section = 'ready = { port = true, within = "300ms" }\nrestart = "on-failure"'
    run = app(f"web: {command}", procman__toml=toml(web=section)).start()
    run.wait_notice("was not ready within 0.3 s")
    run.wait_for("restarting", "web.1")
    run.wait_for("ready", "web.1")
    assert order(run, ("exited", "web.1"), ("ready", "web.1")) == [("exited", "web.1"), ("ready", "web.1")]
    stop(run)


def test_one_that_ends_before_it_is_ready_has_its_own_code(app: App) -> None:
    run = app("web: exit 7", procman__toml=toml(web="ready = { port = true }")).start()
    assert run.wait() == 7


@pytest.mark.parametrize("section", ["ready = { port = true }", "ready = { log = 'up' }", "ready = { notify = true }"])
def test_one_that_ends_well_before_it_is_ready_has_failed(app: App, section: str) -> None:
    """What needs it would find nobody there."""
    sections = toml(web='needs = ["db"]', db=f'{section}\non_exit = "ignore"')
    run = app(f"web: {SLEEP}\ndb: echo gone", procman__toml=sections).start()
    assert run.wait() == 75
    assert any(text.startswith("ended before it was ready: ") for text in run.notices())
    assert last_line(run) == "web.1 cannot start: db.1 has failed; nothing is left running"
    assert run.wait_for("exited", "db.1").code == 0
    assert not [event for event in run.events if event.is_("started", "web.1") or event.is_("ready", "db.1")]


def test_one_that_leaves_its_work_to_others_before_it_is_ready_has_failed(app: App) -> None:
    run = app(f"web: {SLEEP} & exit 0", procman__toml=toml(web="ready = { log = 'up' }")).start()
    assert run.wait() == 75
    assert last_line(run).startswith("web.1 ended before it was ready: no line of its output matches")


@pytest.mark.parametrize("kind", ["log", "notify"])
def test_the_last_words_of_one_that_ends_count(app: App, kind: str) -> None:
    command = {"log": "printf up", "notify": app.child("serve", "notify:READY=1")}[kind]
    probe = {"log": "{ log = '^up$' }", "notify": "{ notify = true }"}[kind]
    sections = toml(web='needs = ["db"]', db=f'ready = {probe}\non_exit = "ignore"')
    run = app(f"web: {SLEEP}\ndb: {command}", procman__toml=sections).start()
    run.wait_for("ready", "web.1")
    run.wait_for("exited", "db.1")
    assert order(run, ("ready", "db.1"), ("exited", "db.1"))[0] == ("ready", "db.1")
    stop(run)


def test_a_stop_while_it_is_asked(app: App) -> None:
    """Its command is gone with it."""
    begun = app.fifo()
    section = f"ready = {{ command = {quote(f'echo begun > {begun}; exec sleep 1000')}, timeout = 1000 }}"
    run = app(f"web: {SLEEP}", procman__toml=toml(web=section)).start()
    assert begun.receive() == "begun"
    stop(run)
    assert app.survivors() == {}


# --- alive ---


def test_liveness_brings_it_back_after_failures_in_a_row(app: App) -> None:
    gate = app.fifo()
    serve = app.child("serve", "listen", "say:up", f"<{gate.path}", "status:500", "say:bad", "pause")
    liveness = 'ready = { port = true }\nliveness = { http = "/", every = "50ms", failures = 3 }'
    run = app(f"web: {serve}", procman__toml=toml(web=liveness)).start()
    run.wait_for("ready", "web.1")
    first = run.pid_of("web.1")
    gate.send()
    run.wait_output("bad")
    run.wait_notice("^is not healthy: answered 500$")
    run.wait_output("got SIGTERM")
    run.wait_for("restarting", "web.1")
    run.wait_until(lambda: run.pid_of("web.1") != first, "second start")
    run.wait_until(lambda: len([e for e in run.events if e.is_("ready", "web.1")]) == 2, "second time ready")
    stop(run)


def test_liveness_of_one_that_hangs(app: App) -> None:
    gate = app.fifo()
    serve = app.child("serve", "listen", "say:up", f"<{gate.path}", "silent", "pause")
    liveness = 'ready = { port = true }\nliveness = { http = "/", every = "50ms", timeout = "100ms", failures = 2 }'
    run = app(f"web: {serve}", procman__toml=toml(web=liveness)).start()
    run.wait_for("ready", "web.1")
    gate.send()
    run.wait_notice("^is not healthy: no answer within 0.1 s$")
    run.wait_for("restarting", "web.1")
    stop(run)


# --- in order ---

DB = "ready = { port = true }"


def test_who_needs_another_starts_behind_it_and_stops_before_it(app: App) -> None:
    gate = app.fifo()
    db = app.child("serve", "say:waiting", f"<{gate.path}", "listen", "pause")
    app(f"web: {app.child('signals')}\ndb: {db}", procman__toml=toml(web='needs = ["db"]', db=DB))
    run = app.start()
    run.wait_output("waiting", "db.1")
    assert not [event for event in run.events if event.is_("started", "web.1")]
    run.wait_notice("^waiting for db$")
    gate.send()
    run.wait_output("up", "web.1")
    run.wait_notice("^all ready")
    stop(run)
    names = ("started", "ready", "stopping", "exited")
    wanted = [(event, name) for event in names for name in ("db.1", "web.1")]
    assert order(run, *wanted) == [
        ("started", "db.1"),
        ("ready", "db.1"),
        ("started", "web.1"),
        ("ready", "web.1"),
        ("stopping", "web.1"),
        ("exited", "web.1"),
        ("stopping", "db.1"),
        ("exited", "db.1"),
    ]


def test_a_restart_of_both_stops_and_starts_in_order(app: App) -> None:
    serve = app.child("serve", "listen", "say:up", "pause")
    app(f"web: {app.child('signals')}\ndb: {serve}", procman__toml=toml(web='needs = ["db"]', db=DB))
    run = app.start()
    run.wait_notice("^all ready")
    for words in (("--all",), ("db", "web")):
        seen = len(run.events)
        assert app.call("restart", *words).code == 0
        run.wait_until(lambda: [e.name for e in run.events[seen:] if e.is_("ready")] == ["db.1", "web.1"], "both ready")  # noqa: B023
        names = ("started", "ready", "stopping", "exited")
        assert [(e["event"], e.name) for e in run.events[seen:] if e["event"] in names] == [
            ("stopping", "web.1"),
            ("exited", "web.1"),
            ("stopping", "db.1"),
            ("exited", "db.1"),
            ("started", "db.1"),
            ("ready", "db.1"),
            ("started", "web.1"),
            ("ready", "web.1"),
        ]
    stop(run)


def test_who_is_down_waits_for_the_return_of_what_it_needs(app: App) -> None:
    serve = app.child("serve", "listen", "say:up", "pause")
    app(f"web: {SLEEP}\ndb: {serve}", procman__toml=toml(web='needs = ["db"]', db=DB))
    run = app.start()
    run.wait_notice("^all ready")
    assert app.call("stop", "web").code == 0
    seen = len(run.events)
    assert app.call("restart", "--all").code == 0
    run.wait_until(lambda: any(e.is_("started", "web.1") for e in run.events[seen:]), "web started")
    started = [e.name for e in run.events[seen:] if e.is_("started")]
    assert started == ["db.1", "web.1"]
    stop(run)


def test_a_stop_behind_a_restart_leaves_both_down(app: App) -> None:
    """What was kept for its restart is not begun anew, nor killed by a second word."""
    serve = app.child("serve", "listen", "say:up", "pause")
    app(f"web: {app.child('term_ignore')}\ndb: {serve}", procman__toml=toml(web='needs = ["db"]\ngrace = "1s"', db=DB))
    run = app.start()
    run.wait_output("ignoring", "web.1")
    assert app.call("restart", "--all", "--timeout", "100ms").code == 1
    assert app.call("stop", "--all").code == 0
    assert [e.name for e in run.events if e.is_("started")] == ["db.1", "web.1"]
    run.wait_until(lambda: any(e.is_("exited", "db.1") for e in run.events), "db gone")
    assert run.wait_for("exited", "db.1").signum == 0
    run.signal(signal.SIGTERM)
    run.wait()


def test_a_chain_of_three_with_several_instances(app: App) -> None:
    a, b, c = (app.child("serve", "listen", "say:up", "pause") for _ in range(3))
    sections = toml(a='needs = ["b"]\n' + DB, b='needs = ["c"]\n' + DB, c=DB)
    run = app(f"a: {a}\nb: {b}\nc: {c}", procman__toml=sections).start("a=2", "b=2", "c=2")
    run.wait_notice("^all ready")
    stop(run)
    at = {(event["event"], event.name): number for number, event in enumerate(run.events) if "name" in event}
    for first, then in (("c", "b"), ("b", "a")):
        ready = max(at["ready", f"{first}.{number}"] for number in (1, 2))
        assert ready < min(at["started", f"{then}.{number}"] for number in (1, 2))
        gone = max(at["exited", f"{then}.{number}"] for number in (1, 2))
        assert gone < min(at["stopping", f"{first}.{number}"] for number in (1, 2))


def test_one_that_runs_to_its_end_first(app: App) -> None:
    gate = app.fifo()
    sections = toml(assets="ready = { completed = true }", web='needs = ["assets"]')
    run = app(f"web: {app.child('signals')}\nassets: echo built; read x < {gate}", procman__toml=sections).start()
    run.wait_output("built", "assets.1")
    assert not [event for event in run.events if event.is_("started", "web.1")]
    gate.send()
    run.wait_output("up", "web.1")
    exited = run.wait_for("exited", "assets.1")
    assert run.events.index(exited) < run.events.index(run.wait_for("started", "web.1"))
    stop(run)  # its end has ended nothing


def test_one_whose_need_fails_does_not_start(app: App) -> None:
    sections = toml(assets="ready = { completed = true }", web='needs = ["assets"]')
    run = app(f"web: {SLEEP}\nassets: exit 3", procman__toml=sections).start()
    assert run.wait() == 3
    assert not [event for event in run.events if event.is_("started", "web.1")]


def test_one_whose_need_is_not_ready_in_time_does_not_start(app: App) -> None:
    sections = toml(db='ready = { port = true, within = "300ms" }\non_exit = "ignore"', web='needs = ["db"]')
    run = app(f"web: {SLEEP}\ndb: {SLEEP}", procman__toml=sections).start()
    assert run.wait() == 75
    assert "cannot start: db.1 has failed" in run.notices()
    assert "web.1 cannot start: db.1 has failed; nothing is left running" in run.notices()
    assert not [event for event in run.events if event.is_("started", "web.1")]


def test_a_need_that_is_named_twice_is_told_once(app: App) -> None:
    run = app(
        f"web: {SLEEP}\ndb: sleep 0.2; echo up; {SLEEP}",
        procman__toml=toml(web='needs = ["db", "db"]', db='ready = { log = "up" }'),
    ).start()
    run.wait_for("ready", "web.1")
    assert "waiting for db" in run.notices()
    stop(run)


def test_a_type_brings_what_it_needs(app: App) -> None:
    serve = app.child("serve", "listen", "pause")
    app(f"web: {SLEEP}\ndb: {serve}\nother: {SLEEP}", procman__toml=toml(web='needs = ["db"]', db=DB))
    run = app.start("web")
    run.wait_for("ready", "web.1")
    run.wait_for("ready", "db.1")
    assert not [event for event in run.events if event.is_("started", "other.1")]
    stop(run)


def test_no_needs(app: App) -> None:
    app(f"web: {app.child('signals')}\ndb: {SLEEP}", procman__toml=toml(web='needs = ["db", "NOT_SET_URL"]', db=DB))
    run = app.start("--no-needs", "web")
    run.wait_output("up", "web.1")
    stop(run)
    assert not [event for event in run.events if event.is_("started", "db.1")]


def test_a_circle_is_refused_before_anything_starts(app: App) -> None:
    sections = toml(web='needs = ["worker"]', worker='needs = ["db"]', db='needs = ["web"]')
    run = app(f"web: {SLEEP}\nworker: {SLEEP}\ndb: {SLEEP}", procman__toml=sections).call("start")
    assert run.code == 78
    assert "needs go in a circle: web → worker → db → web" in run.err_text
    assert "procman.toml:2" in run.err_text
    assert run.out == b""


def test_a_need_that_nobody_knows_is_refused(app: App) -> None:
    run = app(f"web: {SLEEP}\nworker: {SLEEP}", procman__toml=toml(web='needs = ["wroker"]')).call("start")
    assert run.code == 78
    assert 'did you mean "worker"?' in run.err_text
    assert run.out == b""
