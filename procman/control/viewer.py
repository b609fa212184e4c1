"""A user at the terminal of an instance: keys go there, bytes come back (docs/control-protocol.md, `attach`)."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from collections.abc import Callable, Sequence
from typing import Any

from procman.control.client import Connection, failure_of, is_last
from procman.control.protocol import Message, decoded_bytes, encoded_bytes
from procman.errors import ControlError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
READ_BYTES = 65_536
BLOCKING_BYTES = 512  # PIPE_BUF of POSIX: a descriptor that is ready takes so much and does not block (pipe(7))
LAST_WORD_S = 1.0

LEAVE_KEY = "Ctrl-]"
# The key itself, and as the two protocols send it by which a program can ask for more of each key (kitty's, xterm's).
_LEAVE = re.compile(rb"\x1d|\x1b\[93;5(?::1)?u|\x1b\[27;5;93~")

# Modes of a screen that a program may leave behind with us: keypad, cursor, mouse, paste, the other screen.
_MODE = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])")
_SET_ON_ENTRY = (b"7", b"25")
_TRACKED = frozenset(b"1 7 25 47 66 1000 1002 1003 1004 1005 1006 1015 1047 1049 2004".split())


class Viewer:
    """Passes bytes both ways until one side has enough. `early` are replies that came with the first."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        early: Sequence[Message] = (),
        has_keys: bool = True,
        on_orphaned: Callable[[], object] = lambda: None,
    ) -> None:
        """`has_keys`: a terminal is on stdin, so the key to leave counts; else its end is the end.

        `on_orphaned` is called as soon as `alive_fd` of `run` ends.
        """
        self._name = name
        self._connection = connection
        self._early = early
        self._has_keys = has_keys
        self._on_orphaned = on_orphaned
        self._out = _Out()
        self._wakeup_fd, signal_fd = os.pipe()
        os.set_blocking(self._wakeup_fd, False)
        os.set_blocking(signal_fd, False)
        signal.set_wakeup_fd(signal_fd, warn_on_full_buffer=False)
        self._stop_signal = 0
        self._size: Message = {}
        self._is_reading_keys = True
        self._is_heard = True
        self._last: Message | None = None

    def run(self, alive_fd: int = -1) -> int:
        """Return the exit code; also when `alive_fd` ends. Raises ControlError when the supervisor is gone."""
        for signum in (*STOP_SIGNALS, signal.SIGWINCH, signal.SIGCONT):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        try:
            for message in self._early:
                self._take(message)
            why = self._pass_on(alive_fd)
        finally:
            self._out.tidy()
        self._out.say(f"{why}\n")
        self._out.finish()
        if self._last is not None and "error" in self._last:
            raise failure_of([self._last])
        return 128 + self._stop_signal if self._stop_signal else 0

    def _note(self, signum: int, frame: Any) -> None:
        if signum in STOP_SIGNALS:
            self._stop_signal = signum

    # --- the loop ---

    def _pass_on(self, alive_fd: int) -> str:
        """Return what to say in the end."""
        left = f"left {self._name}; it goes on"
        while True:
            if self._stop_signal:
                return left
            if self._last is not None:
                return str(self._last.get("why") or f"{self._name} has ended")
            self._tell_size()
            ready = self._wait(alive_fd)
            if alive_fd in ready:
                self._on_orphaned()
                return left
            if self._wakeup_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup_fd, 4096)
            if self._out.fd in ready and not self._out.flush():
                return left  # nobody looks any more
            if self._connection.fileno() in ready:
                self._receive()
            if 0 in ready and not self._pass_keys():
                self._say_goodbye()
                return left

    def _wait(self, alive_fd: int) -> set[int]:
        poll = select.poll()
        poll.register(self._wakeup_fd, select.POLLIN)
        if alive_fd >= 0:
            poll.register(alive_fd, select.POLLIN)
        poll.register(self._out.fd, select.POLLOUT if self._out.is_held else 0)
        if not self._out.is_held:
            poll.register(self._connection.fileno(), select.POLLIN)  # else the supervisor counts what we miss
        if self._is_reading_keys:
            poll.register(0, select.POLLIN)
        return {fd for fd, _ in poll.poll()}

    # --- to the instance ---

    def _tell_size(self) -> None:
        if (now := size()) != self._size and now:
            self._size = now
            self._send(now)

    def _pass_keys(self) -> bool:
        """Pass on what was typed; False for the key to leave, and at the end."""
        try:
            keys = os.read(0, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # EIO: the terminal is gone
            keys = b""
        found = _LEAVE.search(keys) if self._has_keys else None
        is_end = not keys or found is not None
        if found:
            keys = keys[: found.start()]
        if keys:
            self._send({"keys": encoded_bytes(keys)})
        return not is_end

    def _send(self, message: Message) -> None:
        """Send it, if the other side is there: else its last words say more, and they are still to be read."""
        try:
            if self._is_heard:
                self._connection.send(message)
        except ControlError:
            self._is_heard = False  # half of the message may be out

    def _say_goodbye(self) -> None:
        """Leave; without a terminal only when all that was written until now has come."""
        self._send({"detach": True})
        if self._has_keys:
            return
        with contextlib.suppress(ControlError):
            self._is_reading_keys = False
            poll = select.poll()
            poll.register(self._connection.fileno(), select.POLLIN)
            while self._last is None and poll.poll(LAST_WORD_S * 1000):
                self._receive()
                self._out.finish()

    # --- from the instance ---

    def _receive(self) -> None:
        for message in self._connection.receive():
            self._take(message)

    def _take(self, message: Message) -> None:
        if is_last(message):
            self._last = message
        elif "bytes" in message:
            self._out.write(decoded_bytes(message["bytes"]))
        elif "attached" in message:
            self._out.say(f"{message['attached']} has started again\n")
        elif "exited" in message:
            self._out.say(f"{message['exited']} {_end_of(message)}\n")
        elif message.get("event") == "lost":
            self._out.say(f"{message.get('lost_bytes')} bytes are missing here\n")


def size() -> Message:
    """Return the size of the user's terminal as a message says it; empty without one."""
    for fd in (0, 1):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(fd)
            if rows and columns:
                return {"rows": rows, "columns": columns}
    return {}


def attached(connection: Connection) -> tuple[str, list[Message]]:
    """Return the name of the instance, and what came with it. Raises ProcmanError."""
    while True:
        messages = [message for message in connection.receive() if "procman" not in message]
        if messages and "error" in messages[0]:
            raise failure_of(messages[:1])
        if messages:
            return str(messages[0].get("attached")), messages[1:]


def _end_of(message: Message) -> str:
    code = message.get("code")
    return "is not running" if code is None else f"has ended with code {code}"


class _Out:
    """Standard output, without blocking where that is possible, and what a program has made of the screen there."""

    def __init__(self) -> None:
        self.fd = 1
        self._piece_bytes = BLOCKING_BYTES
        self._held = b""
        self._modes: dict[bytes, bool] = {}
        self._tail = b""  # of what was written, for a sequence that comes in two pieces
        self._is_line_open = False
        self._has_sequences = False
        self._is_terminal = os.isatty(1)
        if self._is_terminal:
            # A description of our own, for O_NONBLOCK is in what we share with the user's shell (fcntl(2)).
            with contextlib.suppress(OSError):
                self.fd = os.open("/dev/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                self._piece_bytes = READ_BYTES

    @property
    def is_held(self) -> bool:
        return bool(self._held)

    def write(self, data: bytes) -> None:
        if not data:
            return
        self._note_modes(data)
        self._is_line_open = not data.endswith(b"\n")
        self._held += data
        self.flush()

    def say(self, text: str) -> None:
        """Write a line of procman's own: on a terminal among the rest, else on stderr."""
        if not self._is_terminal:
            with contextlib.suppress(OSError):
                os.write(2, text.encode())
            return
        # What was written there may go on behind it.
        self.write((b"\r\n" if self._is_line_open else b"") + text.encode("utf-8", "backslashreplace"))

    def flush(self) -> bool:
        """Write what there is room for; False when nobody reads any more."""
        while self._held:
            if self._piece_bytes == BLOCKING_BYTES and not self._has_room(0):
                return True
            try:
                self._held = self._held[os.write(self.fd, self._held[: self._piece_bytes]) :]
            except BlockingIOError:
                return True
            except OSError:
                self._held = b""
                return False
        # POLLERR or POLLHUP, told without being asked for: the reader has left.
        return not self._is_broken()

    def finish(self) -> None:
        """Write the rest, as long as somebody reads."""
        while self._held and self._has_room(LAST_WORD_S) and self.flush():
            pass

    def _has_room(self, wait_s: float) -> bool:
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return any(mask & select.POLLOUT for _, mask in poll.poll(wait_s * 1000))

    def _is_broken(self) -> bool:
        poll = select.poll()
        poll.register(self.fd, 0)
        return bool(poll.poll(0))

    # --- the screen ---

    def _note_modes(self, data: bytes) -> None:
        if b"\x1b" not in data and not self._tail:
            return
        self._has_sequences = True
        data = self._tail + data
        for numbers, final in _MODE.findall(data):
            for number in numbers.split(b";"):
                self._modes[number] = final == b"h"
        self._tail = data[-50:] if b"\x1b" in data[-50:] else b""

    def tidy(self) -> None:
        """Undo what the program has done to the screen: it goes on without us."""
        if not self._is_terminal or not self._has_sequences:
            return
        undone = [
            b"\x1b[?%s%s" % (number, b"l" if is_set else b"h")
            for number, is_set in self._modes.items()
            if number in _TRACKED and is_set != (number in _SET_ON_ENTRY)
        ]
        self._held += b"\x1b[0m" + b"".join(undone)
        self.flush()
