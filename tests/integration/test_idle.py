"""Nothing polls: while nothing happens, no process of procman makes a system call (architecture 1 and 4).

PROCMAN_IDLE_S is how long to look; the target is 10 s, the default is short.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.app import CEILING_S, App, Run

WINDOW_S = float(os.environ.get("PROCMAN_IDLE_S", "3"))
SETTLE_S = 0.5  # from the last event that the test saw to the wait for the next

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed; CI has it")


class Traced:
    """A run under strace. The tracer is a process on the side (-D): the one we started is procman itself."""

    def __init__(self, app: App, name: str, arguments: list[str], size: tuple[int, int] | None) -> None:
        self._log = app.root / f"{name}.strace"
        strace = ["strace", "-D", "-f", "-qq", "-ttt", "-o", str(self._log)]
        # A Procfile each, for two runs beside the same one would be one too many.
        shutil.copytree(app.root, app.root / name, ignore=lambda *_: ("terminal", "pipe"))
        where = ["-f", f"{name}/Procfile", "-d", "."]
        procman = [sys.executable, "-m", "procman", "start", *where, "-p", str(app.port), *arguments]
        self.run: Run = app.spawn([*strace, *procman], has_events=True, size=size)

        self._pids: dict[str, int] = {}

    def pids(self) -> dict[str, int]:
        self._pids = self._pids or {"guard": self.run.pid, "supervisor": self.run.supervisor_pid()}
        return self._pids

    def calls(self, begin_s: float, end_s: float = float("inf")) -> list[str]:
        """Return the system calls of procman's own processes between two times."""
        names = {pid: name for name, pid in self.pids().items()}
        found = []
        for line in self._log.read_text(errors="replace").splitlines():
            pid, at, call = [*line.split(None, 2), "", ""][:3]
            if int(pid) in names and begin_s < float(at) < end_s:
                found.append(f"{names[int(pid)]}: {call}")
        return found


def assert_idle(*traced: Traced) -> None:
    """Look for WINDOW_S; then wake each process, to show that this would have been seen."""
    for each in traced:
        threads = [os.listdir(f"/proc/{pid}/task") for pid in each.pids().values()]
        assert [len(thread) for thread in threads] == [1, 1]
    begin_s = time.time() + SETTLE_S
    select.select([], [], [], SETTLE_S + WINDOW_S)  # the one place where a test must let time pass
    end_s = time.time()
    assert [each.calls(begin_s, end_s) for each in traced] == [[] for _ in traced]
    for each in traced:
        each.run.signal(signal.SIGUSR1)
        each.run.wait_output("got SIGUSR1", "web.1")
        woken = {call.split(":")[0] for call in each.calls(end_s)}
        assert woken == {"guard", "supervisor"}


def finish(app: App, *traced: Traced) -> None:
    for each in traced:
        each.run.signal(signal.SIGTERM)
        assert each.run.wait() == 0
    app.wait_gone()  # the tracers


def on_pipe_and_terminal(app: App, *arguments: str) -> list[Traced]:
    return [
        Traced(app, "pipe", [*arguments], None),
        Traced(app, "terminal", [*arguments, "-p", str(app.port + 250)], (24, 80)),
    ]


def test_after_output(app: App) -> None:
    worker = app.child("write", r"a\n\n", "2:b\\n", "no newline", "pause")
    app(f"web: {app.child('signals')}\nworker: {worker}", dotenv="A=1\n")
    traced = on_pipe_and_terminal(app, "--can-die", "worker")
    for each in traced:
        each.run.wait_output("up", "web.1")
        each.run.wait_for("output", "worker.1", partial=True)  # its timer is the last
    assert_idle(*traced)
    finish(app, *traced)


def test_after_the_end_of_one_child(app: App) -> None:
    app(f"web: {app.child('signals')}\nworker: echo bye\nclock: exec sleep 1000")
    traced = on_pipe_and_terminal(app, "--can-die", "worker,clock")
    for each in traced:
        each.run.wait_output("up", "web.1")
        each.run.wait_for("exited", "worker.1")
        os.kill(each.run.pid_of("clock.1"), signal.SIGKILL)
        each.run.wait_for("exited", "clock.1")
    assert_idle(*traced)
    finish(app, *traced)


def test_while_the_reader_is_slow(app: App) -> None:
    """With the pipe full and the children held back there is nothing to do, either."""
    reader, writer = os.pipe()
    app(f"web: {app.child('signals')}\nworker: {app.child('flood', 100_000)}")
    log = app.root / "slow.strace"
    strace = ["strace", "-D", "-f", "-qq", "-ttt", "-o", str(log)]
    procman = [sys.executable, "-m", "procman", "start", "-p", str(app.port), "-q", "web", "--can-die", "worker"]
    run = app.spawn([*strace, *procman], stdout=writer)
    os.close(writer)
    deadline = time.monotonic() + CEILING_S
    while not is_flood_blocked(app):
        assert time.monotonic() < deadline
    begin_s = time.time() + 1 + SETTLE_S  # the silence behind a partial line ends, too
    select.select([], [], [], 1 + SETTLE_S + WINDOW_S)
    end_s = time.time()
    pids = {str(run.pid), *Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()}
    assert len(pids) == 2
    calls = [line for line in log.read_text(errors="replace").splitlines() if line.split(None, 1)[0] in pids]
    assert [line for line in calls if begin_s < float(line.split()[1]) < end_s] == []
    run.follow(reader, run.take_out)
    assert run.wait_until(lambda: b"line 99999\n" in run._out, "last line")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert len(re.findall(rb"line \d+\n", run.out)) == 100_000
    app.wait_gone()


def is_flood_blocked(app: App) -> bool:
    """Tell whether the flooding child waits for its reader."""
    for pid, command in app.survivors().items():
        if "flood.py" in command and "strace" not in command and command.startswith(sys.executable):
            return "pipe" in Path(f"/proc/{pid}/wchan").read_text()
    return False
