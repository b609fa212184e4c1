"""Bytes to a descriptor that the user's shell shares, without ever blocking the loop."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from procman.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Thread

FULL_BYTES = 1024 * 1024
# A child on a pty gives 4 KiB a read (N_TTY_BUF_SIZE), and one write for each would wake the reader for half of what it
# could take.
WORTH_BYTES = 8192
MAX_BUFFERS = 512  # IOV_MAX is 1024 (writev(2))

Buffer = bytes | memoryview


class Stream:
    """A queue of buffers in front of one descriptor.

    `on_room` is called when a full queue has emptied, `on_gone` with a reason when nobody will ever read it again
    ("" for a reader that left: a closed pipe or terminal); from then on everything written is dropped.
    """

    def __init__(self, loop: Loop, fd: int, on_gone: Callable[[str], None], on_room: Callable[[], None]) -> None:
        self._loop = loop
        self._fd = fd
        self._on_gone = on_gone
        self._on_room = on_room
        self._queue: list[Buffer] = []
        self._queued_bytes = 0
        self._was_full = False
        self._is_waiting = False  # for the descriptor to become writable
        self._is_flush_due = False  # at the end of this turn
        self._is_flush_planned = False  # before the loop waits, if not sooner
        self.is_gone = False
        self.on_idle: Callable[[], None] | None = None  # called whenever the queue has emptied
        self._thread: Thread | None = None
        self._write = self._choose_writer(fd)

    # O_NONBLOCK belongs to the open file description (fcntl(2)), which a terminal's stdout shares with the user's
    # shell: set on ours, it would be set on theirs. Opened anew through /dev/fd we get a description of our own.
    def _choose_writer(self, fd: int) -> Callable[[list[Buffer]], int]:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            return self._socket_writer(fd)
        if not (stat.S_ISFIFO(mode) or os.isatty(fd)):
            return lambda buffers: os.writev(self._fd, buffers)  # a file or /dev/null: never not ready
        try:
            self._fd = os.open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO and stat.S_ISFIFO(mode):
                self._loop.at_turn_end(lambda: self._gone(""))  # nobody has the other end open (fifo(7))
                return lambda buffers: sum(map(len, buffers))
            return self._threaded_writer(fd)  # EACCES after su or sudo; a terminal of another namespace
        # POLLERR on a pipe says that its last reader has closed it, even while nothing is written (poll(2)).
        self._loop.add_error(self._fd, lambda: self._gone(""))
        return lambda buffers: os.writev(self._fd, buffers)

    def _socket_writer(self, fd: int) -> Callable[[list[Buffer]], int]:
        import _socket  # the part of socket that needs no other module, for it is imported while children run

        peer = _socket.socket(fileno=os.dup(fd))
        self._fd = peer.fileno()
        self._loop.add_error(self._fd, lambda: self._gone(""))
        return lambda buffers: peer.sendmsg(buffers, [], _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL)

    def _threaded_writer(self, fd: int) -> Callable[[list[Buffer]], int]:
        import threading

        # The loop writes to a pipe of our own; the thread may block on the other side of it.
        reader, self._fd = os.pipe()
        os.set_blocking(self._fd, False)
        self._loop.add_error(self._fd, lambda: self._gone(""))
        self._thread = threading.Thread(target=_copy, args=(reader, fd), daemon=True)
        self._thread.start()
        return lambda buffers: os.writev(self._fd, buffers)

    @property
    def is_full(self) -> bool:
        return self._queued_bytes >= FULL_BYTES

    @property
    def is_idle(self) -> bool:
        return not self._queue

    def write(self, *buffers: Buffer) -> None:
        """Queue `buffers`; what is worth a write goes out at the end of the turn, less before the loop waits."""
        if self.is_gone:
            return
        for buffer in buffers:
            self._queued_bytes += len(buffer)
        self._queue += buffers
        if self._queued_bytes >= FULL_BYTES:
            self._was_full = True
        if self._is_waiting or self._is_flush_due:
            return
        if self._queued_bytes >= WORTH_BYTES:
            self._is_flush_due = True
            self._loop.at_turn_end(self.flush)
        elif not self._is_flush_planned:
            self._is_flush_planned = True
            self._loop.before_wait(self._flush_rest)

    def _flush_rest(self) -> None:
        self._is_flush_planned = False
        if self._queue and not self._is_waiting:
            self.flush()

    def flush(self) -> None:
        """Write until the queue is empty or the reader has no room."""
        self._is_flush_due = False
        while self._queue and not self.is_gone:
            try:
                written = self._write(self._queue[:MAX_BUFFERS])
            except BlockingIOError:
                self._wait_for_room()
                return
            except OSError as error:
                left = (errno.EPIPE, errno.EIO, errno.ECONNRESET)
                self._gone("" if error.errno in left else os.strerror(error.errno or 0).lower())
                return
            self._forget(written)
        if self._is_waiting:
            self._is_waiting = False
            self._loop.remove_writer(self._fd)
        if self._was_full:
            self._was_full = False
            self._on_room()
        if self.on_idle is not None:
            self.on_idle()

    def close(self) -> None:
        """Drop what waits and give the descriptor back. Only for one that is our own: a connection."""
        if not self.is_gone:
            self.is_gone = True
            self._queue.clear()
            self._queued_bytes = 0
            self._loop.remove(self._fd)
            self._write = lambda buffers: 0  # it held the socket, which closes with it

    def finish(self) -> None:
        """Wait for the writer thread, if there is one; the queue must be idle."""
        if self._thread is not None:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._thread.join()

    def _wait_for_room(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._loop.add_writer(self._fd, self.flush)

    def _forget(self, written: int) -> None:
        self._queued_bytes -= written
        if not self._queued_bytes:
            self._queue.clear()
            return
        done = 0
        for buffer in self._queue:
            if len(buffer) > written:
                break
            written -= len(buffer)
            done += 1
        del self._queue[:done]
        if written:
            self._queue[0] = memoryview(self._queue[0])[written:]

    def _gone(self, reason: str) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        self._queue.clear()
        self._queued_bytes = 0
        self._loop.remove(self._fd)
        self._on_gone(reason)
        if self._was_full:
            self._on_room()
        if self.on_idle is not None:
            self.on_idle()


def _copy(reader: int, fd: int) -> None:
    """Move bytes until the pipe ends; closing it when `fd` fails is how the loop learns of that."""
    try:
        while chunk := os.read(reader, 65_536):
            left = memoryview(chunk)
            while left:
                left = left[os.write(fd, left) :]
    except OSError:
        pass
    finally:
        os.close(reader)
