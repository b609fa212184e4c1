"""What outlives its instance: found, told to stop, killed, named; and the proof that nothing of a run is left.

Where orphans are adopted (a child subreaper) they are our children, and ECHILD from waitpid is the proof. Elsewhere
they are init's, and are known by the run's mark in their environment.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection

from procman import sweep
from procman.loop import Loop, Timer
from procman.process import Reaper

KILL_WAIT_S = 2.0  # what is alive this long after SIGKILL is named as lost
LEAST_GRACE_S = 0.1  # for one found after the grace time is over
MAX_ROUNDS = 3  # of the ladder: some show only when others have ended, or were given up
POLL_S = 0.05  # only where no SIGCHLD tells of an end: elsewhere than on Linux, or behind one that cannot die


class Leftovers:
    """The processes of run `run_id` that belong to no living instance. `tell` takes a line for the user."""

    def __init__(self, loop: Loop, reaper: Reaper, run_id: str, adopts: bool, tell: Callable[[str], None]) -> None:
        self.killed: list[str] = []
        self.lost: list[str] = []
        self.is_ending = False
        self._loop = loop
        self._reaper = reaper
        self._run_id = run_id
        self._adopts = adopts
        self._tell = tell
        self._told: set[int] = set()
        self._given_up: set[int] = set()
        self._lost_groups: set[int] = set()  # killed as a group, and named
        self._struck_s: dict[int, float] = {}  # monotonic time of the first SIGKILL to each
        self._rounds = 0  # of the ladder
        self._is_killing = False
        self._on_end: Callable[[], None] = lambda: None
        self._timer: Timer | None = None
        self._poll_timer: Timer | None = None

    def of_instance(self, name: str, groups: Collection[int]) -> list[int]:
        """Return the pids that carry the mark of instance `name` and are in none of `groups`."""
        return [pid for pid in self._find(groups) if sweep.mark_of(pid) == (self._run_id, name)]

    def stop(self, groups: Collection[int]) -> None:
        """Tell all outside of `groups` to stop; who is inside hears it with the group, and only once."""
        for pid in self._find(groups):
            self._stop(pid)

    def end(self, rest_s: float, given_up: Collection[int], on_end: Callable[[], None]) -> None:
        """End all that is left: SIGTERM, after `rest_s` seconds SIGKILL; call `on_end` when nothing is, or no more can
        be done. `given_up` are pids that could not be killed before."""
        if not self.is_ending:
            self.is_ending = True
            self._given_up = set(given_up)
            self._lost_groups = set(given_up)
            self._on_end = on_end
            if self._is_anything_left():
                self._timer = self._loop.call_later(max(rest_s, LEAST_GRACE_S), self.kill)
                self._poll()
        self.check()

    def check(self) -> None:
        """Look again, after a child was reaped: the children of one that ended may have become ours."""
        if not self.is_ending:
            return
        if not self._is_anything_left():
            self._finish()
            return
        for pid in self._find(()):
            if pid in self._given_up:
                continue
            if self._is_killing:
                self._struck_s.setdefault(pid, self._loop.now())
                sweep.signal_pid(pid, signal.SIGKILL)
            else:
                self._stop(pid)

    def kill(self) -> None:
        """Wait no longer."""
        if not self.is_ending or self._is_killing:
            return
        self._is_killing = True
        for pid in self._find(()):
            if pid not in self._given_up:
                name = f"{sweep.describe(pid)}, left behind by {sweep.mark_of(pid)[1] or 'an unknown process'}"
                self.killed.append(name)
                self._tell(f"sending SIGKILL to {name}")
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(KILL_WAIT_S, self._give_up)
        self.check()

    def _give_up(self) -> None:
        if not self._is_anything_left():
            self._finish()
            return
        now_s = self._loop.now()
        self._rounds += 1
        is_last = self._rounds == MAX_ROUNDS
        left = [pid for pid in self._find(()) if pid not in self._given_up]
        # One that shows only now, for its parent has just ended, has had no time to end.
        lost = [pid for pid in left if now_s - self._struck_s.get(pid, now_s) > KILL_WAIT_S / 2 or is_last]
        names = list(map(sweep.describe, lost))
        if not left:
            names.append("a process that /proc does not show")
        for name in names:
            self.lost.append(name)
            self._tell(f"could not be killed: {name} is still there")
        self._given_up.update(lost)
        if left and not is_last and self._is_anything_left():  # also who stood behind those: the ladder begins again
            self._is_killing = False
            self._timer = self._loop.call_later(LEAST_GRACE_S, self.kill)
            self._poll()
            self.check()
        else:
            self._finish()

    def _finish(self) -> None:
        self.is_ending = False
        if self._timer is not None:
            self._timer.cancel()
        self._on_end()

    def _is_anything_left(self) -> bool:
        has_children = self._reaper.reap()
        if self._adopts and not has_children:
            return False  # ECHILD: the kernel's word
        left = [pid for pid in self._find(()) if pid not in self._given_up]
        cannot_tell = self._adopts and has_children and sweep.children() is None
        return bool(left) or cannot_tell

    def _find(self, groups: Collection[int]) -> list[int]:
        # At the end all instances have gone, or were given up: who is still watched is the command of a probe.
        leaders = () if self.is_ending else self._reaper.pids()
        pids = set(sweep.children() or () if self._adopts else sweep.marked(self._run_id))
        if self._given_up:  # the children of one that cannot die do not become ours
            pids.update(pid for pid in sweep.marked(self._run_id) if sweep.group_of(pid) not in self._lost_groups)
        return sorted(pid for pid in pids if pid not in leaders and sweep.group_of(pid) not in groups)

    def _stop(self, pid: int) -> None:
        if pid not in self._told:
            self._told.add(pid)
            sweep.stop_pid(pid)

    def _poll(self) -> None:
        """Look every now and then for those whose end no SIGCHLD tells us."""
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        if self.is_ending and (self._given_up or not self._adopts):
            self._poll_timer = self._loop.call_later(POLL_S, self._look_again)

    def _look_again(self) -> None:
        self.check()
        self._poll()
