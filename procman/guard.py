"""The process the user started: it outlives the supervisor, and ends what falls to it (kernel rule 7).

It forks the supervisor and stays its parent, as a child subreaper blocked in waitpid. Whatever happens to the
supervisor, its children fall to the guard, those that called setsid too (prctl(2), PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from procman import sweep
from procman.errors import EXIT_BUG, EXIT_KILLED, failure_of
from procman.kernel import become_subreaper, flush_standard_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procman.modes import Modes

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
EMERGENCY_GRACE_S = 1.0
KILL_WAIT_S = 2.0
TOLD_WAIT_S = 0.2  # for what the supervisor could not kill either
POLL_S = 0.01


def tell_stderr(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "replace") + b"\n")
    except OSError:
        pass


def run_guarded(
    supervise: Callable[[int], int],
    run_id: str,
    tell: Callable[[str], None] = tell_stderr,
    modes: Modes | None = None,
) -> int:
    """Fork; run `supervise(guard_fd)` in the child and return its exit code in the parent, when nothing is left.

    `guard_fd` reads end of file when the guard dies; `run_id` marks the run's processes; `tell` takes a line about what
    the supervisor could not tell. The child never returns. `modes` of the user's terminal are set now and given back
    at the end, by the child only if the guard dies.
    """
    guard_fd, alive_fd = os.pipe()
    flush_standard_streams()
    # A caller that ignores SIGCHLD makes the kernel reap, and waitpid has nothing to tell (waitpid(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # One that comes before there is a handler waits for it: the loop and the guard let in what they listen to.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    adopts = become_subreaper()  # before the fork, so that what it imports (0.8 ms) is there for both
    child = os.fork() if modes is None else modes.fork()
    if child == 0:
        os.close(alive_fd)
        _run_child(supervise, guard_fd, tell)
    os.close(guard_fd)
    if modes is not None:
        modes.follow_stops()
    try:
        return _Guard(child, run_id, tell, adopts).wait()
    finally:
        sweep.remove_socket_directory(run_id)
        if modes is not None:
            modes.give_back()


def _run_child(supervise: Callable[[int], int], guard_fd: int, tell: Callable[[str], None]) -> None:
    code = EXIT_BUG
    try:
        code = supervise(guard_fd)
    except BaseException as error:  # the guard ends the children; here it only has to be told
        failure = failure_of(error)
        code = failure.exit_code
        tell(str(failure))
        if os.environ.get("PROCMAN_DEBUG"):
            import traceback

            tell(traceback.format_exc().rstrip())
    finally:
        os._exit(code)


class _Guard:
    def __init__(self, supervisor: int, run_id: str, tell: Callable[[str], None], adopts: bool) -> None:
        self._supervisor = supervisor
        self._run_id = run_id
        self._tell = tell
        self._is_over = False
        self._is_hurried = False
        for signum in FORWARDED:
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._forward)
        self._adopts = adopts
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)

    def _forward(self, signum: int, frame: FrameType | None) -> None:
        if self._is_over:
            self._is_hurried = True
        else:
            sweep.signal_pid(self._supervisor, signum)

    def wait(self) -> int:
        """Wait for the supervisor, then for everybody it left; return the exit code."""
        wait_status = 0
        while True:
            pid, status = os.waitpid(-1, 0)
            if pid == self._supervisor:
                wait_status = status
                break
        self._is_over = True
        code = os.WEXITSTATUS(wait_status) if os.WIFEXITED(wait_status) else EXIT_BUG
        if not os.WIFEXITED(wait_status):
            self._tell(f"procman: the supervisor was killed by signal {os.WTERMSIG(wait_status)}; ending its processes")
        # What a supervisor that ended by itself has left could not be killed, and it has said so.
        has_ended = os.WIFEXITED(wait_status) and code != EXIT_BUG
        return self._end_all(code, grace_s=0.0 if has_ended else EMERGENCY_GRACE_S, is_told=has_ended)

    def _end_all(self, code: int, grace_s: float, is_told: bool) -> int:
        """TERM, after `grace_s` KILL, until the kernel says that we have no child (ECHILD)."""
        kill_wait_s = TOLD_WAIT_S if is_told else KILL_WAIT_S
        told: set[int] = set()
        started_s = time.monotonic()
        is_killing = False
        while self._is_anything_left():
            passed_s = time.monotonic() - started_s
            if not is_killing and (self._is_hurried or passed_s >= grace_s):
                is_killing = True
                code = code or EXIT_KILLED
                if not is_told:
                    self._tell_killed()
                self._kill_hidden()
            self._signal_children(told, is_killing)
            if passed_s >= grace_s + kill_wait_s:
                if is_told:
                    return code or EXIT_KILLED
                left = sorted({*self._left(), *sweep.marked(self._run_id)})
                names = ", ".join(map(sweep.describe, left))
                self._tell(f"procman: could not be killed: {names or 'processes that /proc does not show'}")
                return code or EXIT_KILLED
            time.sleep(POLL_S)
        return code

    def _is_anything_left(self) -> bool:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return not self._adopts and bool(self._left())
        return True

    def _left(self) -> list[int]:
        return (sweep.children() if self._adopts else sweep.marked(self._run_id)) or []

    def _signal_children(self, told: set[int], is_killing: bool) -> None:
        if is_killing and os.getpid() == 1:
            sweep.signal_pid(-1, signal.SIGKILL)  # all of this pid namespace but ourselves (kill(2))
        for pid in self._left():
            if is_killing:
                sweep.signal_pid(pid, signal.SIGKILL)
            elif pid not in told:
                told.add(pid)
                sweep.stop_pid(pid)

    def _kill_hidden(self) -> None:
        """Kill whoever bears the run's mark: the children of one that cannot die do not become ours."""
        for pid in sweep.marked(self._run_id):
            sweep.signal_pid(pid, signal.SIGKILL)

    def _tell_killed(self) -> None:
        names = ", ".join(map(sweep.describe, self._left()))
        self._tell(f"procman: sending SIGKILL to {names or 'all that is left'}")
