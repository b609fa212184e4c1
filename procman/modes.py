"""The modes of the user's terminal: ours while somebody types at one process, and given back whatever happens.

Two processes hold them, the one that the user started and its child. Whichever is killed, the other gives them back.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from collections.abc import Callable
from types import FrameType
from typing import Any

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_STOPS = (signal.SIGTSTP, signal.SIGCONT)

_INPUT, _OUTPUT, _CONTROL, _LOCAL, _CHARACTERS = 0, 1, 2, 3, 6  # what stands where in termios.tcgetattr()


def all_keys(attributes: list[Any]) -> None:
    """Every key goes to the program, nothing is echoed (cfmakeraw(3)); but output stays processed: no staircase."""
    attributes[_INPUT] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    attributes[_OUTPUT] |= termios.OPOST | termios.ONLCR
    attributes[_CONTROL] = attributes[_CONTROL] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    attributes[_LOCAL] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    _one_by_one(attributes)


def all_but_signals(attributes: list[Any]) -> None:
    """As `all_keys`, but Ctrl-C and Ctrl-Z are for us, and Ctrl-S holds the output."""
    attributes[_INPUT] &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL)
    attributes[_LOCAL] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    _one_by_one(attributes)


def _one_by_one(attributes: list[Any]) -> None:
    attributes[_CHARACTERS][termios.VMIN] = 1
    attributes[_CHARACTERS][termios.VTIME] = 0


class Modes:
    """The modes of the terminal `fd`, as they were and as `change` makes them."""

    def __init__(self, fd: int, change: Callable[[list[Any]], None]) -> None:
        """Remember what they are. Raises termios.error where `fd` is no terminal."""
        self._fd = fd
        self._before = termios.tcgetattr(fd)
        self._wanted = termios.tcgetattr(fd)
        change(self._wanted)
        self._ours: list[Any] | None = None  # while they are set: what the system made of them
        self._is_over = False

    def fork(self) -> int:
        """Set ours and fork. In the background this stops the process, as any use of the terminal there does.

        In the parent Ctrl-Z waits until `follow_stops`.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        self._set()
        try:
            pid = os.fork()
        except OSError:
            self.give_back()
            raise
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        return pid

    def _set(self) -> None:
        with contextlib.suppress(termios.error):  # it has been closed
            termios.tcsetattr(self._fd, termios.TCSANOW, self._wanted)
            self._ours = termios.tcgetattr(self._fd)

    def give_back(self) -> None:
        """Set what was there, for good; also from the background (SIGTTOU)."""
        self._is_over = True
        self._restore()

    def _restore(self) -> None:
        ours, self._ours = self._ours, None
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        with contextlib.suppress(termios.error):
            # A shell that came before us may have set its own already.
            if ours is not None and termios.tcgetattr(self._fd) == ours:
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def follow_stops(self, pid: int = 0) -> None:
        """Give them back while we are stopped (Ctrl-Z), and take them again after `fg`. `pid` stops with us."""

        def stop(signum: int, frame: FrameType | None) -> None:
            self._restore()
            if pid:
                _kill(pid, signal.SIGSTOP)
            # By its default action, for that spares those whom no shell would wake (a group that is orphaned).
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, stop)
            go_on(signum, frame)

        def go_on(signum: int, frame: FrameType | None) -> None:
            if pid:
                _kill(pid, signal.SIGCONT)
            if not self._is_over and self._is_foreground():
                self._set()

        signal.signal(signal.SIGTSTP, stop)
        signal.signal(signal.SIGCONT, go_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)

    def _is_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            return False


def run_with(modes: Modes, use: Callable[[int], int], drop: Callable[[], None]) -> int:
    """Fork; run `use(alive_fd)` in the child with the modes set; in the parent return its exit code, -9 for SIGKILL.

    `alive_fd` reads end of file when the parent dies, and `use` has to end. `drop` closes in the parent what only the
    child is to hold.
    """
    alive_fd, held_fd = os.pipe()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel would reap (waitpid(2))
    # One that comes before there is a handler waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    pid = modes.fork()
    if pid == 0:
        os.close(held_fd)
        code = 1
        try:
            code = use(alive_fd)
        finally:
            modes.give_back()
            os._exit(code)
    os.close(alive_fd)
    drop()
    for signum in FORWARDED:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, lambda signum, frame: _kill(pid, signum))
    modes.follow_stops(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    _, status = os.waitpid(pid, 0)
    modes.give_back()
    return os.waitstatus_to_exitcode(status)


def _kill(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
