"""Files that procman was started with: the kernel tells of their changes (inotify(7)), so nothing wakes in vain."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from procman.kernel import add_inotify_watch, open_inotify
from procman.loop import Loop, Timer

READ_BYTES = 65_536

# inotify(7)
IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR = 0x4000, 0x8000, 0x01000000
MASK = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ONLYDIR
HEAD_BYTES = 16  # of struct inotify_event: wd, mask, cookie, length of the name

SETTLE_S = 0.1  # editors write a file in several steps
MOST_SETTLE_S = 1.0


class SettingsWatch:
    """Tells that some of a few files may have changed, by inotify on their directories: nothing polls."""

    def __init__(self, loop: Loop, on_change: Callable[[], None]) -> None:
        """Raises OSError where the kernel has no inotify, or gives us none."""
        self._loop = loop
        self._on_change = on_change
        self._fd = -1
        self._names: dict[int, set[bytes] | None] = {}  # of files, by directory; None: whatever happens there
        self._timer: Timer | None = None
        self._first_s = 0.0  # when the changes began that are not told yet
        self._open()

    def _open(self) -> None:
        self._fd = open_inotify()
        if self._fd < 0:
            raise OSError("no inotify")
        self._loop.add_reader(self._fd, self._on_events)

    def follow(self, paths: Iterable[str]) -> None:
        """Watch these files, whether they are there or not, and no others. Raises OSError."""
        if self._names:
            self.close()
            self._open()
        for path in paths:
            self._add(os.path.dirname(path) or ".", None if os.path.islink(path) else os.path.basename(path))
            if os.path.islink(path):
                real = os.path.realpath(path)
                self._add(os.path.dirname(real), os.path.basename(real))

    def _add(self, directory: str, name: str | None) -> None:
        number = add_inotify_watch(self._fd, directory, MASK)
        if number < 0:
            return  # a directory that is not there, or may not be read
        names = self._names.setdefault(number, set())
        if name is None:
            self._names[number] = None
        elif names is not None:
            names.add(os.fsencode(name))

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._names.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_events(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        if not any(self._is_about_us(*event) for event in events_in(data)):
            return
        now_s = self._loop.now()
        if self._timer is None:
            self._first_s = now_s
        else:
            self._timer.cancel()
        delay_s = min(SETTLE_S, max(0.0, self._first_s + MOST_SETTLE_S - now_s))
        self._timer = self._loop.call_later(delay_s, self._tell)

    def _is_about_us(self, number: int, mask: int, name: bytes) -> bool:
        if mask & (IN_Q_OVERFLOW | IN_IGNORED):
            return True
        names = self._names.get(number, set())
        return names is None or name in names

    def _tell(self) -> None:
        self._timer = None
        self._on_change()


def events_in(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield watch, mask and name of each `struct inotify_event`."""
    import struct

    at = 0
    while at + HEAD_BYTES <= len(data):
        number, mask, _, length = struct.unpack_from("iIII", data, at)
        at += HEAD_BYTES + length
        yield number, mask, data[at - length : at].rstrip(b"\0")
