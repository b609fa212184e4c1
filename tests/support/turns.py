"""A loop whose time is a number and whose turns never wait."""

from __future__ import annotations

import os
from collections.abc import Callable

from procman.loop import Loop, Timer


class Clock:
    """Monotonic time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Turns(Loop):
    """A Loop with a fake clock. One descriptor of it is always readable, so that no turn waits for real."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.timers: list[Timer] = []  # all that were ever made
        super().__init__(self.clock)
        self._ready_fd, self._kick_fd = os.pipe()
        os.write(self._kick_fd, b"x")
        self.add_reader(self._ready_fd, lambda: None)

    def turn(self) -> None:
        self._patience_turns = 0  # what is put off until the loop waits comes in each turn
        super().turn()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = super().call_later(delay_s, callback)
        self.timers.append(timer)
        return timer

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, then take a turn."""
        self.clock.now_s += seconds
        self.turn()

    def settle(self, turns: int = 20) -> None:
        for _ in range(turns):
            self.turn()

    def due(self) -> int:
        """Return how many timers are still to come."""
        return sum(timer.callback is not None and timer.deadline > self.clock.now_s for timer in self.timers)

    def close(self) -> None:
        super().close()
        os.close(self._ready_fd)
        os.close(self._kick_fd)


class Pipes:
    """Pipes of a test, closed behind it."""

    def __init__(self) -> None:
        self.fds: set[int] = set()

    def pipe(self, blocking: bool = False) -> tuple[int, int]:
        reader, writer = os.pipe()
        self.fds |= {reader, writer}
        os.set_blocking(reader, blocking)
        return reader, writer

    def keep(self, fd: int) -> int:
        """Close `fd`, too."""
        self.fds.add(fd)
        return fd

    def close(self, fd: int) -> None:
        self.fds.discard(fd)
        os.close(fd)

    def close_all(self) -> None:
        for fd in self.fds:
            try:
                os.close(fd)
            except OSError:
                pass  # the code under test owned it
        self.fds.clear()


def read_now(fd: int) -> bytes:
    """Return all that a descriptor which does not block holds; b"" also at its end."""
    chunks = []
    try:
        while chunk := os.read(fd, 1 << 20):
            chunks.append(chunk)
    except (BlockingIOError, OSError):
        pass
    return b"".join(chunks)
