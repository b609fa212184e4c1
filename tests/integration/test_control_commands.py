"""`procman stop`, `restart`, `scale`, `signal` and `quit` against real runs."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.app import App, Run

SLEEP = "exec sleep 1000"
TWO = f"web: {SLEEP}\nworker: {SLEEP}\n"
IGNORES_TERM = "trap '' TERM; echo set; while :; do sleep 1000; done"


def started(app: App, procfile: str, *arguments: str, names: tuple[str, ...] = ("web.1",)) -> Run:
    run = app(procfile).start(*arguments)
    run.wait_all("ready", names)
    return run


def names_in(app: App) -> dict[str, str]:
    """Return the state of each instance."""
    return {line.split()[0]: line.split()[1] for line in app.call("ps").lines[1:-1]}


def count(run: Run, event: str, name: str) -> int:
    return sum(seen.is_(event, name) for seen in run.events)


def second_pid(run: Run, name: str) -> int:
    """Return the pid after the first restart: the command may be done before its event is read here."""
    run.wait_until(lambda: count(run, "started", name) == 2, f"second start of {name}")
    return run.pid_of(name)


def order(run: Run, *events: str) -> list[tuple[str, str]]:
    return [(seen.event, seen.name) for seen in run.events if seen.event in events]


# --- stop ---


def test_stop_a_type_and_an_instance(app: App) -> None:
    run = started(app, TWO, "web=2", "worker=3", names=("web.2", "worker.3"))
    asked = app.call("stop", "web", "worker.2")
    assert (asked.code, asked.lines) == (0, ["web.1 stopped", "web.2 stopped", "worker.2 stopped", ""])
    assert names_in(app) == {
        "web.1": "stopped", "web.2": "stopped", "worker.1": "ready", "worker.2": "stopped", "worker.3": "ready",
    }  # fmt: skip
    assert run.code is None


def test_stop_all_leaves_procman(app: App) -> None:
    run = started(app, TWO, names=("web.1", "worker.1"))
    asked = app.call("stop", "--all")
    assert (asked.code, asked.lines) == (0, ["web.1 stopped", "worker.1 stopped", ""])
    assert app.call("restart", "--all").code == 0
    assert names_in(app) == {"web.1": "ready", "worker.1": "ready"}
    assert run.code is None


def test_stop_what_was_stopped(app: App) -> None:
    started(app, TWO, names=("web.1", "worker.1"))
    assert app.call("stop", "worker").code == 0
    asked = app.call("stop", "worker")
    assert (asked.code, asked.text) == (0, "worker.1 was not running\n")


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_everything_must_be_asked_for(app: App, command: str) -> None:
    started(app, TWO, names=("web.1", "worker.1"))
    for arguments in ((), ("web", "--all")):
        asked = app.call(command, *arguments)
        assert asked.code == 2
        assert "--all" in asked.err_text
    assert set(names_in(app).values()) == {"ready"}


@pytest.mark.parametrize("command", ["stop", "restart", "signal"])
def test_unknown_names_are_refused_whole(app: App, command: str) -> None:
    run = started(app, TWO, names=("web.1", "worker.1"))
    for name, hint in (("wroker", 'did you mean "worker"?'), ("web.2", 'did you mean "web.1"?')):
        asked = app.call(command, "web.1", name, *(["TERM"] if command == "signal" else []))
        assert (asked.code, asked.out) == (2, b"")
        assert asked.err_text == f'"{name}" does not run here — {hint}\n'
    assert set(names_in(app).values()) == {"ready"}
    assert order(run, "stopping", "exited") == []


def test_stop_that_takes_longer_than_asked_for(app: App) -> None:
    run = app(f"web: {SLEEP}\nworker: {IGNORES_TERM}\n").start("-t", "inf")
    run.wait_output("set", "worker.1")
    asked = app.call("stop", "worker", "--timeout", "0.2")
    assert (asked.code, asked.out) == (1, b"")
    assert asked.err_text == (
        f"not done within 0.2 s: worker.1 is stopping, pid {run.pid_of('worker.1')} "
        "— it goes on, `procman ps` shows how\n"
    )
    assert names_in(app) == {"web.1": "ready", "worker.1": "stopping"}
    os.killpg(run.pid_of("worker.1"), signal.SIGKILL)
    run.wait_for("exited", "worker.1")


def test_supervisor_that_dies_midway(app: App) -> None:
    run = app(f"worker: {IGNORES_TERM}\n").start("-t", "inf")
    run.wait_output("set", "worker.1")
    asked = app.procman("stop", "worker")
    run.wait_for("stopping", "worker.1")
    os.kill(run.supervisor_pid(), signal.SIGKILL)
    assert asked.wait() == 69
    assert re.fullmatch(r"the procman with pid \d+ has gone away without an answer\n", asked.err_text)
    assert run.wait() == 70


def test_interrupted_client_leaves_what_it_asked_for(app: App) -> None:
    run = app(f"web: {SLEEP}\nworker: {IGNORES_TERM}\n").start("-t", "inf")
    run.wait_output("set", "worker.1")
    asked = app.procman("stop", "worker", "web")
    run.wait_for("exited", "web.1")
    asked.signal(signal.SIGINT)
    assert asked.wait() == 130
    os.killpg(run.pid_of("worker.1"), signal.SIGKILL)
    run.wait_for("exited", "worker.1")
    assert names_in(app) == {"web.1": "stopped", "worker.1": "stopped"}


# --- restart ---


def test_restart(app: App) -> None:
    run = started(app, TWO, "web=2", "worker", names=("web.2", "worker.1"))
    old = {name: run.pid_of(name) for name in ("web.1", "web.2", "worker.1")}
    asked = app.call("restart", "web")
    new = {name: second_pid(run, name) for name in ("web.1", "web.2")}
    assert asked.code == 0
    assert asked.lines == [
        f"web.1 ready, pid {new['web.1']}, port {app.port}",
        f"web.2 ready, pid {new['web.2']}, port {app.port + 1}",
        "",
    ]
    assert old["web.1"] != new["web.1"]
    assert old["web.2"] != new["web.2"]
    assert old["worker.1"] == run.pid_of("worker.1")


def test_restart_starts_what_was_stopped(app: App) -> None:
    run = started(app, TWO, names=("web.1", "worker.1"))
    assert app.call("stop", "worker.1").code == 0
    asked = app.call("restart", "worker.1")
    assert asked.text == f"worker.1 ready, pid {second_pid(run, 'worker.1')}, port {app.port + 100}\n"


def test_restart_rolling_is_one_after_another(app: App) -> None:
    run = started(app, TWO, "web=3", names=("web.1", "web.2", "web.3"))
    seen = len(run.events)
    asked = app.call("restart", "web", "--rolling")
    assert [line.split()[:2] for line in asked.lines[:-1]] == [[f"web.{n}", "ready,"] for n in (1, 2, 3)]
    run.wait_until(lambda: count(run, "ready", "web.3") == 2, "web.3 again")
    told = [(e.event, e.name) for e in run.events[seen:] if e.event in ("exited", "started", "ready")]
    assert told == [(event, f"web.{n}") for n in (1, 2, 3) for event in ("exited", "started", "ready")]


def test_restart_rolling_of_more_than_the_depth_of_calls(app: App) -> None:
    """Each that was down is up at once, so one must not be a call inside the one before."""
    count = sys.getrecursionlimit() // 4 + 20
    started(app, TWO, f"web={count}", names=(f"web.{count}",))
    assert app.call("stop", "--all").code == 0
    assert app.call("restart", "--all", "--rolling").lines[-2].startswith(f"web.{count} ready,")


@pytest.mark.parametrize("words", [(), ("--rolling",)])
def test_restart_of_nothing(app: App, words: tuple[str, ...]) -> None:
    run = started(app, TWO, "web=1", names=("web.1",))
    assert app.call("scale", "web=0").code == 0
    asked = app.call("restart", "--all", *words)
    assert (asked.code, asked.text) == (0, "nothing to restart\n")
    assert run.code is None


def test_without_port_none_is_told(app: App) -> None:
    run = started(app, TWO, "--no-port", names=("web.1", "worker.1"))
    assert app.call("restart", "web").text == f"web.1 ready, pid {second_pid(run, 'web.1')}\n"


# --- scale ---


def test_scale_up_and_down(app: App) -> None:
    run = started(app, TWO, "web=2", "worker=2", names=("web.2", "worker.2"))
    asked = app.call("scale", "web=3", "worker=-1")
    assert (asked.code, asked.lines) == (
        0, [f"web.3 ready, pid {run.pid_of('web.3')}, port {app.port + 2}", "worker.2 stopped", ""]
    )  # fmt: skip
    assert set(names_in(app)) == {"web.1", "web.2", "web.3", "worker.1"}
    assert run.code is None


def test_scale_to_nothing_and_back(app: App) -> None:
    run = started(app, TWO, names=("web.1", "worker.1"))
    assert app.call("scale", "worker=0").text == "worker.1 stopped\n"
    assert set(names_in(app)) == {"web.1"}
    asked = app.call("restart", "worker")
    assert (asked.code, asked.err_text) == (2, '"worker" does not run here — `procman scale worker=1` starts it\n')
    asked = app.call("scale", "worker=+2")
    pids = {1: second_pid(run, "worker.1"), 2: run.pid_of("worker.2")}
    assert asked.lines == [f"worker.{n} ready, pid {pids[n]}, port {app.port + 99 + n}" for n in (1, 2)] + [""]


def test_who_is_scaled_away_does_not_come_back(app: App) -> None:
    """Nor does a restart meanwhile keep the one who has scaled waiting for ever."""
    slow = "trap 'until [ -e go ]; do sleep 0.1; done; exit' TERM; echo up; while :; do sleep 0.1; done"
    run = started(app, f"web: {slow}\n", "web=2", "-t", "30", names=("web.2",))
    run.wait_for("output", "web.2")
    scaling = app.procman("scale", "web=1")
    run.wait_for("stopping", "web.2")
    asked = app.call("restart", "web.2")
    assert (asked.code, asked.err_text) == (2, '"web.2" is being scaled away — `procman scale web=2` brings it back\n')
    restarting = app.procman("restart", "web")
    run.wait_for("stopping", "web.1")
    (app.root / "go").touch()
    assert scaling.wait() == 0
    assert "web.2 stopped" in scaling.lines
    assert restarting.wait() == 0
    assert restarting.text == f"web.1 ready, pid {second_pid(run, 'web.1')}, port {app.port}\n"
    assert set(names_in(app)) == {"web.1"}


def test_scale_starts_a_type_that_did_not_run(app: App) -> None:
    run = started(app, TWO, "web")
    asked = app.call("scale", "worker=1")
    assert asked.text == f"worker.1 ready, pid {run.pid_of('worker.1')}, port {app.port + 100}\n"
    assert app.call("stop", "worker").code == 0


def test_scale_to_what_is_there(app: App) -> None:
    started(app, TWO, "web=2", names=("web.2",))
    asked = app.call("scale", "web=2")
    assert (asked.code, asked.text) == (0, "web=2: nothing to do\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("web=2", "wroker=2"), 'did you mean "worker"?'),
        (("web=2", "worker=-2"), "only 1"),
        (("web=2", "worker=60000"), "65535"),
        (("web=2", "worker=two"), "worker=two: write web=3, web=+2 or web=-1."),
        (("web=2", "worker"), "worker: write web=3"),
        (("web=2", "web=3"), "named twice"),
        ((), "TYPE=N"),
    ],
)
def test_scale_that_cannot_be_is_refused_whole(app: App, words: tuple[str, ...], complaint: str) -> None:
    started(app, TWO, names=("web.1", "worker.1"))
    asked = app.call("scale", *words)
    assert asked.code in (2, 78)
    assert asked.out == b""
    assert complaint in asked.err_text
    assert set(names_in(app)) == {"web.1", "worker.1"}


def test_scale_of_two_supervisors(app: App) -> None:
    first = started(app, TWO, "web")
    second = app.start("worker")
    second.wait_for("ready", "worker.1")
    asked = app.call("scale", "web=+1", "worker=2")
    assert sorted(asked.lines) == ["", *(
        f"{name} ready, pid {run.pid_of(name)}, port {port}"
        for run, name, port in ((first, "web.2", app.port + 1), (second, "worker.2", app.port + 101))
    )]  # fmt: skip
    assert app.call("scale", "assets=1").code == 2


# --- two procmans in one directory: all or nothing ---


def two_procmans(app: App, procfile: str = TWO) -> list[Run]:
    """Start web under one procman, worker under another; no signal ends a run before its time."""
    first = started(app, procfile, "web", "-t", "inf")
    second = app.start("worker", "-t", "inf")
    second.wait_for("ready", "worker.1")
    return [first, second]


def pids_in(app: App) -> dict[str, str]:
    return {line.split()[0]: line.split()[2] for line in app.call("ps").lines[1:-1]}


def assert_refused(app: App, runs: list[Run], words: tuple[str, ...], code: int, *complaints: str) -> None:
    """Refused with all complaints, and nothing has happened on either side."""
    before = pids_in(app)
    asked = app.call(*words)
    assert (asked.code, asked.out) == (code, b""), asked.failure("")
    for complaint in complaints:
        assert complaint in asked.err_text
    assert pids_in(app) == before
    assert [name for run in runs for _, name in order(run, "started")] == ["web.1", "worker.1"]


@pytest.mark.parametrize(
    ("words", "code", "complaints"),
    [
        (("web=+1", "worker=60000"), 78, ["worker=60000 needs ports"]),
        (("web=60000", "worker=0"), 78, ["web=60000 needs ports"]),
        (("web=+1", "worker=-2"), 2, ["worker-2: only 1"]),
        (("web=-2", "worker=60000"), 2, ["web-2: only 1", "worker=60000 needs ports"]),
        (("web=+1", "wroker=2"), 2, ['"wroker" does not run here — did you mean "worker"?']),
        (("wbe=2", "worker=60000"), 2, ['"wbe" does not run here', "worker=60000 needs ports"]),
        (("web=0", "assets=1"), 2, ['"assets" does not run here', "`procman start TYPE`"]),
    ],
)
def test_scale_of_two_is_refused_whole(app: App, words: tuple[str, ...], code: int, complaints: list[str]) -> None:
    runs = two_procmans(app, f"{TWO}assets: {SLEEP}\n")
    assert_refused(app, runs, ("scale", *words), code, *complaints)


@pytest.mark.parametrize("taken", ["web", "worker"])
def test_port_that_is_taken_on_one_side_is_refused_whole(app: App, taken: str) -> None:
    runs = two_procmans(app, f"web: : $PORT; {SLEEP}\nworker: : $PORT; {SLEEP}\n")
    port = app.port + (1 if taken == "web" else 101)
    with socket.create_server(("127.0.0.1", port)):
        complaint = f"{taken}.2 uses PORT, but port {port} is taken"
        assert_refused(app, runs, ("scale", "web=+1", "worker=+1"), 71, complaint)
    assert app.call("scale", "web=+1", "worker=+1").code == 0


@pytest.mark.parametrize(
    "words", [("scale", "web=+1", "worker=+1"), ("restart", "web", "worker"), ("restart", "--all")]
)
def test_run_that_ends_on_one_side_is_refused_whole(app: App, words: tuple[str, ...]) -> None:
    runs = two_procmans(app, f"web: {SLEEP}\nworker: {IGNORES_TERM}\n")
    runs[1].wait_output("set")
    runs[1].signal(signal.SIGTERM)
    runs[1].wait_for("stopping", "worker.1")
    assert_refused(app, runs, words, 69, "the run is ending, so nothing is started any more")
    os.killpg(runs[1].pid_of("worker.1"), signal.SIGKILL)
    runs[1].wait()


@pytest.mark.parametrize("name", ["worker.2", "wroker"])
@pytest.mark.parametrize("command", ["stop", "restart", "signal"])
def test_unknown_name_on_one_side_is_refused_whole(app: App, command: str, name: str) -> None:
    runs = two_procmans(app)
    words = (command, "web", name, *(["TERM"] if command == "signal" else []))
    assert_refused(app, runs, words, 2, f'"{name}" does not run here')
    assert order(runs[0], "stopping", "exited") == order(runs[1], "stopping", "exited") == []


@pytest.mark.parametrize("command", ["stop", "restart", "signal"])
def test_two_procmans_are_both_asked(app: App, command: str) -> None:
    runs = two_procmans(app)
    asked = app.call(command, "web", "worker", *(["CONT"] if command == "signal" else []))
    assert (asked.code, [line.split(".")[0] for line in asked.lines]) == (0, ["web", "worker", ""])
    assert [run.code for run in runs] == [None, None]


# --- signal ---


@pytest.mark.parametrize("word", ["USR1", "SIGUSR1", "usr1", str(int(signal.SIGUSR1))])
def test_signal(app: App, word: str) -> None:
    run = app(f"web: {app.child('signals')}; true\n").start()  # a shell stands between
    run.wait_output("up")
    asked = app.call("signal", "web.1", word)
    assert (asked.code, asked.text) == (0, f"web.1 got SIGUSR1, pid {run.pid_of('web.1')}\n")
    run.wait_output("got SIGUSR1")


def test_signal_to_what_does_not_run(app: App) -> None:
    run = started(app, TWO, names=("web.1", "worker.1"))
    assert app.call("stop", "worker").code == 0
    asked = app.call("signal", "web", "worker", "CONT")
    assert asked.code == 1
    assert asked.text == f"web.1 got SIGCONT, pid {run.pid_of('web.1')}\n"
    assert asked.err_text == "worker.1 is not running, so it got no signal\n"


@pytest.mark.parametrize("words", [("web", "FOO"), ("web", "999"), ("web",), ()])
def test_wrong_signals(app: App, words: tuple[str, ...]) -> None:
    started(app, TWO, names=("web.1", "worker.1"))
    asked = app.call("signal", *words)
    assert (asked.code, asked.out) == (2, b"")
    assert set(names_in(app).values()) == {"ready"}


# --- quit ---


def test_quit(app: App) -> None:
    run = started(app, TWO, names=("web.1", "worker.1"))
    asked = app.call("quit")
    assert (asked.code, asked.text) == (0, f"procman with pid {run.pid} has ended; nothing is left running\n")
    assert run.wait() == 0
    assert run.notices()[-1] == "stopped by procman quit; nothing is left running"
    assert not list((app.root / ".procman").glob("*.sock"))


def test_quit_ends_all_supervisors(app: App) -> None:
    runs = [started(app, TWO, "web"), app.start("worker")]
    runs[1].wait_for("ready", "worker.1")
    asked = app.call("quit")
    assert asked.code == 0
    assert sorted(asked.lines[:-1]) == sorted(
        f"procman with pid {run.pid} has ended; nothing is left running" for run in runs
    )
    assert [run.wait() for run in runs] == [0, 0]


def test_quit_that_takes_longer_than_asked_for(app: App) -> None:
    run = app(f"worker: {IGNORES_TERM}\n").start("-t", "inf")
    run.wait_output("set", "worker.1")
    asked = app.call("quit", "--timeout", "0.2")
    assert (asked.code, asked.out) == (1, b"")
    assert asked.err_text == f"not done within 0.2 s: procman with pid {run.pid} still runs — it goes on stopping\n"
    os.killpg(run.pid_of("worker.1"), signal.SIGKILL)
    run.wait()


def test_quit_tells_the_code_of_the_run(app: App) -> None:
    run = app(f"worker: {IGNORES_TERM}\n").start("-t", "0.1")
    run.wait_output("set", "worker.1")
    asked = app.call("quit")
    assert asked.code == 0
    assert asked.text == f"procman with pid {run.pid} has ended with exit code 1; nothing is left running\n"
    assert run.wait() == 1


# --- who may ---


def test_socket_of_another_server_is_no_trap(app: App, tmp_path: Path) -> None:
    """What is in the directory and no procman is named."""
    (app.root / ".procman").mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        os.chdir(app.root / ".procman")
        try:
            other.bind("1.sock")
        finally:
            os.chdir("/")
        assert app("web: true").call("ps").code == 69
