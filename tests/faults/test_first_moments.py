"""Signals that come before anybody listens, and callers that ignore or block what procman needs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import pytest

from tests.faults.helpers import alive, child, children_of, last_word, no_traceback, start_argv, wait_until
from tests.support.app import App

IGNORE = "import os, signal, sys; [signal.signal(int(n), signal.SIG_IGN) for n in sys.argv[1].split(',')];"
BECOME = "os.execv(sys.argv[2], sys.argv[2:])"


def ignoring(app: App, signums: list[int], *arguments: str) -> list[str]:
    """Return the command of a caller that ignores these signals and then becomes `procman start`."""
    return [sys.executable, "-c", IGNORE + BECOME, ",".join(map(str, signums)), *start_argv(app, *arguments)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_right_behind_the_fork(app: App, signum: int) -> None:
    """To both, as a terminal does it: the supervisor has no handler yet, and nothing that it could stop."""
    app(f"web: {child(app, 'kind', 'plain', app.fifo('ready').path)}")
    for _ in range(12):
        run = app.start()
        supervisors: list[int] = []
        wait_until(lambda run=run, found=supervisors: bool(found.extend(children_of(run.pid)) or found), "a fork")
        os.kill(run.pid, signum)
        with contextlib.suppress(ProcessLookupError):  # the guard has passed it on, and all is over
            os.kill(supervisors[0], signum)
        code = run.wait()
        no_traceback(run)
        assert code == 0, run.failure("the signal was not heard")
        assert last_word(run) == f"stopped by {signal.Signals(signum).name}; nothing is left running"
        assert alive(app) == {}


@pytest.mark.parametrize("line", ["exec cat /proc/self/status", "cat /proc/self/status; true"])
def test_what_the_caller_ignores_the_children_ignore(app: App, line: str) -> None:
    """As below a shell: `procman start &` in a script, nohup. But what ends them they hear."""
    app(f"web: {line}")
    own = [signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGALRM, signal.SIGTSTP]
    run = app.spawn(ignoring(app, [*own, signal.SIGTERM, signal.SIGCHLD]), has_events=True)
    assert run.wait() == 0
    status = dict(line.split(":", 1) for line in run.output_of("web.1") if ":" in line)
    assert {n for n in range(1, 32) if int(status["SigIgn"], 16) >> (n - 1) & 1} == set(own)
    assert int(status["SigBlk"], 16) == 0


def test_caller_that_ignores_all_can_stop_the_run(app: App) -> None:
    app(f"web: {child(app, 'kind', 'plain', app.fifo('ready').path)}")
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        run = app.spawn(ignoring(app, [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT], "-t", "60"), has_events=True)
        run.wait_for("ready", "web.1")
        run.signal(signum)
        assert run.wait() == 0, run.failure("")
        assert alive(app) == {}


def test_caller_that_ignores_the_ends_of_children(app: App) -> None:
    """With SIGCHLD ignored the kernel reaps, and nobody would learn a code (waitpid(2))."""
    app("web: exit 3\nother: exec sleep 1000")
    run = app.spawn(ignoring(app, [signal.SIGCHLD]), has_events=True)
    assert run.wait() == 3, run.failure("")
    assert run.err == b""
    assert last_word(run) == "web.1 exited with code 3; nothing is left running"
