"""One selector, one timer heap, one signal wakeup. It does not know what a process is.

A turn is: signals, timers, then one callback per ready descriptor, then what was put off to the end of the turn. What
was put off until the loop waits comes when no descriptor is ready, at the latest after a few turns. Nothing polls:
without a timer the wait has no timeout.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from types import FrameType

Callback = Callable[[], None]

BROKEN = select.POLLERR | select.POLLHUP  # the other end has gone, or is going
PATIENCE_TURNS = 4  # how long a busy loop may keep what was put off until it waits
MAX_WAIT_S = 86_400.0  # the kernel takes milliseconds in an int (epoll_wait(2)); a timer may be further away


class Timer:
    """A callback at a monotonic deadline; `cancel()` makes it never happen."""

    __slots__ = ("callback", "deadline", "number")

    def __init__(self, deadline: float, number: int, callback: Callback) -> None:
        self.deadline = deadline
        self.number = number  # of two with the same deadline the one made first is due first
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return (self.deadline, self.number) < (other.deadline, other.number)


class _Watch:
    """What is wanted of one descriptor."""

    __slots__ = ("on_error", "on_read", "on_write")

    def __init__(self) -> None:
        self.on_read: Callback | None = None
        self.on_write: Callback | None = None
        self.on_error: Callback | None = None

    def mask(self) -> int:
        return (select.POLLIN if self.on_read else 0) | (select.POLLOUT if self.on_write else 0)


class Loop:
    """The event loop of one process; signals need the main thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._selector = _selector()
        self._watches: dict[int, _Watch] = {}
        self._fresh: set[int] = set()  # watched since the last poll: what it reported is not theirs
        self._timers: list[Timer] = []
        self._timer_count = 0
        self._signals: deque[int] = deque()
        self._on_signal: dict[int, Callback] = {}
        self._at_turn_end: list[Callback] = []
        self._before_wait: list[Callback] = []
        self._patience_turns = PATIENCE_TURNS
        self._is_stopped = False
        # The byte is the wakeup, the deque is the truth: bytes are dropped when the pipe is full.
        self._wakeup_fd, self._signal_fd = os.pipe()
        os.set_blocking(self._wakeup_fd, False)
        os.set_blocking(self._signal_fd, False)
        signal.set_wakeup_fd(self._signal_fd, warn_on_full_buffer=False)
        self.add_reader(self._wakeup_fd, self._drain_wakeups)

    def close(self) -> None:
        """Give back the descriptors and the default signal handling. For tests: a run ends with its process."""
        signal.set_wakeup_fd(-1)
        for signum in self._on_signal:
            signal.signal(signum, signal.SIG_DFL)
        for fd in (self._wakeup_fd, self._signal_fd):
            os.close(fd)
        self._selector.close()

    # --- descriptors ---

    def add_reader(self, fd: int, callback: Callback) -> None:
        self._watch(fd).on_read = callback
        self._update(fd)

    def add_writer(self, fd: int, callback: Callback) -> None:
        self._watch(fd).on_write = callback
        self._update(fd)

    def add_error(self, fd: int, callback: Callback) -> None:
        """Call back on POLLERR or POLLHUP, which the kernel reports whatever was asked for (poll(2))."""
        self._watch(fd).on_error = callback
        self._update(fd)

    def remove_reader(self, fd: int) -> None:
        if fd in self._watches:
            self._watches[fd].on_read = None
            self._update(fd)

    def remove_writer(self, fd: int) -> None:
        if fd in self._watches:
            self._watches[fd].on_write = None
            self._update(fd)

    def remove(self, fd: int) -> None:
        """Forget `fd`; always before close(fd). Unknown descriptors are fine."""
        if self._watches.pop(fd, None) is not None:
            self._selector.unregister(fd)

    def _watch(self, fd: int) -> _Watch:
        watch = self._watches.get(fd)
        if watch is None:
            self._selector.register(fd, 0)
            watch = self._watches[fd] = _Watch()
            self._fresh.add(fd)
        return watch

    def _update(self, fd: int) -> None:
        watch = self._watches[fd]
        if watch.on_read or watch.on_write or watch.on_error:
            self._selector.modify(fd, watch.mask())
        else:
            self.remove(fd)

    # --- time and signals ---

    def call_later(self, delay_s: float, callback: Callback) -> Timer:
        self._timer_count += 1
        timer = Timer(self.now() + delay_s, self._timer_count, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def at_turn_end(self, callback: Callback) -> None:
        """Call back once, after all descriptors of this turn had their turn."""
        self._at_turn_end.append(callback)

    def before_wait(self, callback: Callback) -> None:
        """Call back once, when nothing is ready any more: for what is cheaper done seldom. Soon, however busy it is."""
        self._before_wait.append(callback)

    def on_signal(self, signum: int, callback: Callback) -> None:
        """Run `callback` in the loop for each delivery of `signum`; one that was held back until now comes, too."""
        self._on_signal[signum] = callback
        signal.signal(signum, self._note_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signum})

    def _note_signal(self, signum: int, frame: FrameType | None) -> None:
        self._signals.append(signum)

    def _drain_wakeups(self) -> None:
        try:
            os.read(self._wakeup_fd, 4096)
        except BlockingIOError:
            pass

    # --- turns ---

    def run(self) -> None:
        """Take turns until `stop()`, which may have been called before."""
        while not self._is_stopped:
            self.turn()
        self._finish_put_off()

    def stop(self) -> None:
        self._is_stopped = True

    def turn(self) -> None:
        for fd, mask in self._wait():
            watch = self._watches.get(fd)
            if watch is None or fd in self._fresh:
                continue  # a callback earlier in this turn removed it, and maybe another took its number
            if mask & BROKEN and watch.on_error:
                watch.on_error()
            if mask & (select.POLLIN | BROKEN) and watch.on_read and self._watches.get(fd) is watch:
                watch.on_read()
            if mask & (select.POLLOUT | BROKEN) and watch.on_write and self._watches.get(fd) is watch:
                watch.on_write()
        self._finish_turn()

    def _wait(self) -> list[tuple[int, int]]:
        self._run_signals_and_timers()
        self._finish_turn()
        ready = self._poll(0.0) if self._before_wait and self._patience_turns else []
        self._patience_turns = self._patience_turns - 1 if ready else PATIENCE_TURNS
        if not ready:
            self._finish_put_off()
            if self._is_stopped:
                return []
            ready = self._poll(self._timeout_s())
        self._run_signals_and_timers()
        return ready

    def _poll(self, timeout_s: float | None) -> list[tuple[int, int]]:
        self._fresh.clear()
        return self._selector.poll(timeout_s)

    def _timeout_s(self) -> float | None:
        if self._signals:
            return 0.0
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return min(max(0.0, self._timers[0].deadline - self.now()), MAX_WAIT_S) if self._timers else None

    def _run_signals_and_timers(self) -> None:
        while self._signals:
            self._on_signal[self._signals.popleft()]()
        if not self._timers:
            return
        now_s = self.now()
        while self._timers and self._timers[0].deadline <= now_s:
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                callback()

    def _finish_turn(self) -> None:
        while self._at_turn_end:
            callbacks, self._at_turn_end = self._at_turn_end, []
            for callback in callbacks:
                callback()

    def _finish_put_off(self) -> None:
        while self._before_wait:
            self._at_turn_end, self._before_wait = self._before_wait, []
            self._finish_turn()


class _Poll:
    """poll(2) behind epoll's interface, for systems without it: seconds, and no descriptor of its own."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register = self._poll.register
        self.modify = self._poll.modify
        self.unregister = self._poll.unregister

    def poll(self, timeout_s: float | None) -> list[tuple[int, int]]:
        return self._poll.poll(None if timeout_s is None else timeout_s * 1000)

    def close(self) -> None:
        pass


def _selector() -> _Poll | select.epoll:
    # The bits of epoll and poll are the same on Linux (epoll_ctl(2)), so one set of names serves both.
    return select.epoll() if hasattr(select, "epoll") else _Poll()
