"""What a user types, on its way to the terminal of one process."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from collections.abc import Callable

from procman.loop import Loop
from procman.process import Process, signal_group

HELD_BYTES = 1024 * 1024  # typed or pasted while nobody reads; what is more is dropped
READ_BYTES = 65_536


class Keyboard:
    """Types at the pty whose master is `fd`, and sends the signals of its interrupt and quit keys."""

    def __init__(self, loop: Loop, process: Process, fd: int) -> None:
        self.process = process
        self._loop = loop
        self._fd = fd
        self._held = b""
        self.on_room: Callable[[], None] | None = None  # called once all has been typed

    @property
    def is_full(self) -> bool:
        return len(self._held) >= READ_BYTES

    def end(self) -> None:
        """Type what this terminal takes for the end of its input (VEOF)."""
        with contextlib.suppress(termios.error):
            key: bytes = termios.tcgetattr(self._fd)[6][termios.VEOF]
            if key != b"\0":  # _POSIX_VDISABLE
                self.type(key)

    def type(self, keys: bytes) -> None:
        """Type `keys`. Nothing happens when the terminal is gone."""
        with contextlib.suppress(OSError, termios.error):
            signals = self._signals_of(keys)
            if signals:
                self._held = b""  # as a terminal forgets then what nobody has read
            if len(self._held) + len(keys) <= HELD_BYTES:
                self._held += keys
            self._flush()  # first, for the echo of the key stands before what the program says to the signal
            for signum in signals:
                signal_group(self.process.pid, signum)

    def close(self) -> None:
        """Forget what nobody has read: the process is gone."""
        self._held = b""
        if self.on_room is not None:
            self.on_room()

    def _signals_of(self, keys: bytes) -> list[int]:
        # The pty is nobody's controlling terminal, so its line discipline has no group to signal; it echoes ^C and
        # takes the key out of the input, as ever (termios(3), ISIG).
        local, characters = (termios.tcgetattr(self._fd)[index] for index in (3, 6))
        if not local & termios.ISIG:
            return []
        meanings = {characters[termios.VINTR]: signal.SIGINT, characters[termios.VQUIT]: signal.SIGQUIT}
        meanings.pop(b"\0", None)  # _POSIX_VDISABLE
        pressed = (meanings.get(keys[at : at + 1]) for at in range(len(keys)))
        return [signum for signum in pressed if signum is not None]

    def _flush(self) -> None:
        try:
            self._held = self._held[os.write(self._fd, self._held) :] if self._held else b""
        except BlockingIOError:
            pass
        except OSError:
            self._held = b""
        if self._held:
            self._loop.add_writer(self._fd, self._flush)
        else:
            self._loop.remove_writer(self._fd)
            if self.on_room is not None:
                self.on_room()


class StandardInput:
    """Types what comes on our own stdin at the keyboard of one instance, whatever process has it by then.

    `keyboard` returns it, or None while there is no process. When stdin is no terminal its end is typed, too.
    """

    def __init__(self, loop: Loop, keyboard: Callable[[], Keyboard | None]) -> None:
        self._loop = loop
        self._keyboard = keyboard
        self._is_terminal = os.isatty(0)
        self._is_file = False
        self._is_over = False

    def begin(self) -> None:
        try:
            self._loop.add_reader(0, self._read)
        except PermissionError:  # a file, which is always ready (epoll_ctl(2))
            self._is_file = True
            self._go_on()

    def leave(self) -> None:
        """Read no more: what is typed from now on is for another."""
        self._is_over = True
        self._loop.remove(0)

    def _go_on(self) -> None:
        if self._is_over:
            return
        if self._is_file:
            self._loop.call_later(0, self._read)
        else:
            self._loop.add_reader(0, self._read)

    def _read(self) -> None:
        if self._is_over:
            return
        try:
            keys = os.read(0, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal is gone
            keys = b""
        keyboard = self._keyboard()
        if not keys:
            self._loop.remove(0)
            if keyboard is not None and not self._is_terminal:
                keyboard.end()
            return
        if keyboard is not None:
            keyboard.type(keys)
        if keyboard is not None and keyboard.is_full:
            self._loop.remove(0)
            keyboard.on_room = lambda: self._on_room(keyboard)
        elif self._is_file:
            self._go_on()

    def _on_room(self, keyboard: Keyboard) -> None:
        keyboard.on_room = None
        self._go_on()
