"""`procman wait` against real runs, also those that are not there yet."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from procman.control.directory import inside
from tests.support.app import CEILING_S, App, Run

SLEEP = "exec sleep 1000"
TWO = f"web: {SLEEP}\nworker: {SLEEP}\n"
IGNORES_TERM = "trap '' TERM; echo set; while :; do sleep 1000; done"
SHORT = ("--timeout", "0.3")
FOR_EVER = ("--timeout", "inf")

READY_WHEN_UP = '[process.web]\nready = { log = "^up" }\n'


class Lookout:
    """A socket that looks like a procman's, and is none: it tells when a client looks who is there."""

    def __init__(self, app: App) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        directory = app.root / ".procman"
        directory.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with inside(fd):
            self._listener.bind("1.sock")
        os.close(fd)
        self._listener.listen()
        self._listener.settimeout(CEILING_S)

    def wait_looks(self, count: int) -> None:
        """Wait until somebody has looked so often, and seen nobody here."""
        for _ in range(count):
            self._listener.accept()[0].close()

    def close(self) -> None:
        self._listener.close()


@contextmanager
def lookout(app: App) -> Iterator[Lookout]:
    found = Lookout(app)
    try:
        yield found
    finally:
        found.close()


def started(app: App, procfile: str, *arguments: str, names: tuple[str, ...] = ("web.1",)) -> Run:
    run = app(procfile).start(*arguments)
    run.wait_all("ready", names)
    return run


def restarting(app: App) -> tuple[Run, Run]:
    """Return a run whose worker.1 does not end, and the command that wants to restart it."""
    run = app(f"web: {SLEEP}\nworker: {IGNORES_TERM}\n").start("-t", "inf")
    run.wait_output("set", "worker.1")
    asked = app.procman("restart", "worker", *FOR_EVER)
    run.wait_for("stopping", "worker.1")
    return run, asked


def finish(run: Run) -> None:
    """End a run in which worker.1 does not want to."""
    run.signal(signal.SIGTERM)
    run.wait_notice("SIGTERM received")
    kill(run)
    run.wait()


def kill(run: Run) -> None:
    with suppress(ProcessLookupError):  # the signal came before its trap
        os.killpg(run.pid_of("worker.1"), signal.SIGKILL)


# --- what is there ---


def test_what_is_ready(app: App) -> None:
    run = started(app, TWO, "web=2", "worker", names=("web.2", "worker.1"))
    asked = app.call("wait")
    assert (asked.code, asked.err_text) == (0, "")
    assert asked.lines == [
        f"web.1 ready, pid {run.pid_of('web.1')}, port {app.port}",
        f"web.2 ready, pid {run.pid_of('web.2')}, port {app.port + 1}",
        f"worker.1 ready, pid {run.pid_of('worker.1')}, port {app.port + 100}",
        "",
    ]
    assert [line.split()[0] for line in app.call("wait", "worker", "web.2").lines[:-1]] == ["web.2", "worker.1"]


def test_what_has_done_its_work(app: App) -> None:
    run = app(f"web: {SLEEP}\nassets: true\n").start("--on-exit", "ignore")
    run.wait_for("exited", "assets.1")
    asked = app.call("wait", "assets")
    assert (asked.code, asked.text) == (0, "assets.1 exited with code 0\n")


def test_what_has_failed(app: App) -> None:
    run = app(f"web: {SLEEP}\nworker: exit 3\nclock: kill -9 $$\n").start("--on-exit", "ignore")
    run.wait_all("exited", ["worker.1", "clock.1"])
    asked = app.call("wait", *FOR_EVER)
    assert (asked.code, asked.out) == (1, b"")
    assert asked.err_text == "worker.1 failed with code 3; clock.1 failed with code 137\n"
    assert app.call("wait", "web").code == 0


def test_what_was_stopped(app: App) -> None:
    started(app, TWO, names=("web.1", "worker.1"))
    assert app.call("stop", "worker").code == 0
    asked = app.call("wait", *FOR_EVER)
    assert (asked.code, asked.err_text) == (1, "worker.1 was stopped\n")


def test_two_procmans(app: App) -> None:
    first = started(app, TWO, "web")
    second = app.start("worker")
    second.wait_for("ready", "worker.1")
    asked = app.call("wait")
    assert asked.code == 0
    assert sorted(asked.lines[:-1]) == [
        f"web.1 ready, pid {first.pid_of('web.1')}, port {app.port}",
        f"worker.1 ready, pid {second.pid_of('worker.1')}, port {app.port + 100}",
    ]


@pytest.mark.parametrize(
    ("name", "hint"), [("wbe", 'did you mean "web"?'), ("web.2", 'did you mean "web.1"?'), ("web.x", "did you mean")]
)
def test_unknown_names_are_refused_at_once(app: App, name: str, hint: str) -> None:
    started(app, f"{TWO}assets: {SLEEP}\n", "web")
    asked = app.call("wait", "web", name, "assets", *FOR_EVER)
    assert (asked.code, asked.out) == (2, b"")
    assert asked.err_text.startswith(f'"{name}" does not run here — {hint}')


# --- what is not there yet ---


def test_nobody_comes(app: App) -> None:
    asked = app(TWO).call("wait", *SHORT)
    assert (asked.code, asked.out) == (69, b"")
    assert asked.err_text.startswith("waited for 0.3 s: no procman runs here — start one with `procman start`")


def test_suspended_procman(app: App) -> None:
    run = started(app, TWO)
    assert app.call("wait").code == 0
    supervisor = run.supervisor_pid()
    os.kill(supervisor, signal.SIGSTOP)
    try:
        asked = app.call("wait", *SHORT)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert asked.code == 69
    assert f"waited for 0.3 s: the procman with pid {run.pid} does not answer" in asked.err_text


def test_procman_that_starts_later(app: App) -> None:
    app(TWO)
    with lookout(app) as looks:
        asked = app.procman("wait", *FOR_EVER)
        looks.wait_looks(2)
        assert asked.code is None
    run = app.start()
    assert asked.wait() == 0
    assert [line.split()[:2] for line in asked.lines[:-1]] == [["web.1", "ready,"], ["worker.1", "ready,"]]
    assert run.code is None


def test_type_that_another_procman_starts_later(app: App) -> None:
    first = started(app, TWO, "web")
    with lookout(app) as looks:
        asked = app.procman("wait", "worker", "web", *FOR_EVER)
        looks.wait_looks(2)
        assert asked.code is None
    second = app.start("worker")
    assert asked.wait() == 0
    assert sorted(asked.lines[:-1]) == [
        f"web.1 ready, pid {first.pid_of('web.1')}, port {app.port}",
        f"worker.1 ready, pid {second.pid_of('worker.1')}, port {app.port + 100}",
    ]


def test_type_that_is_scaled_up_later(app: App) -> None:
    run = started(app, TWO, "web")
    with lookout(app) as looks:
        asked = app.procman("wait", "worker", *FOR_EVER)
        looks.wait_looks(2)
        assert asked.code is None
    assert app.call("scale", "worker=2").code == 0
    assert asked.wait() == 0
    assert asked.lines[0] == f"worker.1 ready, pid {run.pid_of('worker.1')}, port {app.port + 100}"


def test_type_that_nobody_starts(app: App) -> None:
    started(app, TWO, "web")
    asked = app.call("wait", "worker.1", "web", *SHORT)
    assert (asked.code, asked.out) == (1, b"")
    assert asked.err_text == "not ready within 0.3 s: worker.1 is not started here\n"


# --- what takes its time, and what comes in between ---


def test_time_is_over(app: App) -> None:
    run, _ = restarting(app)
    asked = app.call("wait", *SHORT)
    assert (asked.code, asked.out) == (1, b"")
    assert asked.err_text == f"not ready within 0.3 s: worker.1 is stopping, pid {run.pid_of('worker.1')}\n"
    assert app.call("wait", "web", "--timeout", "0").code == 0
    finish(run)


def test_restart_is_waited_for(app: App) -> None:
    run, restart = restarting(app)
    old = run.pid_of("worker.1")
    asked = app.procman("wait", "worker", *FOR_EVER)
    kill(run)
    assert (restart.wait(), asked.wait()) == (0, 0)
    assert asked.text == restart.text
    assert f"pid {old}" not in asked.text
    run.wait_until(lambda: run.pid_of("worker.1") != old, "second start of worker.1")
    finish(run)


def test_stop_while_waited_for(app: App) -> None:
    run, restart = restarting(app)
    asked = app.procman("wait", *FOR_EVER)
    stop = app.procman("stop", "worker", "--timeout", "0.2")
    assert stop.wait() == 1
    kill(run)
    assert (asked.wait(), asked.err_text) == (1, "worker.1 was stopped\n")
    assert (restart.wait(), restart.err_text) == (1, "worker.1 was stopped\n")


def test_run_that_ends_while_waited_for(app: App) -> None:
    run, restart = restarting(app)
    asked = app.procman("wait", *FOR_EVER)
    run.signal(signal.SIGTERM)
    assert (asked.wait(), asked.err_text) == (1, "the run is ending: stopped by SIGTERM\n")
    kill(run)
    run.wait()
    restart.wait()


def test_procman_that_is_killed_while_waited_for(app: App) -> None:
    run = started(app, TWO, "web")
    with lookout(app) as looks:
        asked = app.procman("wait", "web", "worker", *FOR_EVER)
        looks.wait_looks(2)
        os.kill(run.supervisor_pid(), signal.SIGKILL)
        assert run.wait() == 70
    assert asked.wait() == 1
    assert asked.err_text in (
        f"the procman with pid {run.pid} has ended\n",
        f"the procman with pid {run.pid} has gone away without an answer\n",
    )


def test_interrupted(app: App) -> None:
    app(TWO)
    with lookout(app) as looks:
        asked = app.procman("wait", *FOR_EVER)
        looks.wait_looks(1)
        asked.signal(signal.SIGINT)
        assert asked.wait() == 130


def test_wrong_timeout(app: App) -> None:
    asked = app(TWO).call("wait", "--timeout", "soon")
    assert (asked.code, asked.out) == (2, b"")
    assert "--timeout" in asked.err_text


# --- readiness ---


def test_not_ready_before_it_says_so(app: App) -> None:
    gate = app.fifo()
    app(f"web: echo begun; read x < {gate}; echo up; {SLEEP}\n", procman__toml=READY_WHEN_UP)
    run = app.start()
    run.wait_output("begun")
    early = app.call("wait", *SHORT)
    assert (early.code, early.err_text) == (
        1, f"not ready within 0.3 s: web.1 is starting, pid {run.pid_of('web.1')}\n"
    )  # fmt: skip
    asked = app.procman("wait", *FOR_EVER)
    gate.send()
    assert (asked.wait(), asked.text) == (0, f"web.1 ready, pid {run.pid_of('web.1')}, port {app.port}\n")


@pytest.mark.parametrize("on_exit", ["ignore", "stop"])
def test_end_before_it_was_ready(app: App, on_exit: str) -> None:
    gate = app.fifo()
    app(f"web: read x < {gate}; exit 3\nworker: {IGNORES_TERM}\n", procman__toml=READY_WHEN_UP)
    run = app.start("--on-exit", on_exit, "-t", "inf")
    run.wait_output("set", "worker.1")
    asked = app.procman("wait", *FOR_EVER)
    gate.send()
    assert (asked.wait(), asked.err_text) == (1, "web.1 failed with code 3\n")
    if on_exit == "stop":
        kill(run)
        assert run.wait() == 3
    else:
        finish(run)


def test_names_what_a_pending_one_waits_for(app: App) -> None:
    gate = app.fifo()
    app(f"db: echo begun; read x < {gate}; echo up; {SLEEP}\nweb: {SLEEP}\n",
        procman__toml='[process.db]\nready = { log = "^up" }\n[process.web]\nneeds = ["db"]\n')  # fmt: skip
    run = app.start()
    run.wait_output("begun")
    early = app.call("wait", "web", *SHORT)
    assert (early.code, early.err_text) == (1, "not ready within 0.3 s: web.1 is pending (waits for db)\n")
    assert re.search(r"(?m)^web\.1 +pending db ", app.call("ps").text)
    asked = app.procman("wait", *FOR_EVER)
    gate.send()
    assert asked.wait() == 0
    assert [line.split()[:2] for line in asked.lines[:-1]] == [["db.1", "ready,"], ["web.1", "ready,"]]


def test_readiness_that_does_not_come_is_told_with_its_reason(app: App) -> None:
    app(f"web: {SLEEP}\nworker: {SLEEP}\n", procman__toml='[process.web]\nready = { log = "up", within = "100ms" }\n')
    run = app.start("--on-exit", "ignore")
    run.wait_for("exited", "web.1")
    asked = app.call("wait", *FOR_EVER)
    assert (asked.code, asked.out) == (1, b"")
    assert asked.err_text.startswith("web.1 failed: was not ready within 0.1 s")
