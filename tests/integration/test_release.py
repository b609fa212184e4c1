"""`start --release`: the release step runs to its end before the rest, or nothing starts (issue 7, must hold 6)."""

from __future__ import annotations

import signal

import pytest

from tests.support.app import App, Run

SLEEP = "exec sleep 1000"


def order(run: Run) -> list[tuple[str, str]]:
    return [(event["event"], event.name) for event in run.events if event["event"] in ("started", "exited")]


def test_the_release_step_ends_before_the_rest_starts(app: App) -> None:
    gate = app.fifo()
    run = app(f"web: {SLEEP}\nrelease: echo migrating; read x < {gate}\nworker: {SLEEP}").start("--release")
    run.wait_output("migrating", "release.1")
    assert order(run) == [("started", "release.1")]
    gate.send()
    run.wait_all("started", ["web.1", "worker.1"])
    assert order(run)[:2] == [("started", "release.1"), ("exited", "release.1")]
    run.wait_notice("all ready after")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_a_release_step_that_fails_stops_the_start(app: App) -> None:
    run = app(f"release: echo broken; exit 3\nweb: {SLEEP}").start("--release")
    assert run.wait() == 3
    assert order(run) == [("started", "release.1"), ("exited", "release.1")]
    assert "release.1 exited with code 3" in run.text


def test_a_command_that_is_not_found_stops_the_start(app: App) -> None:
    run = app(f"release: no-such-program-here\nweb: {SLEEP}").start("--release")
    assert run.wait() == 127
    assert ("started", "web.1") not in order(run)


def test_several_run_one_after_the_other_in_the_order_of_the_procfile(app: App) -> None:
    settings = '[process.migrate]\nphase = "release"\n[process.assets]\nphase = "release"\nrestart = "always"\n'
    procfile = f"web: {SLEEP}\nmigrate: true\nassets: true\nrelease: true"
    run = app(procfile, **{"procman.toml": settings}).start("--release")
    run.wait_for("started", "web.1")
    names = ["migrate.1", "assets.1", "release.1"]
    assert order(run) == [*((e, name) for name in names for e in ("started", "exited")), ("started", "web.1")]
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_without_the_option_no_release_step_runs(app: App) -> None:
    settings = '[process.migrate]\nphase = "release"\n'
    run = app(f"web: {SLEEP}\nmigrate: echo no\nrelease: echo no", **{"procman.toml": settings}).start()
    run.wait_for("ready", "web.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert {event.name for event in run.events if event.is_("started")} == {"web.1"}


def test_the_release_step_alone_is_a_one_off(app: App) -> None:
    run = app(f"web: {SLEEP}\nrelease: echo $PS; exit 5").call("run", "release")
    assert run.wait_command() == 5
    assert run.text == "run.1\n"


def test_a_stop_while_the_release_step_runs_starts_nothing(app: App) -> None:
    run = app(f"release: {SLEEP}\nweb: {SLEEP}").start("--release")
    run.wait_for("started", "release.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert ("started", "web.1") not in order(run)


def test_release_of_a_procfile_without_one_is_a_mistake(app: App) -> None:
    run = app(f"web: {SLEEP}").start("--release")
    assert run.wait() == 2
    assert "--release: no process type of the Procfile is for that" in run.err_text


def test_what_a_release_step_needs_is_there_before_it(app: App) -> None:
    settings = (
        '[process.release]\nneeds = ["assets", "db"]\n[process.assets]\nphase = "release"\n'
        '[process.db]\nready = { log = "up" }\n[process.web]\nneeds = ["db"]\n'
    )
    procfile = f"web: {SLEEP}\nrelease: echo migrating\nassets: true\ndb: sleep 0.2; echo up; {SLEEP}"
    run = app(procfile, **{"procman.toml": settings}).start("--release")
    run.wait_for("started", "web.1")
    places = {step: at for at, step in enumerate(order(run))}
    assert places["exited", "assets.1"] < places["started", "release.1"] < places["exited", "release.1"]
    assert places["exited", "release.1"] < places["started", "web.1"]
    release = next(event for event in run.events if event.is_("started", "release.1"))
    db = next(event for event in run.events if event.is_("ready", "db.1"))
    assert run.events.index(db) < run.events.index(release)
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


@pytest.mark.parametrize(("name", "section"), [("mig", '[process.mig]\nphase = "release"\n'), ("release", "")])
def test_who_needs_a_release_step_waits_for_its_end_also_in_a_plain_start(app: App, name: str, section: str) -> None:
    settings = f'{section}[process.web]\nneeds = ["{name}"]\n'
    gate = app.fifo()
    run = app(f"web: {SLEEP}\n{name}: echo going; read x < {gate}", **{"procman.toml": settings}).start()
    run.wait_output("going", f"{name}.1")
    gate.send()
    run.wait_for("ready", "web.1")
    assert order(run) == [("started", f"{name}.1"), ("exited", f"{name}.1"), ("started", "web.1")]
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
