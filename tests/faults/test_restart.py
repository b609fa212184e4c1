"""Who comes back, when, and when no more: seen by events. Nothing here counts time but procman's own figures."""

from __future__ import annotations

import itertools
import os
import signal

import pytest

from tests.faults.helpers import (
    alive,
    cpu_ticks,
    guard_and_supervisor,
    last_word,
    no_traceback,
    shell_start,
)
from tests.support.app import PYTHON, App, Run

NOTHING = "nothing is left running"


def events_of(run: Run, name: str) -> list[str]:
    short = {"started", "ready", "exited", "restarting", "gaveup", "stopping"}
    return [event.event for event in run.events if event.name == name and event.event in short]


def test_crash_loop_backs_off_and_ends(app: App) -> None:
    """1, 2, 4, 8 s, then it gives up: five starts in all, however long it is watched, and hardly any work."""
    app("worker: exit 3\nother: exec sleep 1000")
    run = app.start("--restart", "worker", "--no-timestamp")
    run.wait_for("restarting", "worker.1")
    supervisor = guard_and_supervisor(run)[1]
    ticks = cpu_ticks(supervisor)
    run.wait_until(lambda: sum(event.is_("restarting") for event in run.events) == 4, "four back-offs")
    assert cpu_ticks(supervisor) - ticks < 30
    assert run.wait() == 3
    assert [event.delay_s for event in run.events if event.is_("restarting")] == [1, 2, 4, 8]
    assert [event.code for event in run.events if event.is_("exited", "worker.1")] == [3] * 5
    turn = ["started", "ready", "exited"]
    assert events_of(run, "worker.1") == [*turn, "restarting"] * 4 + [*turn, "gaveup"]
    gave_up = next(event for event in run.events if event.is_("gaveup"))
    assert gave_up.reason == "failed 5 times in 60 s, giving up"
    assert "worker.1 | failed 5 times in 60 s, giving up" in run.lines
    starts = [event.at for event in run.events if event.is_("started", "worker.1")]
    waits = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(wait >= delay for wait, delay in zip(waits, [1, 2, 4, 8], strict=True))
    assert last_word(run) == f"worker.1 exited with code 3; {NOTHING}"
    assert alive(app) == {}


def test_one_that_gives_up_and_can_die_leaves_the_others(app: App) -> None:
    """Restarts are each instance's own: the clean one goes on, the run ends with the last."""
    gate = app.fifo()
    app(f"worker: read x < {gate}; exit 1\nother: exec sleep 1000")
    run = app.start("worker=2", "other=1", "--restart", "worker")
    for number in range(2):
        gate.send()
        run.wait_until(lambda number=number: sum(e.is_("restarting") for e in run.events) == number + 1, "a back-off")
    run.wait_until(lambda: sum(e.is_("started") for e in run.events) == 5, "both again")
    assert sum(event.is_("stopping") for event in run.events) == 0
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_clean_exits_are_paced_too(app: App) -> None:
    """`always` brings back what ended with 0; a loop of those must not burn a core."""
    app("worker: exit 0\nother: exec sleep 1000")
    run = app.start("--restart", "worker")
    run.wait_until(lambda: sum(event.is_("restarting") for event in run.events) == 2, "two back-offs")
    assert [event.delay_s for event in run.events if event.is_("restarting")] == [1, 2]
    assert sum(event.is_("started", "worker.1") for event in run.events) == 2
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert not any(event.is_("gaveup") for event in run.events)


def test_stop_during_back_off_ends_at_once(app: App) -> None:
    app("worker: exit 3\nother: exec sleep 1000")
    run = app.start("--restart", "all")
    run.wait_for("restarting", "worker.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert sum(event.is_("started", "worker.1") for event in run.events) == 1
    assert last_word(run).endswith(NOTHING)


def test_end_of_another_during_back_off_ends_the_run(app: App) -> None:
    gate = app.fifo()
    app(f"worker: exit 3\nother: read x < {gate}; exit 4")
    run = app.start("--restart", "worker")
    run.wait_for("restarting", "worker.1")
    gate.send()
    assert run.wait() == 4
    assert sum(event.is_("started", "worker.1") for event in run.events) == 1


def test_restart_of_all(app: App) -> None:
    app("worker: exit 3\nother: exit 4")
    run = app.start("--restart", "all")
    run.wait_until(lambda: {e.name for e in run.events if e.is_("restarting")} == {"worker.1", "other.1"}, "back-offs")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_killed_ones_come_back(app: App) -> None:
    """The leader killed, its group left: the rest is stopped before the next start."""
    app(f"worker: {app.child('term_ignore')} & {app.child('term_ignore')}; true")
    run = app.start("--restart", "worker", "-t", "0.2")
    run.wait_until(lambda: run.output_of("worker.1") == ["ignoring"] * 2, "both")
    first = set(alive(app))
    os.kill(run.pid_of("worker.1"), signal.SIGKILL)
    run.wait_for("restarting", "worker.1")
    assert not first & set(alive(app))
    assert run.wait_for("exited", "worker.1").signum == signal.SIGKILL
    run.wait_until(lambda: run.output_of("worker.1") == ["ignoring"] * 4, "both again")
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    assert alive(app) == {}


def test_unknown_names_are_refused(app: App) -> None:
    """A typing error in a policy would otherwise show in the night."""
    app("worker: exit 3\nother: exec sleep 1000")
    for option in ("--restart", "--can-die"):
        run = app.start(option, "wroker")
        assert run.wait() == 2, run.failure(option)
        assert "wroker" in run.err_text
        assert "worker" in run.err_text.replace("wroker", "")
        no_traceback(run)


# --- what an end means for the run -----------------------------------------------------------------------------------

@pytest.mark.parametrize("code", [0, 3])
def test_can_die(app: App, code: int) -> None:
    gate = app.fifo()
    app(f"assets: exit {code}\nweb: read x < {gate}; exit 5")
    run = app.start("--can-die", "assets")
    run.wait_for("exited", "assets.1", code=code)
    gate.send()
    assert run.wait() == 5
    assert [event.name for event in run.events if event.is_("stopping")] == []


def test_can_die_and_all_have(app: App) -> None:
    app("assets: exit 0\nweb: exit 0")
    run = app.start("--can-die", "assets,web")
    assert run.wait() == 0
    assert last_word(run) == f"every process has ended; {NOTHING}"


def test_can_die_with_a_failure(app: App) -> None:
    app("assets: exit 3\nweb: exit 0")
    run = app.start("--can-die", "assets,web")
    assert run.wait() == 3


def test_on_exit_fail(app: App) -> None:
    """A clean exit does not end the run, a failure does."""
    gate = app.fifo()
    app(f"job: exit 0\nweb: read x < {gate}; exit 6\nother: exec sleep 1000")
    run = app.start("--on-exit", "fail")
    run.wait_for("exited", "job.1", code=0)
    gate.send()
    assert run.wait() == 6
    assert [event.name for event in run.events if event.is_("stopping")] == ["other.1"]


def test_on_exit_fail_and_a_signal(app: App) -> None:
    app("job: exec sleep 1000\nother: exec sleep 1000")
    run = app.start("--on-exit", "fail")
    run.wait_all("ready", ["job.1", "other.1"])
    os.kill(run.pid_of("job.1"), signal.SIGSEGV)
    assert run.wait() == 139


def test_on_exit_ignore(app: App) -> None:
    gate = app.fifo()
    app(f"job: exit 3\nother: exit 0\nweb: read x < {gate}; exit 0")
    run = app.start("--on-exit", "ignore")
    run.wait_for("exited", "job.1", code=3)
    run.wait_for("exited", "other.1", code=0)
    gate.send()
    assert run.wait() == 3  # nothing ended the run, but one has failed
    assert not any(event.is_("stopping") for event in run.events)


def test_on_exit_stop_is_the_default(app: App) -> None:
    gate = app.fifo()
    app(f"job: read x < {gate}; exit 0\nother: exec sleep 1000")
    run = app.start()
    run.wait_for("ready", "other.1")
    gate.send()
    assert run.wait() == 0
    assert [event.name for event in run.events if event.is_("stopping")] == ["other.1"]


# --- process sections of procman.toml --------------------------------------------------------------------------------

def test_on_failure_brings_back_only_failures(app: App) -> None:
    """Twice it fails and comes back, then it ends with 0: that is an end, and by default that of the run."""
    gate = app.fifo()
    app(
        f"worker: read code < {gate}; exit $code\nother: exec sleep 1000",
        procman__toml='[process.worker]\nrestart = "on-failure"\n',
    )
    run = app.start()
    for number, code in enumerate(("3\n", "4\n"), 1):
        gate.send(code)
        run.wait_until(lambda number=number: sum(e.is_("restarting") for e in run.events) == number, "a back-off")
    gate.send("0\n")
    assert run.wait() == 0
    turn = ["started", "ready", "exited"]
    assert events_of(run, "worker.1") == [*turn, "restarting", *turn, "restarting", *turn]
    assert events_of(run, "other.1") == ["started", "ready", "stopping", "exited"]
    assert last_word(run) == f"worker.1 exited with code 0; {NOTHING}"


def test_on_failure_brings_back_what_a_signal_killed(app: App) -> None:
    app("worker: exec sleep 1000", procman__toml='[process.worker]\nrestart = "on-failure"\n')
    run = app.start()
    os.kill(run.pid_of("worker.1"), signal.SIGKILL)
    run.wait_for("restarting", "worker.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_on_failure_gives_up_and_can_die(app: App) -> None:
    """The limit is the end of the one, and not of the run, if its end is nobody's business; the code tells of it."""
    gate = app.fifo()
    app(
        f"worker: exit 3\nother: read x < {gate}; exit 0",
        procman__toml='[process.worker]\nrestart = "on-failure"\non_exit = "ignore"\n',
    )
    run = app.start("--no-timestamp")
    assert run.wait_for("gaveup", "worker.1").reason == "failed 5 times in 60 s, giving up"
    assert not any(event.is_("stopping") for event in run.events)
    gate.send()
    assert run.wait() == 0  # the first whose end stops the run decides
    assert "worker.1 | failed 5 times in 60 s, giving up" in run.lines


def test_always_for_one_type(app: App) -> None:
    app("worker: exit 0\nother: exec sleep 1000", procman__toml='[process.worker]\nrestart = "always"\n')
    run = app.start()
    run.wait_until(lambda: sum(e.is_("started", "worker.1") for e in run.events) == 2, "second start")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert next(event.delay_s for event in run.events if event.is_("restarting")) == 1


@pytest.mark.parametrize(("on_exit", "code", "ends"), [("ignore", 3, False), ("fail", 0, False), ("fail", 3, True)])
def test_on_exit_of_one_type(app: App, on_exit: str, code: int, ends: bool) -> None:
    gate = app.fifo()
    app(
        f"job: exit {code}\nother: read x < {gate}; exit 6",
        procman__toml=f'[process.job]\non_exit = "{on_exit}"\n',
    )
    run = app.start()
    run.wait_for("exited", "job.1", code=code)
    if not ends:
        gate.send()
    assert run.wait() == (3 if ends else 6)
    assert alive(app) == {}


@pytest.mark.parametrize("before", ["", "trap '' INT HUP"])
@pytest.mark.parametrize("name", ["INT", "HUP"])
def test_stop_signal_and_grace_of_one_type(app: App, name: str, before: str) -> None:
    """SIGINT or SIGHUP for one, a short time for another; it is heard although the caller ignores it."""
    app(
        f"polite: {app.child('signals')}\n"
        f"database: {PYTHON} -c 'import os, signal; os.write(1, b\"up\\n\"); signal.pause()' {app.token}\n"
        f"stubborn: {app.child('term_ignore')}",
        procman__toml=f'[process.database]\nstop_signal = "{name}"\n[process.stubborn]\ngrace = "200ms"\n',
    )
    run = app.spawn(shell_start(app, before, "-t", "1000"), has_events=True)
    run.wait_output("ignoring", "stubborn.1")
    run.wait_output("up", "polite.1")
    run.wait_output("up", "database.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    assert [event.name for event in run.events if event.is_("notice") and "SIGKILL" in event.text] == ["stubborn.1"]
    assert run.wait_for("stopping", "database.1").signum == getattr(signal, f"SIG{name}")
    assert run.wait_for("exited", "database.1").signum == (signal.SIGHUP if name == "HUP" else signal.SIGINT)
    assert alive(app) == {}


SUCCESS = '[process.worker]\nrestart = "on-failure"\nsuccess_codes = [2, 143]\n'


@pytest.mark.parametrize("code", [0, 2, 143])
def test_accepted_code_is_no_failure(app: App, code: int) -> None:
    """After a failure, which comes back: an accepted end stays, and ends the run as a success."""
    gate = app.fifo()
    app(f"worker: read code < {gate}; exit $code\nother: exec sleep 1000", procman__toml=SUCCESS)
    run = app.start()
    gate.send("1\n")
    run.wait_for("restarting", "worker.1")
    gate.send(f"{code}\n")
    assert run.wait() == 0
    assert events_of(run, "worker.1") == ["started", "ready", "exited", "restarting", "started", "ready", "exited"]
    assert last_word(run) == f"worker.1 exited with code {code}; {NOTHING}"


def test_accepted_signal_is_no_failure(app: App) -> None:
    app("worker: exec sleep 1000\nother: exec sleep 1000", procman__toml=SUCCESS)
    run = app.start()
    os.kill(run.pid_of("worker.1"), signal.SIGTERM)
    assert run.wait() == 0
    assert last_word(run) == f"worker.1 was terminated by SIGTERM; {NOTHING}"


@pytest.mark.parametrize(("code", "expected"), [(2, 6), (3, 3)])
def test_accepted_code_and_on_exit_fail(app: App, code: int, expected: int) -> None:
    """With `fail` it does not end the run; one that is not accepted does."""
    gate = app.fifo()
    app(
        f"job: exit {code}\nother: read x < {gate}; exit 6",
        procman__toml='[process.job]\non_exit = "fail"\nsuccess_codes = [2]\n',
    )
    run = app.start()
    run.wait_for("exited", "job.1", code=code)
    if expected == 6:
        gate.send()
    assert run.wait() == expected


def test_accepted_codes_of_all_is_a_good_end(app: App) -> None:
    app("job: exit 2", procman__toml='[process.job]\non_exit = "ignore"\nsuccess_codes = [2]\n')
    run = app.start()
    assert run.wait() == 0
    assert last_word(run) == f"every process has ended; {NOTHING}"


@pytest.mark.parametrize("value", ["256", "[256]", "[-1]", '["1"]', "[true]"])
def test_accepted_codes_that_are_none(app: App, value: str) -> None:
    app("worker: exit 3", procman__toml=f"[process.worker]\nsuccess_codes = {value}\n")
    run = app.start()
    assert run.wait() == 78
    assert "procman.toml:2" in run.err_text
    assert "success_codes" in run.err_text
