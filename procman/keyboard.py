"""What a user types, on its way to the terminal of one process."""

from __future__ import annotations

import contextlib
import os
import signal
import termios

from procman.loop import Loop
from procman.process import Process, signal_group

HELD_BYTES = 1024 * 1024  # typed or pasted while nobody reads; what is more is dropped


class Keyboard:
    """Types at the pty whose master is `fd`, and sends the signals of its interrupt and quit keys."""

    def __init__(self, loop: Loop, process: Process, fd: int) -> None:
        self.process = process
        self._loop = loop
        self._fd = fd
        self._held = b""

    def type(self, keys: bytes) -> None:
        """Type `keys`. Nothing happens when the terminal is gone."""
        with contextlib.suppress(OSError, termios.error):
            for signum in self._signals_of(keys):
                signal_group(self.process.pid, signum)
            if len(self._held) + len(keys) <= HELD_BYTES:
                self._held += keys
            self._flush()

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
