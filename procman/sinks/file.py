"""A log file of our own: appended to, never truncated, renamed when it is full, and private.

What goes there is never held back by it: a disk that is full costs the log some lines, not the app its life.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable

from procman.loop import Loop, Timer
from procman.records import NamedTuple
from procman.sinks.stream import FULL_BYTES, Buffer

RETRY_S = 1.0  # until a disk that was full is tried again
MAX_LOGS = 100  # of runs that log into one directory at the same time


class Place(NamedTuple):
    """A name in a directory that is held for us by a lock: until the last process that has it open is gone."""

    directory_fd: int
    name: str
    lock_fd: int


def claim_place(parent_fd: int, directory: str, stem: str) -> Place:
    """Return a place in `directory` below `parent_fd`, made if need be: `stem.log`, or `stem-2.log` if that is held.

    Raises OSError where there can be none, or it is not ours alone.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700, dir_fd=parent_fd)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory_fd = os.open(directory, flags, dir_fd=parent_fd)
    found = os.fstat(directory_fd)
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user")
    if found.st_mode & 0o077:
        os.fchmod(directory_fd, 0o700)
    for number in range(1, MAX_LOGS):
        name = f"{stem}.log" if number == 1 else f"{stem}-{number}.log"
        lock_fd = _open(directory_fd, f"{name}.lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock_fd)
            continue
        return Place(directory_fd, name, lock_fd)
    raise OSError(errno.EMFILE, "too many log files in use")


def open_log(place: Place) -> tuple[int, int, bool]:
    """Return the descriptor of the log, its size, and whether it ends with a whole line. Raises OSError."""
    fd = _open(place.directory_fd, place.name, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        if found.st_mode & 0o077:
            os.fchmod(fd, 0o600)
        is_whole = not found.st_size or os.pread(fd, 1, found.st_size - 1) == b"\n"
    except OSError:
        os.close(fd)
        raise
    return fd, found.st_size, is_whole


def append(place: Place, data: bytes) -> None:
    """Add whole lines: for who has no loop, and speaks for one who has died. Raises OSError."""
    fd, _, is_whole = open_log(place)
    try:
        os.write(fd, data if is_whole else b"\n" + data)
    finally:
        os.close(fd)


def _open(directory_fd: int, name: str, flags: int) -> int:
    """Open for ourselves alone, and never through a link that somebody else has planted."""
    return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory_fd)


class LogFile:
    """A queue of buffers in front of the log; a Target of Console.

    A file is full at `limit_bytes` and gets the name `….1`, the one before `….2`, so that there are `count` in all.
    Each begins and ends with a whole line; a line longer than the limit has a file of its own. `tell` is called with
    what becomes of a disk that takes no more, once each time; what waits is then kept up to FULL_BYTES. Nobody is held
    back.
    """

    def __init__(self, loop: Loop, place: Place, limit_bytes: int, count: int, tell: Callable[[str], None]) -> None:
        """Open the log. Raises OSError."""
        self._loop = loop
        self._place = place
        self._limit_bytes = limit_bytes
        self._count = count
        self._tell = tell
        self._queue: list[Buffer] = []
        self._queued_bytes = 0
        self._is_flush_due = False
        self._retry_timer: Timer | None = None  # while the disk takes nothing
        self._lost_bytes = 0
        self._is_dropping = False
        self._is_in_lost_line = False  # the line of which the end is still to come has lost its beginning
        self._is_rotation_told = False
        self._fd, self._size, self._is_whole = open_log(place)
        self._rotate_at = limit_bytes
        if not self._is_whole:  # whoever wrote before was killed
            self._queue.append(b"\n")

    @property
    def is_idle(self) -> bool:
        return not self._queue

    def write(self, *buffers: Buffer) -> None:
        """Queue `buffers`; all of a turn go out together at its end."""
        if self._is_dropping or self._is_in_lost_line:
            buffers = self._without_lost(buffers)
            if not buffers:
                return
        self._queue += buffers
        self._queued_bytes += sum(map(len, buffers))
        if self._retry_timer is not None:
            self._is_dropping = self._queued_bytes >= FULL_BYTES
        elif not self._is_flush_due:
            self._is_flush_due = True
            self._loop.at_turn_end(self.flush)

    def flush(self) -> None:
        """Write everything, or as much as the disk takes; the rest is tried again later."""
        self._is_flush_due = False
        data = memoryview(b"".join(self._queue))
        self._queue.clear()
        self._queued_bytes = 0
        try:
            self._reopen_if_deleted()
            while data:
                data = data[self._write(data) :]
        except OSError as error:
            self._queue.insert(0, bytes(data))  # before what was told meanwhile
            self._queued_bytes += len(data)
            self._wait(error)
        else:
            self._recover()

    def close(self) -> None:
        """Write what is left, as far as the disk takes it now."""
        self.flush()
        self._cancel_retry()
        self._queue.clear()

    # --- the file ---

    def _write(self, data: memoryview) -> int:
        """Write so much of `data` that the file stays within its limit and ends with a line; return how much."""
        room = self._rotate_at - self._size
        if len(data) > room:
            # A line break in what fits; none: the line goes on in this file if it began there, or into a new one.
            cut = bytes(data[: max(0, room)]).rfind(b"\n") + 1
            if not cut and self._is_whole and self._size:
                self._rotate()
                return 0
            data = data[: cut or bytes(data).find(b"\n") + 1 or len(data)]
        written = os.write(self._fd, data)
        if written:
            self._size += written
            self._is_whole = data[written - 1] == 10
        return written

    def _rotate(self) -> None:
        """Begin a new file. Where that cannot be the old one goes on, and it is tried again a file's length later."""
        new = f"{self._place.name}.new"
        try:
            self._remove(new)  # of a run that was killed just then
            fd = _open(self._place.directory_fd, new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            try:
                names = [self._place.name, *(f"{self._place.name}.{number}" for number in range(1, self._count))]
                kept = next((at for at, name in enumerate(names) if not self._exists(name)), self._count - 1)
                for at in range(kept, 0, -1):
                    self._rename(names[at - 1], names[at])
                self._rename(new, self._place.name)
            except OSError:
                os.close(fd)
                raise
        except OSError as error:
            self._rotate_at = self._size + self._limit_bytes
            if not self._is_rotation_told:
                self._is_rotation_told = True
                self._tell(f"the log grows over its limit: {os.strerror(error.errno or 0).lower()}")
            return
        os.close(self._fd)
        self._fd, self._size, self._rotate_at = fd, 0, self._limit_bytes
        self._is_rotation_told = False

    def _reopen_if_deleted(self) -> None:
        if os.fstat(self._fd).st_nlink == 0:
            fd, self._size, self._is_whole = open_log(self._place)
            os.close(self._fd)
            self._fd, self._rotate_at = fd, self._limit_bytes

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._place.directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._place.directory_fd, dst_dir_fd=self._place.directory_fd)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._place.directory_fd)

    # --- a disk that is full ---

    def _wait(self, error: OSError) -> None:
        is_new = self._retry_timer is None
        self._cancel_retry()
        self._retry_timer = self._loop.call_later(RETRY_S, self.flush)
        if is_new:
            reason = os.strerror(error.errno or 0).lower()
            self._tell(f"the log cannot be written: {reason}; trying again every second")

    def _recover(self) -> None:
        """All is out: go on as before, and say what is missing."""
        if self._retry_timer is None:
            return
        self._cancel_retry()
        lost, self._lost_bytes = self._lost_bytes, 0
        self._is_dropping = False
        if lost and not self._is_whole:
            self._queue.append(b"\n")
        self._tell("the log can be written again" + (f"; {lost} bytes are missing before this line" if lost else ""))

    def _cancel_retry(self) -> None:
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None

    def _without_lost(self, buffers: tuple[Buffer, ...]) -> tuple[Buffer, ...]:
        """Drop `buffers`, or only the end of a line whose beginning was dropped; count what is dropped."""
        data = b"".join(buffers)
        kept = b"" if self._is_dropping else data[data.find(b"\n") + 1 :] if b"\n" in data else b""
        dropped_bytes = len(data) - len(kept)
        self._lost_bytes += dropped_bytes
        self._is_in_lost_line = bool(dropped_bytes) and data[dropped_bytes - 1 : dropped_bytes] != b"\n"
        return (kept,) if kept else ()
