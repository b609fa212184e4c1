"""How a run ends: contract G2 to G16, architecture 5.3, 5.6, 5.8 and the table of exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.app import App, Run

STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SLEEP = "exec sleep 1000"


def last_line(run: Run) -> str:
    """Return procman's last word, without its prefix."""
    return run.text.rstrip("\n").split("\n")[-1].split("| ", 1)[1]


def took_s(run: Run, begin: str, end: str, name: str) -> float:
    """Return the seconds between two events of an instance, by procman's own clock."""
    return float(run.wait_for(end, name).at - run.wait_for(begin, name).at)


# --- being asked (G2, G3, G4, G15) ---


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_stop_signal_ends_all_with_code_0(app: App, signum: signal.Signals) -> None:
    run = app(f"web: {app.child('signals', 3)}\nworker: {app.child('signals')}").start()
    run.wait_output("up", "web.1")
    run.wait_output("up", "worker.1")
    run.signal(signum)
    assert run.wait() == 0  # although one of them says 3 when asked
    assert f"{signum.name} received, starting shutdown" in run.notices()
    assert "sending SIGTERM to all processes" in run.notices()
    assert last_line(run) == f"stopped by {signum.name}; nothing is left running"
    assert run.wait_for("exited", "web.1").code == 3
    for name in ("web.1", "worker.1"):
        assert run.wait_for("stopping", name).signum == signal.SIGTERM
        # TERM whatever we were told, then CONT, each once: a program that ends at the first sees no more of them.
        assert run.output_of(name) == ["up", "got SIGTERM"]


def test_each_process_hears_the_stop_signal_once(app: App) -> None:
    gate = app.fifo()
    run = app(f"web: {app.child('term_slow', 0, gate.path)}").start()
    run.wait_output("up")
    run.signal(signal.SIGTERM)
    run.wait_output("handling TERM")
    gate.send()
    assert run.wait() == 0
    assert run.output_of("web.1") == ["up", "handling TERM", "finished"]


def test_output_during_shutdown_is_shown(app: App) -> None:
    gate = app.fifo()
    run = app(f"web: {app.child('term_slow', 0, gate.path)}\nworker: {SLEEP}").start()
    run.wait_output("up")
    run.signal(signal.SIGTERM)
    run.wait_for("exited", "worker.1")  # the others need not wait for the slow one
    run.wait_line("web.1 .*handling TERM")
    gate.send()
    run.wait()
    at = [event["event"] for event in run.events if event.name == "web.1"]
    assert at == ["started", "ready", "output", "stopping", "output", "output", "exited"]


def test_a_stopped_child_is_continued_to_obey(app: App) -> None:
    run = app(f"web: {app.child('term_slow')}").start()
    run.wait_output("up")
    pid = run.pid_of("web.1")
    os.kill(pid, signal.SIGSTOP)
    while "T" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
        pass  # a signal to another process takes effect when the kernel comes to it
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert run.output_of("web.1") == ["up", "handling TERM", "finished"]


def test_nohup_keeps_sighup_ignored(app: App) -> None:
    app(f"web: {app.child('signals')}")
    argv = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-m", "procman", "start", "-p", str(app.port)]
    run = app.spawn(argv, has_events=True)
    run.wait_output("up")
    run.signal(signal.SIGHUP)
    run.signal(signal.SIGUSR1)  # the later marker
    run.wait_output("got SIGUSR1")
    assert not run.notices()[1:]
    os.kill(run.supervisor_pid(), signal.SIGHUP)
    os.kill(run.supervisor_pid(), signal.SIGUSR2)
    run.wait_output("got SIGUSR2")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_a_closed_terminal_stops_all(app: App) -> None:
    run = app(f"web: {app.child('term_slow')}").start(size=(24, 80))
    run.wait_output("up")
    run.hang_up()
    assert run.wait() in (0, 141)  # asked by SIGHUP, or its reader went away: both are true
    assert run.output_of("web.1") == ["up", "handling TERM", "finished"]
    assert run.wait_for("exited", "web.1").code == 0


# --- grace and KILL (G5, G7, G8, G9) ---


def test_grace_then_kill(app: App) -> None:
    run = app(f"web: {app.child('term_ignore')}\nworker: {SLEEP}").start("-t", "0.3")
    run.wait_output("ignoring")
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    assert 0.3 <= took_s(run, "stopping", "exited", "web.1") < 1.5
    assert took_s(run, "stopping", "exited", "worker.1") < 0.3
    assert run.wait_for("exited", "web.1").signum == signal.SIGKILL
    assert "did not stop in time, sending SIGKILL" in run.notices()
    assert last_line(run) == "stopped by SIGTERM, 1 had to be killed; nothing is left running"


def test_grace_of_zero_kills_at_once(app: App) -> None:
    run = app(f"web: {app.child('term_ignore')}").start("-t", "0")
    run.wait_output("ignoring")
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    assert took_s(run, "stopping", "exited", "web.1") < 1


def test_grace_is_counted_from_the_signal_and_for_all_at_the_same_time(app: App) -> None:
    run = app(f"web: {app.child('term_ignore')}").start("-t", "0.4", "web=4")
    for number in range(1, 5):
        run.wait_output("ignoring", f"web.{number}")
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    ended = [event.at for event in run.events if event.is_("exited")]
    assert len(ended) == 4
    assert max(ended) - run.wait_notice("SIGTERM received").at < 1.2  # one after another would be 1.6


@pytest.mark.parametrize("value", ["-1", "soon", "nan"])
def test_a_grace_that_is_none_is_a_usage_error(app: App, value: str) -> None:
    run = app("web: echo started").call("start", "-t", value)
    assert run.code == 2
    assert run.out == b""
    assert "--timeout" in run.err_text


@pytest.mark.parametrize(
    "command",
    ["true && {} && true", "cd . && {}", "{} & wait", "( {} )", "sh -c '{}; true'", "{} | cat", "echo x; {}; echo y"],
)
def test_what_a_shell_started_hears_the_signal_and_none_is_left(app: App, command: str) -> None:
    run = app(f"web: {command.format(app.child('term_ignore'))}").start("-t", "0.1")
    run.wait_output("ignoring")
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    assert app.survivors() == {}


def test_a_handler_behind_a_shell_finishes(app: App) -> None:
    gate = app.fifo()
    run = app(f"web: cd . && {app.child('term_slow', 0, gate.path)}").start()
    run.wait_output("up")
    run.signal(signal.SIGTERM)
    run.wait_output("handling TERM")
    gate.send()
    assert run.wait() == 0
    assert run.output_of("web.1") == ["up", "handling TERM", "finished"]


@pytest.mark.parametrize("how", ["", "leave", "ignore", "leave,ignore", "leave,ignore,clean,close"])
def test_a_grandchild_in_a_session_of_its_own_is_ended_too(app: App, how: str) -> None:
    ready = app.fifo()
    stay = f"; {SLEEP}" if "leave" in how else ""
    run = app(f"web: {app.child('setsid', how, ready.path)}{stay}").start("-t", "0.2")
    pid = ready.receive()
    run.signal(signal.SIGTERM)
    assert run.wait() == (1 if "ignore" in how else 0)
    assert not Path(f"/proc/{pid}").exists()
    assert last_line(run).endswith("; nothing is left running")
    if "ignore" in how:
        assert any("SIGKILL" in text and pid in text for text in run.notices())


def test_a_leader_that_leaves_a_child_with_the_pipe_does_not_hold_the_run(app: App) -> None:
    run = app(f"web: {app.child('signals')} & sleep 0; exit 4").start()
    assert run.wait() == 4
    assert run.wait_for("exited", "web.1").code == 4
    assert app.survivors() == {}


# --- the second signal (G6) ---


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_second_signal_at_once_is_an_echo_of_the_first(app: App, signum: signal.Signals) -> None:
    gate = app.fifo()
    run = app(f"web: {app.child('term_slow', 0, gate.path)}").start()
    run.wait_output("up")
    run.signal(signum)
    run.wait_output("handling TERM")
    run.signal(signum)  # npm, make and uv deliver one Ctrl-C twice
    run.signal(signal.SIGUSR1)
    run.wait_output("got USR1")  # so the second one has been seen
    gate.send()
    assert run.wait() == 0
    assert run.output_of("web.1") == ["up", "handling TERM", "got USR1", "finished"]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_later_kills_now(app: App, second: signal.Signals) -> None:
    # The handler says something 0.6 s after the signal, so the test knows that it is late enough.
    gate = app.fifo()
    late = f"trap 'sleep 0.6; echo late' TERM; echo up; read x < {gate}; sleep 1000 & wait; read x < {gate}"
    run = app(f"web: {late}\nworker: {app.child('term_ignore')}").start("-t", "20")
    run.wait_output("up")
    run.wait_output("ignoring")
    gate.send()
    run.signal(signal.SIGINT)
    run.wait_output("late")
    run.signal(second)
    assert run.wait() == 1
    assert "sending SIGKILL to all processes" in run.notices()
    assert run.wait_for("exited", "worker.1").signum == signal.SIGKILL
    assert took_s(run, "stopping", "exited", "worker.1") < 5
    assert last_line(run).endswith("had to be killed; nothing is left running")


# --- who decides the code (G12 to G14, G16) ---


@pytest.mark.parametrize(
    ("command", "code", "why"),
    [
        ("exit 0", 0, "web.1 exited with code 0"),
        ("exit 3", 3, "web.1 exited with code 3"),
        ("exit 255", 255, "web.1 exited with code 255"),
        ("kill -SEGV $$", 139, "web.1 was terminated by SIGSEGV"),
        ("sh -c 'kill -KILL $$'; exit $?", 137, "web.1 exited with code 137"),
        ("exec no-such-program", 127, "web.1 exited with code 127"),
        ("no-such-program", 127, "web.1 exited with code 127"),
        ("./Procfile", 126, "web.1 exited with code 126"),
        ("kill -40 $$", 168, "web.1 was terminated by signal 40"),
    ],
)
def test_the_first_to_end_decides(app: App, command: str, code: int, why: str) -> None:
    run = app(f"web: {command}\nworker: {app.child('signals', 9)}").start()
    assert run.wait() == code
    assert run.wait_for("exited", "web.1").code == code
    assert last_line(run) == f"{why}; nothing is left running"
    assert "sending SIGTERM to all processes" in run.notices()
    run.wait_for("exited", "worker.1")


def test_the_deciding_code_wins_over_a_kill(app: App) -> None:
    gate = app.fifo()
    run = app(f"web: read x < {gate}; exit 3\nworker: {app.child('term_ignore')}").start("-t", "0.1")
    run.wait_output("ignoring")
    gate.send()
    assert run.wait() == 3
    assert last_line(run) == "web.1 exited with code 3, 1 had to be killed; nothing is left running"


def test_a_kill_makes_a_good_end_1(app: App) -> None:
    gate = app.fifo()
    run = app(f"web: read x < {gate}\nworker: {app.child('term_ignore')}").start("-t", "0.1")
    run.wait_output("ignoring")
    gate.send()
    assert run.wait() == 1


def test_all_well_is_0(app: App) -> None:
    run = app("web: true\nworker: true").start("--on-exit", "ignore")
    assert run.wait() == 0
    assert last_line(run) == "every process has ended; nothing is left running"


def test_can_die_ends_nothing(app: App) -> None:
    run = app(f"web: exit 3\nworker: {app.child('signals')}").start("--can-die", "web")
    run.wait_for("exited", "web.1")
    run.wait_output("up", "worker.1")
    run.signal(signal.SIGUSR1)
    run.wait_output("got SIGUSR1", "worker.1")
    assert not run.wait_for("ready", "worker.1").get("code")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert [event.name for event in run.events if event.is_("stopping")] == ["worker.1"]


def test_on_exit_fail_ends_with_a_failure_only(app: App) -> None:
    first, second = app.fifo("first"), app.fifo("second")
    run = app(f"web: read x < {first}\nworker: read x < {second}; exit 5\nclock: {SLEEP}").start("--on-exit", "fail")
    first.send()
    run.wait_for("exited", "web.1")
    second.send()
    assert run.wait() == 5
    assert last_line(run).startswith("worker.1 exited with code 5")
    events = [(event["event"], event.name) for event in run.events if event["event"] in ("stopping", "exited")]
    ends = [("exited", "web.1"), ("exited", "worker.1"), ("stopping", "clock.1")]
    assert [event for event in events if event in ends] == ends


def test_words_of_foreman(app: App) -> None:
    run = app(f"web: exit 3\nworker: {SLEEP}").start("--no-timestamp")
    run.wait()
    lines = [line.split("| ", 1)[1] for line in run.lines if "| " in line]
    assert f"started with pid {run.pid_of('web.1')}" in lines
    assert "exited with code 3" in lines
    assert "terminated by SIGTERM" in lines
    assert "sending SIGTERM to all processes" in lines


# --- the user's signals (5.3) ---


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("command", ["{}", "cd . && {}", "( {} ) || :", "true; {}; exit $?"])
def test_user_signals_reach_the_program_and_not_the_shell(app: App, signum: signal.Signals, command: str) -> None:
    run = app(f"web: {command.format(app.child('signals', 7))}").start()
    run.wait_output("up")
    for times in (1, 2):
        run.signal(signum)
        run.wait_until(lambda times=times: run.output_of("web.1").count(f"got {signum.name}") == times, "signal")
    assert not [event for event in run.events if event.is_("exited")]
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_a_shell_without_children_is_the_program(app: App) -> None:
    gate = app.fifo()
    run = app(f"web: trap 'echo got it' USR1; echo up; while :; do read x < {gate} && break; done").start()
    run.wait_output("up")
    run.signal(signal.SIGUSR1)
    run.wait_output("got it")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


# --- procman's own processes ---


def test_one_signal_to_the_whole_group_counts_once(app: App) -> None:
    """Ctrl-C reaches guard and supervisor, and the guard passes it on: no second signal for that."""
    gate = app.fifo()
    run = app(f"web: {app.child('term_slow', 0, gate.path)}").start(is_new_session=True)
    run.wait_output("up")
    os.killpg(run.pid, signal.SIGINT)
    run.wait_output("handling TERM")
    gate.send()
    assert run.wait() == 0


def test_a_signal_to_the_supervisor_alone_is_enough(app: App) -> None:
    run = app(f"web: {SLEEP}").start()
    run.wait_for("ready", "web.1")
    os.kill(run.supervisor_pid(), signal.SIGTERM)
    assert run.wait() == 0


def test_a_signal_while_starting_ends_cleanly(app: App) -> None:
    """Whatever the moment, the signal counts and nobody stays."""
    app("\n".join(f"w{number}: {SLEEP}" for number in range(20)))
    popen = subprocess.Popen(
        [sys.executable, "-m", "procman", "start", "-p", str(app.port)],
        cwd=app.root, env=app.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert popen.stdout is not None
    popen.stdout.read(1)  # the first byte: spawning is over, reading has just begun
    popen.send_signal(signal.SIGTERM)
    rest = popen.stdout.read()
    popen.stdout.close()
    assert popen.wait() == 0
    assert b"nothing is left running" in rest
