"""A run in the background: either half killed, a disk that is full, and nothing left."""

from __future__ import annotations

import os
import re
import shlex
import signal
from pathlib import Path

import pytest

from tests.faults.helpers import (
    IS_ROOT,
    alive,
    can,
    child,
    children_of,
    peak_bytes,
    start_argv,
    stat_of,
    wait_for_end,
    wait_until,
)
from tests.support.app import App, Run

KINDS = {"plain": 1, "setsid": 2, "daemon": 2, "ignore": 1, "stubborn": 2}
MUST_BE_KILLED = {"ignore", "stubborn"}


def detached(app: App, kind: str) -> tuple[Run, int, int]:
    """Start in the background; return the run, and the pids of guard and supervisor."""
    ready = app.fifo("ready")
    app(f"{kind}: {child(app, 'kind', kind, ready.path)}\nother: exec sleep 1000")
    run = app.start("-D", "-t", "0.3")
    for _ in range(KINDS[kind]):
        ready.receive()
    assert run.wait_command() == 0, run.failure("not started")
    guard = int(run.wait_line(r"with pid (\d+)")[1])
    [supervisor] = [pid for pid in children_of(guard) if b"procman" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return run, guard, supervisor


def log_of(app: App) -> str:
    return (app.root / ".procman" / "log" / "procman.log").read_text()


def assert_over(app: App, run: Run, guard: int, supervisor: int) -> None:
    """Nothing is left, and the next one may start."""
    wait_for_end(guard, supervisor)
    run.wait()
    assert alive(app) == {}
    assert app.survivors() == {}
    app("web: exec sleep 1000")
    again = app.procman("start", "-D", "-p", str(app.port))
    assert again.wait() == 0, again.failure("not started again")
    assert "log: .procman/log/procman.log\n" in again.text
    assert app.call("quit").code == 0
    assert sorted(os.listdir(app.root / ".procman")) == [".gitignore", "lock", "log"]


@pytest.mark.parametrize("kind", KINDS)
def test_supervisor_killed(app: App, kind: str) -> None:
    run, guard, supervisor = detached(app, kind)
    os.kill(supervisor, signal.SIGKILL)
    wait_for_end(guard)
    said = log_of(app)
    head = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d system +\| "
    assert re.search(head + "the supervisor was killed by signal 9; ending its processes$", said)
    assert bool(re.search(head + "sending SIGKILL to ", said)) == (kind in MUST_BE_KILLED)
    assert_over(app, run, guard, supervisor)


@pytest.mark.parametrize("kind", KINDS)
def test_guard_killed(app: App, kind: str) -> None:
    run, guard, supervisor = detached(app, kind)
    os.kill(guard, signal.SIGKILL)
    wait_for_end(supervisor)
    last = log_of(app).splitlines()[-1]
    assert f"stopped because the procman process with pid {guard} was killed" in last
    assert last.endswith("nothing is left running")
    assert_over(app, run, guard, supervisor)


@pytest.mark.parametrize("victim", ["guard", "supervisor"])
def test_killed_before_all_is_up(app: App, victim: str) -> None:
    """The command that waits tells it, and does not wait for ever."""
    app("web: exit 1\nother: exec sleep 1000")
    run = app.start("-D", "--restart", "web")
    run.wait_for("restarting", "web.1")
    supervisor = int(stat_of(run.pid_of("other.1"))[1])
    guard = int(stat_of(supervisor)[1])
    os.kill(guard if victim == "guard" else supervisor, signal.SIGKILL)
    assert run.wait() == 70
    assert "procman: the run ended with exit code 70 before all was up; log: .procman/log/procman.log\n" in run.err_text
    assert ("the supervisor was killed" in run.err_text) == (victim == "supervisor")
    wait_for_end(guard, supervisor)
    assert app.survivors() == {}


def test_supervisor_crashes(app: App) -> None:
    """A bug of ours is told in the log."""
    app("other: exec sleep 1000")
    run = app.start("-D", env={"PROCMAN_TEST_FAULT": "crash", "PROCMAN_DEBUG": "1"})
    run.wait_command()
    guard = int(run.wait_line(r"with pid (\d+)")[1])
    os.kill(run.supervisor_pid(), signal.SIGUSR1)
    wait_for_end(guard)
    run.wait()
    assert app.survivors() == {}
    assert re.search(r"system +\| a bug of ours: RuntimeError: asked for by a test\n", log_of(app))
    assert re.search(r"system +\| Traceback", log_of(app))


# --- a disk that is full ---

NEEDS_MOUNTS = pytest.mark.skipif(not (IS_ROOT and can("unshare", "-m", "true")), reason="no mount namespaces here")


@NEEDS_MOUNTS
def test_log_on_a_full_disk(app: App) -> None:
    """Told once, tried again; the app goes on meanwhile, in bounded memory, and what is missing is counted."""
    written, end = app.fifo("written"), app.fifo("end")
    count = 40_000
    spout = child(app, "spout", count, "WIDTH=100")
    app(f"web: read x < {end}; {spout}; echo > {written}; read x < {end}; echo over; exec sleep 1000")
    (app.root / ".procman" / "log").mkdir(parents=True)
    script = (
        "mount -t tmpfs -o size=4m,mode=700 none .procman/log; head -c 3m /dev/zero > .procman/log/ballast;"
        f"exec {shlex.join(start_argv(app, '-D'))}"
    )
    run = app.spawn(["unshare", "-m", "/bin/sh", "-c", script])
    assert run.wait() == 0, run.failure("not started")
    guard = int(run.wait_line(r"with pid (\d+)")[1])
    [supervisor] = children_of(guard)
    told = app.procman("logs", "-f", "--grep", r"the log can|over")
    end.send()
    told.wait_line(r"system \| the log cannot be written: no space left on device; trying again every second")
    written.receive()
    assert peak_bytes(supervisor) < 100 << 20
    assert re.search(r"web\.1 +ready", app.call("ps").text)
    inside = Path(f"/proc/{guard}/root{app.root}/.procman/log")
    (inside / "ballast").unlink()
    missing = int(told.wait_line(r"the log can be written again; (\d+) bytes are missing before this line")[1])
    end.send()
    told.wait_line(r"web\.1 +\| over")
    wait_until(lambda: (inside / "procman.log").read_bytes().endswith(b"| over\n"), "the last line in the log")
    assert told.text.count("cannot be written") == 1
    lines = (inside / "procman.log").read_text().splitlines()
    numbers = [int(found[1]) for line in lines if (found := re.search(r"\| line (\d+) \.+$", line))]
    assert len(lines) == len(numbers) + 5, "not whole"
    gap = next((at for at, number in enumerate(numbers) if number != at), len(numbers))
    assert numbers[gap:] == list(range(count - len(numbers) + gap, count)), "more than one gap"
    prefix = len("2026-01-01 00:00:00 system | ")
    assert missing == (count - len(numbers)) * (100 + prefix)
    assert app.call("quit").code == 0
    assert told.wait() == 0
    assert app.survivors() == {}


@NEEDS_MOUNTS
def test_read_only_folder(app: App) -> None:
    app("web: exec sleep 1000")
    script = f'mount --bind . .; mount -o remount,bind,ro .; cd .; cd "$PWD"; exec {shlex.join(start_argv(app, "-D"))}'
    run = app.spawn(["unshare", "-m", "/bin/sh", "-c", script])
    assert run.wait() == 73
    assert re.fullmatch(
        r"--detach needs .*/\.procman for its control socket and its log: read-only file system\n", run.err_text
    )
    assert app.survivors() == {}


@NEEDS_MOUNTS
def test_full_disk_before_the_start(app: App) -> None:
    """The log cannot be made at all: refused, or nobody would ever see what happens."""
    app("web: exec sleep 1000")
    (app.root / ".procman" / "log").mkdir(parents=True)
    script = (
        "mount -t tmpfs -o size=64k,nr_inodes=2,mode=700 none .procman/log; : > .procman/log/ballast;"
        f"exec {shlex.join(start_argv(app, '-D'))}"
    )
    run = app.spawn(["unshare", "-m", "/bin/sh", "-c", script])
    assert run.wait() == 73
    assert re.search(r"--detach: .*\.procman/log.*: no space left on device\n", run.err_text)
    assert app.survivors() == {}
