"""Nothing that procman started is alive after its end, whatever the end. Looked at from outside, by a token."""

from __future__ import annotations

import os
import re
import shlex
import signal

import pytest

from tests.faults.conftest import Deaf
from tests.faults.helpers import (
    IS_ROOT,
    UNSHARE,
    alive,
    can,
    child,
    children_of,
    guard_and_supervisor,
    last_word,
    no_traceback,
    start_argv,
    wait_for_end,
    wait_until,
    zombies_of,
)
from tests.support.app import App, Fifo, Run

GRACE = ("-t", "0.3")
NOTHING = "nothing is left running"

# kind: how many of it tell that they are ready, how many are alive then.
KINDS = {
    "plain": (1, 1),
    "shell": (2, 3),
    "ignore": (1, 1),
    "setsid": (2, 2),
    "daemon": (2, 2),
    "gone": (1, 1),
    "stubborn": (2, 2),
}
# Where nobody adopts orphans, one is known by its environment alone.
PORTABLE_KINDS = {kind: KINDS[kind] for kind in ("plain", "shell", "ignore", "setsid")} | {"heir": (2, 2)}
MUST_BE_KILLED = {"ignore", "stubborn"}


def command(app: App, kind: str, ready: Fifo) -> str:
    if kind == "shell":
        idle = child(app, "kind", "plain", ready.path)
        return f"{idle} & {idle}; true"
    return child(app, "kind", kind, ready.path)


def started(app: App, kinds: list[str], *arguments: str, argv: list[str] | None = None, **kwargs) -> tuple[Run, Fifo]:
    """Start one instance of each kind, and one that ends with 3 on a line to the FIFO returned; wait for all."""
    ready, gate = app.fifo("ready"), app.fifo("gate")
    lines = [f"{kind}: {command(app, kind, ready)}" for kind in kinds]
    app("\n".join([*lines, f"other: read x < {gate}; exit 3"]))
    if "gone" in kinds:
        arguments = (*arguments, "--can-die", "gone")
    if argv is None:
        run = app.start(*GRACE, *arguments, **kwargs)
    else:
        run = app.spawn([*argv, *start_argv(app, *GRACE, *arguments)], has_events=True, **kwargs)
    for kind in kinds:
        for _ in range((KINDS | PORTABLE_KINDS)[kind][0]):
            ready.receive()
    run.wait_for("ready", "other.1")
    if "gone" in kinds:
        run.wait_for("exited", "gone.1")
    count = 1 + sum((KINDS | PORTABLE_KINDS)[kind][1] for kind in kinds)
    assert len(alive(app)) == count, run.failure(f"{alive(app)}")
    run.stubborn_pid = next((pid for pid, words in alive(app).items() if " ignore " in words and "/sh" not in words), 0)
    return run, gate


def assert_nothing_left(app: App, run: Run) -> None:
    left = alive(app)
    assert left == {}, run.failure(f"survivors: {left}")
    assert app.survivors() == {}


def assert_says_so(run: Run, kinds: list[str], why: str) -> None:
    """procman has looked for itself, says what it had to kill, and that nothing is left."""
    word = last_word(run)
    assert why in word
    assert word.endswith(NOTHING), run.failure("no proof")
    stubborn = [kind for kind in kinds if kind in MUST_BE_KILLED]
    assert (f", {len(stubborn)} had to be killed" in word) == bool(stubborn), run.failure("killed, or not?")
    said = [(event.name, event.text) for event in run.events if event.is_("notice") and "SIGKILL" in event.text]
    if "ignore" in stubborn:
        assert ("ignore.1", "did not stop in time, sending SIGKILL") in said
    if "stubborn" in stubborn:
        named = re.compile(rf"sending SIGKILL to {run.stubborn_pid} \(.+\), left behind by .+")
        assert any(name == "system" and named.fullmatch(text) for name, text in said), run.failure("not named")
    assert len(said) == len(stubborn), run.failure("killed what obeys")


# --- orderly ends ----------------------------------------------------------------------------------------------------

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT, "SIGHUP": signal.SIGHUP}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SIGNALS)
def test_signal(app: App, kind: str, name: str) -> None:
    run, _ = started(app, [kind])
    run.signal(SIGNALS[name])
    code = run.wait()
    assert_nothing_left(app, run)
    assert_says_so(run, [kind], f"stopped by {name}")
    assert code == (1 if kind in MUST_BE_KILLED else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_first_exit_of_a_child(app: App, kind: str) -> None:
    run, gate = started(app, [kind])
    gate.send()
    code = run.wait()
    assert_nothing_left(app, run)
    assert_says_so(run, [kind], "other.1 exited with code 3")
    assert code == 3


@pytest.mark.parametrize("kind", KINDS)
def test_terminal_closed(app: App, kind: str) -> None:
    run, _ = started(app, [kind], size=(24, 80))
    guard, supervisor = guard_and_supervisor(run)
    run.hang_up()
    wait_for_end(supervisor, guard)
    assert_nothing_left(app, run)
    run.wait()
    assert_says_so(run, [kind], "stopped")


@pytest.mark.parametrize("kind", KINDS)
def test_interrupt_typed_at_the_terminal(app: App, kind: str) -> None:
    run, _ = started(app, [kind], size=(24, 80))
    run.type("\x03")
    code = run.wait()
    assert_nothing_left(app, run)
    assert_says_so(run, [kind], "stopped by SIGINT")
    assert code == (1 if kind in MUST_BE_KILLED else 0)


def test_quit_typed_at_the_terminal_is_one_signal(app: App) -> None:
    """Both halves hear it, and the guard passes it on: an echo. Typed behind Ctrl-C it kills at once."""
    ready = app.fifo("ready")
    app(f"web: trap 'echo bye; exit 0' TERM; echo up > {ready}; while :; do sleep 60 & wait; done")
    run = app.start("-t", "60", size=(24, 80))
    assert ready.receive() == "up"
    run.type("\x1c")
    assert run.wait() == 0, run.failure("")
    assert run.output_of("web.1") == ["bye"]
    app(f"web: {child(app, 'kind', 'ignore', ready.path)}")
    run = app.start("-t", "60", size=(24, 80))
    assert ready.receive() == "ignore"
    run.type("\x03")
    run.wait_for("stopping", "web.1")
    run.type("\x1c")
    assert run.wait() == 1
    assert_nothing_left(app, run)


def test_second_signal_kills_at_once(app: App) -> None:
    ready = app.fifo("ready")
    late = app.fifo("late")
    # Half a second after the first: npm, make and uv deliver one Ctrl-C twice.
    clock = f"trap 'sleep 0.6; echo late > {late}; sleep 60' TERM; echo up > {ready}; while :; do sleep 60 & wait; done"
    app(f"ignore: {child(app, 'kind', 'ignore', ready.path)}\nclock: {clock}")
    run = app.start("-t", "60")
    assert {ready.receive(), ready.receive()} == {"ignore", "up"}
    run.signal(signal.SIGTERM)
    run.signal(signal.SIGTERM)  # an echo: not a second one
    run.wait_for("stopping", "clock.1")
    assert late.receive() == "late"
    assert run.code is None
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    assert_nothing_left(app, run)
    assert last_word(run).endswith(NOTHING)


def test_leader_is_gone_and_only_the_daemon_is_left(app: App) -> None:
    ready = app.fifo("ready")
    app(f"gone: {child(app, 'kind', 'gone', ready.path)}\nother: exec sleep 1000")
    run = app.start(*GRACE, "--can-die", "gone")
    assert ready.receive() == "plain"
    run.wait_for("exited", "gone.1", code=0)
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert_nothing_left(app, run)
    assert last_word(run).endswith(NOTHING)


def test_a_daemon_alone_does_not_keep_the_run_going(app: App) -> None:
    ready = app.fifo("ready")
    app(f"gone: {child(app, 'kind', 'gone', ready.path)} && read x < {ready}")
    run = app.start(*GRACE)
    assert run.wait() == 0
    assert_nothing_left(app, run)
    assert last_word(run).endswith(NOTHING)


def test_tree_of_all_kinds_with_fifty_processes(app: App) -> None:
    ready = app.fifo("ready")
    idle = child(app, "kind", "setsid", ready.path)
    nested = f"for i in 1 2 3 4 5; do (({idle}) & {child(app, 'kind', 'daemon', ready.path)}) & done; wait"
    app(f"tree: {nested}")
    run = app.start("tree=3", "-t", "2")
    for _ in range(3 * 5 * 4):
        ready.receive()
    assert len(alive(app)) >= 60
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert_nothing_left(app, run)


# --- procman itself breaks -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_crash_of_the_supervisor(app: App, kind: str) -> None:
    run, _ = started(app, [kind], env={"PROCMAN_TEST_FAULT": "crash"})
    run.signal(signal.SIGUSR1)
    code = run.wait()
    assert_nothing_left(app, run)
    assert code == 70
    assert b"Traceback" not in run.err
    assert "procman: a bug of ours: " in run.err_text
    assert ("sending SIGKILL to" in run.err_text) == (kind in MUST_BE_KILLED)
    assert all(not line or line.startswith("procman: ") for line in run.err_text.split("\n"))


@pytest.mark.parametrize("kind", KINDS)
def test_supervisor_killed(app: App, kind: str) -> None:
    run, _ = started(app, [kind])
    os.kill(guard_and_supervisor(run)[1], signal.SIGKILL)
    code = run.wait()
    assert_nothing_left(app, run)
    assert code == 70
    assert "procman: the supervisor was killed by signal 9" in run.err_text
    if kind in MUST_BE_KILLED:
        assert f"sending SIGKILL to {run.stubborn_pid} (" in run.err_text
    else:
        assert "SIGKILL to" not in run.err_text


def test_supervisor_killed_during_shutdown(app: App) -> None:
    run, _ = started(app, list(KINDS), "-t", "60")
    supervisor = guard_and_supervisor(run)[1]
    run.signal(signal.SIGTERM)
    run.wait_for("stopping", "ignore.1")
    os.kill(supervisor, signal.SIGKILL)
    assert run.wait() == 70
    assert_nothing_left(app, run)


def test_supervisor_stopped_then_killed(app: App) -> None:
    """A supervisor that cannot run at all, as one that hangs."""
    run, _ = started(app, list(KINDS))
    supervisor = guard_and_supervisor(run)[1]
    os.kill(supervisor, signal.SIGSTOP)
    run.signal(signal.SIGTERM)
    os.kill(supervisor, signal.SIGKILL)
    assert run.wait() == 70
    assert_nothing_left(app, run)


@pytest.mark.parametrize("kind", KINDS)
def test_guard_killed(app: App, kind: str) -> None:
    run, _ = started(app, [kind])
    run.signal(signal.SIGKILL)
    assert run.wait() == 137  # and with the end of its output the supervisor has ended, too
    assert_nothing_left(app, run)
    assert_says_so(run, [kind], "the procman process that you started was killed")


@pytest.mark.parametrize("kind", KINDS)
def test_guard_killed_at_a_terminal(app: App, kind: str) -> None:
    """The guard leads the session, so its end hangs up the terminal, too."""
    run, _ = started(app, [kind], size=(24, 80))
    supervisor = guard_and_supervisor(run)[1]
    run.signal(signal.SIGKILL)
    wait_for_end(supervisor)
    assert_nothing_left(app, run)


def test_guard_killed_during_shutdown(app: App) -> None:
    run, _ = started(app, list(KINDS), "-t", "1")
    run.signal(signal.SIGTERM)
    run.wait_for("stopping", "ignore.1")
    run.signal(signal.SIGKILL)
    assert run.wait() == 137
    assert_nothing_left(app, run)
    assert last_word(run).endswith(NOTHING)


def kill_both(run: Run) -> None:
    """Kill guard and supervisor so that neither sees the other die: a stopped process acts no more."""
    pids = guard_and_supervisor(run)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        wait_until(lambda pid=pid: open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "T", "a stop")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for_end(*pids)


def test_both_killed_writers_end(app: App) -> None:
    """docs/guarantees.md: what writes gets SIGPIPE. Who is silent stays, and nobody can help that."""
    app(f"web: while echo line; do :; done\nother: {child(app, 'spout', 2_000_000_000)}")
    run = app.start()
    run.wait_output("line 0", "other.1")
    writers = [run.pid_of("web.1"), run.pid_of("other.1")]
    kill_both(run)
    wait_for_end(*writers)
    assert_nothing_left(app, run)


def test_both_killed_at_a_terminal_writers_and_readers_end(app: App) -> None:
    """On a pty a write fails with EIO, a read returns its end."""
    app(f"web: while echo line; do :; done\nother: cat; true\nthird: {child(app, 'spout', 2_000_000_000)}")
    run = app.start(size=(24, 80))
    run.wait_output("line 0", "third.1")
    pids = [run.pid_of(name) for name in ("web.1", "other.1", "third.1")]
    kill_both(run)
    wait_for_end(*pids)
    assert_nothing_left(app, run)


# --- a pid namespace -------------------------------------------------------------------------------------------------

PID_NAMESPACE = {"host-proc": (*UNSHARE, "-pf"), "own-proc": (*UNSHARE, "-pf", "--mount-proc")}
needs_namespaces = pytest.mark.skipif(not can(*UNSHARE, "-pf", "--mount-proc", "true"), reason="no namespaces here")


@needs_namespaces
@pytest.mark.parametrize("view", PID_NAMESPACE)
@pytest.mark.parametrize("name", SIGNALS)
def test_first_of_a_pid_namespace_obeys_signals(app: App, view: str, name: str) -> None:
    run, _ = started(app, list(KINDS), argv=list(PID_NAMESPACE[view]))
    guard, _ = guard_and_supervisor(run, is_inside=True)
    os.kill(guard, SIGNALS[name])
    assert run.wait() == 1
    assert_nothing_left(app, run)
    assert last_word(run).endswith(NOTHING)
    killed = [event.name for event in run.events if event.is_("notice") and "SIGKILL" in event.text]
    assert sorted(killed) == ["ignore.1", "system"]


@needs_namespaces
@pytest.mark.parametrize("view", PID_NAMESPACE)
def test_first_of_a_pid_namespace_first_exit(app: App, view: str) -> None:
    run, gate = started(app, list(KINDS), argv=list(PID_NAMESPACE[view]))
    gate.send()
    assert run.wait() == 3
    assert_nothing_left(app, run)
    assert last_word(run).endswith(NOTHING)


@needs_namespaces
@pytest.mark.parametrize("view", PID_NAMESPACE)
@pytest.mark.parametrize("victim", ["guard", "supervisor", "both"])
def test_first_of_a_pid_namespace_killed(app: App, view: str, victim: str) -> None:
    """The kernel ends a namespace with its first process: there even both may be killed."""
    run, _ = started(app, list(KINDS), argv=list(PID_NAMESPACE[view]))
    guard, supervisor = guard_and_supervisor(run, is_inside=True)
    for pid in {"guard": [guard], "supervisor": [supervisor], "both": [supervisor, guard]}[victim]:
        os.kill(pid, signal.SIGKILL)
    run.wait()
    assert_nothing_left(app, run)
    if victim == "supervisor":
        assert run.code == 70


@needs_namespaces
@pytest.mark.parametrize("view", PID_NAMESPACE)
def test_first_of_a_pid_namespace_reaps_orphans(app: App, view: str) -> None:
    assert_reaps_orphans(app, list(PID_NAMESPACE[view]))


@needs_namespaces
@pytest.mark.skipif(not IS_ROOT, reason="only root mounts here")
@pytest.mark.parametrize("kind", ["plain", "daemon", "stubborn"])
@pytest.mark.parametrize("ending", ["SIGTERM", "supervisor killed"])
def test_first_of_a_pid_namespace_without_any_proc(app: App, kind: str, ending: str) -> None:
    """Who left its group cannot be told by name; the kernel says that somebody is left, and ends them with us."""
    hide = ["/bin/sh", "-c", 'mount -t tmpfs none /proc; exec "$@"', "sh"]
    run, _ = started(app, [kind], argv=[*UNSHARE, "-pfm", *hide])
    guard, supervisor = guard_and_supervisor(run, is_inside=True)
    os.kill(*((guard, signal.SIGTERM) if ending == "SIGTERM" else (supervisor, signal.SIGKILL)))
    code = run.wait()
    assert_nothing_left(app, run)
    if ending == "SIGTERM":
        assert code == (0 if kind == "plain" else 1), run.failure("")
        assert last_word(run).endswith(NOTHING) == (kind == "plain")
    else:
        assert code == 70
    no_traceback(run)


def test_orphans_are_reaped(app: App) -> None:
    assert_reaps_orphans(app, [])


def assert_reaps_orphans(app: App, argv: list[str]) -> None:
    app(f"web: {child(app, 'orphans', 100)}")
    run = app.spawn([*argv, *start_argv(app)], has_events=True)
    run.wait_output("orphaned", "web.1")
    guard, supervisor = guard_and_supervisor(run, is_inside=bool(argv))
    wait_until(lambda: not zombies_of(guard, supervisor), "no zombies")
    assert children_of(guard) == [supervisor]
    assert len(children_of(supervisor)) == 1
    os.kill(guard, signal.SIGTERM)
    assert run.wait() == 0
    assert_nothing_left(app, run)


# --- during a run ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["group", "session", "daemon", "group-ignore", "session-ignore", "daemon-ignore"])
def test_leftovers_are_stopped_before_a_restart(app: App, how: str) -> None:
    """What an instance left behind may hold its port: the next one binds it without an error."""
    gate = app.fifo()
    app(f"web: {child(app, 'leaver', how, gate.path)}")
    run = app.start(*GRACE, "--restart", "web")
    run.wait_output("bound", "web.1")
    first = set(alive(app))
    gate.send()
    run.wait_for("restarting", "web.1")
    assert not first & set(alive(app)), run.failure("its leftovers are alive when it comes back")
    run.wait_until(lambda: len(run.output_of("web.1")) == 2, "second start")
    assert run.output_of("web.1") == ["bound", "bound"]
    run.signal(signal.SIGTERM)
    run.wait()
    assert_nothing_left(app, run)


# --- elsewhere than on Linux -----------------------------------------------------------------------------------------

PORTABLE = {"PROCMAN_TEST_FAULT": "no-subreaper"}


@pytest.mark.parametrize("kind", PORTABLE_KINDS)
@pytest.mark.parametrize("name", SIGNALS)
def test_the_portable_way_signal(app: App, kind: str, name: str) -> None:
    run, _ = started(app, [kind], env=PORTABLE)
    run.signal(SIGNALS[name])
    code = run.wait()
    assert_nothing_left(app, run)
    assert_says_so(run, [kind], f"stopped by {name}")
    assert code == (1 if kind in MUST_BE_KILLED else 0)


@pytest.mark.parametrize("kind", PORTABLE_KINDS)
def test_the_portable_way_first_exit(app: App, kind: str) -> None:
    run, gate = started(app, [kind], env=PORTABLE)
    gate.send()
    code = run.wait()
    assert_nothing_left(app, run)
    assert_says_so(run, [kind], "other.1 exited with code 3")
    assert code == 3


@pytest.mark.parametrize("kind", PORTABLE_KINDS)
def test_the_portable_way_terminal_closed(app: App, kind: str) -> None:
    run, _ = started(app, [kind], env=PORTABLE, size=(24, 80))
    guard, supervisor = guard_and_supervisor(run)
    run.hang_up()
    wait_for_end(supervisor, guard)
    assert_nothing_left(app, run)
    run.wait()
    assert_says_so(run, [kind], "stopped")


@pytest.mark.parametrize("kind", PORTABLE_KINDS)
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV])
def test_the_portable_way_supervisor_killed(app: App, kind: str, signum: int) -> None:
    """The guard finds them all: they are nobody's children that it knows of, nor its own."""
    run, _ = started(app, [kind], env=PORTABLE)
    os.kill(guard_and_supervisor(run)[1], signum)
    code = run.wait()
    assert_nothing_left(app, run)
    assert code == 70
    assert f"procman: the supervisor was killed by signal {signum:d}" in run.err_text
    assert ("sending SIGKILL to" in run.err_text) == (kind in MUST_BE_KILLED)
    no_traceback(run)


@pytest.mark.parametrize("kind", PORTABLE_KINDS)
def test_the_portable_way_guard_killed(app: App, kind: str) -> None:
    run, _ = started(app, [kind], env=PORTABLE)
    run.signal(signal.SIGKILL)
    assert run.wait() == 137
    assert_nothing_left(app, run)
    assert_says_so(run, [kind], "the procman process that you started was killed")


def test_the_portable_way_reader_gone(app: App, deaf: Deaf) -> None:
    ready = app.fifo("ready")
    kinds = ["setsid", "heir"]
    app("\n".join(f"{kind}: {command(app, kind, ready)}" for kind in kinds))
    run = app.spawn(start_argv(app, *GRACE), stdout=deaf.stdout, env=PORTABLE)
    deaf.started()
    for _ in range(4):
        ready.receive()
    deaf.leave()
    assert run.wait() == 141
    assert_nothing_left(app, run)
    assert run.err == b""


@pytest.mark.parametrize("how", ["group", "session", "daemon", "group-ignore", "session-ignore", "daemon-ignore"])
def test_the_portable_way_restarts(app: App, how: str) -> None:
    gate = app.fifo()
    app(f"web: {child(app, 'leaver', how, gate.path)}")
    run = app.start(*GRACE, "--restart", "web", env=PORTABLE)
    run.wait_output("bound", "web.1")
    first = set(alive(app))
    gate.send()
    run.wait_for("restarting", "web.1")
    assert not first & set(alive(app)), run.failure("its leftovers are alive when it comes back")
    run.wait_until(lambda: len(run.output_of("web.1")) == 2, "second start")
    assert run.output_of("web.1") == ["bound", "bound"]
    run.signal(signal.SIGTERM)
    assert run.wait() == int("ignore" in how), run.failure("")
    assert_nothing_left(app, run)


def test_the_portable_way_was_taken(app: App) -> None:
    """The switch does something: an orphan is not adopted by procman."""
    run, _ = started(app, ["daemon"], env=PORTABLE)
    _, supervisor = guard_and_supervisor(run)
    orphans = [pid for pid in alive(app) if pid not in children_of(supervisor)]
    assert orphans, shlex.join(map(str, alive(app)))
    run.signal(signal.SIGTERM)
    run.wait()
    for pid in orphans:
        if pid in alive(app):
            os.kill(pid, signal.SIGKILL)
            wait_for_end(pid)
