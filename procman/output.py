"""Bytes from instances to blocks of whole lines, in bounded memory.

Bytes stay bytes and nothing is dropped. A partial line is held until its newline, with two exceptions: a prompt (a
partial line that stays silent) is shown as it stands, and when all partial lines together exceed BUDGET_BYTES the
largest takes the stream: its pieces go out as they come and everybody else waits in their pipes until its newline, or
until it was silent for a second while another waits. So a line of any length arrives whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial

from procman.events import Event, Output
from procman.loop import Loop, Timer

READ_BYTES = 65_536  # a pipe holds 16 pages of 4 KiB (pipe(7)); larger reads only leave the processor's cache
BUDGET_BYTES = 2 * 1024 * 1024
DRAIN_BYTES = 1024 * 1024
STREAM_SILENCE_S = 1.0


class Feed:
    """The output of one process: where it is read, and what of it waits for its newline."""

    __slots__ = ("began_s", "fd", "held_bytes", "is_open", "is_pty", "last_s", "name", "pieces", "taps")

    def __init__(self, name: str, fd: int, is_pty: bool, taps: Sequence[Callable[[bytes], None]]) -> None:
        self.name = name
        self.taps = taps  # who wants every byte at once: an attached terminal
        self.is_pty = is_pty
        self.fd = fd  # -1 after its end
        self.pieces: list[bytes] = []
        self.held_bytes = 0
        self.began_s = 0.0  # monotonic time of the first held piece
        self.last_s = 0.0  # and of the last
        self.is_open = False  # a piece of an unfinished line went out


class Multiplexer:
    """Merges the feeds of all instances into one sequence of events.

    `emit` gets every event. `is_full()` tells that a sink has no room: then readers stop, and the kernel's pipes hold
    the children back, until `resume()`. `prompt_s` is how long a partial line stays silent before it is shown; with
    `redraws` one that contains a carriage return is shown that long after it began. Who types at the
    instance `attached` sees each key at once, whoever else has written.
    """

    def __init__(
        self,
        loop: Loop,
        emit: Callable[[Event], None],
        is_full: Callable[[], bool],
        prompt_s: float,
        redraws: bool = False,
        attached: str = "",
    ) -> None:
        self._loop = loop
        self._emit = emit
        self._is_full = is_full
        self._prompt_s = prompt_s
        self._redraws = redraws
        self._attached = attached
        self._partial: dict[Feed, None] = {}  # feeds with pieces, in order of their beginning
        self._held_bytes = 0
        self._paused: list[Feed] = []
        self._prompt_timer: Timer | None = None
        self._last: Feed | None = None  # whose bytes went out last
        self._streaming: Feed | None = None
        self._silence_timer: Timer | None = None
        self._delayed: list[Event] = []

    # --- feeds ---

    def add(self, name: str, fd: int, is_pty: bool = False, taps: Sequence[Callable[[bytes], None]] = ()) -> Feed:
        """Read `fd`, which must not block, until its end. Each of `taps` is called with each chunk as it comes."""
        feed = Feed(name, fd, is_pty, taps)
        self._loop.add_reader(fd, partial(self._on_readable, feed))
        return feed

    def drain(self, feed: Feed) -> None:
        """Read what the kernel holds now, at most DRAIN_BYTES; whoever still has the pipe open must not delay this."""
        left = DRAIN_BYTES
        while left > 0 and feed.fd >= 0:
            read_bytes = self._read(feed)
            if read_bytes is None:
                break
            left -= read_bytes
        self._end_line(feed)

    def close(self, feed: Feed) -> None:
        """End the feed: its last line gets a newline, its descriptor is closed."""
        if feed.fd >= 0:
            self._loop.remove(feed.fd)
            os.close(feed.fd)
            feed.fd = -1
        self._end_line(feed)

    def resume(self) -> None:
        """Read again: the sinks have room, or the line that had the stream for itself has ended."""
        paused, self._paused = self._paused, []
        for feed in paused:
            if feed.fd >= 0:
                self._loop.add_reader(feed.fd, partial(self._on_readable, feed))
        if self._delayed:
            self._watch_silence()
        if self._partial and self._prompt_timer is None:
            for feed in self._partial:
                feed.began_s = feed.last_s = self._loop.now()
            self._prompt_timer = self._loop.call_later(self._prompt_s, self._show_prompts)

    def emit(self, event: Event) -> None:
        """Pass an event on in its place: behind what its instance wrote, and never inside a long line."""
        if self._streaming is None:
            self._emit(event)
        else:
            self._delayed.append(event)
            self._watch_silence()

    # --- reading ---

    def _on_readable(self, feed: Feed) -> None:
        if self._is_full() or (self._streaming is not None and self._streaming is not feed):
            # Stopped one by one, when they have something to say: silent feeds cost nothing.
            self._loop.remove_reader(feed.fd)
            self._paused.append(feed)
            self._watch_silence()
        else:
            self._read(feed)

    def _read(self, feed: Feed) -> int | None:
        """Read once; None at the end or when there is nothing to read."""
        try:
            chunk = os.read(feed.fd, READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:  # EIO: no slave of the pty is open any more
            chunk = b""
        if not chunk:
            self.close(feed)
            return None
        for tap in feed.taps:
            tap(chunk)
        self._take(feed, chunk)
        return len(chunk)

    def _take(self, feed: Feed, chunk: bytes) -> None:
        end = chunk.rfind(b"\n") + 1
        if not end:
            self._hold(feed, chunk)
            return
        whole = self._release(feed, memoryview(chunk)[:end]) if feed.pieces else chunk[:end]
        feed.is_open = False
        if feed.is_pty and b"\r" in whole:
            # A child that sets its terminal's modes to sane gets \r\n for each \n it writes (termios(3), ONLCR).
            whole = whole.replace(b"\r\n", b"\n")
        self._send(feed, whole)
        if self._streaming is feed:
            self._end_streaming()
        if end < len(chunk):
            self._hold(feed, chunk[end:])

    def _send(self, feed: Feed, block: bytes) -> None:
        self._last = feed
        event = Output(feed.name, time.time(), block)
        if self._streaming is None or self._streaming is feed:
            self._emit(event)
        else:
            self.emit(event)

    def _end_line(self, feed: Feed) -> None:
        if feed.pieces or feed.is_open:
            feed.is_open = False
            self._send(feed, self._release(feed, b"\n"))
        if self._streaming is feed:
            self._end_streaming()

    # --- partial lines ---

    def _hold(self, feed: Feed, piece: bytes) -> None:
        feed.last_s = self._loop.now()
        if feed is self._streaming or (feed.is_open and (feed is self._last or feed.name == self._attached)):
            feed.is_open = True
            self._send(feed, piece)  # the rest of a line that is being shown already
            return
        if not feed.pieces:
            feed.began_s = feed.last_s
            self._partial[feed] = None
        feed.pieces.append(piece)
        feed.held_bytes += len(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > BUDGET_BYTES and self._streaming is None:
            self._stream(max(self._partial, key=lambda held: held.held_bytes))
        elif self._prompt_timer is None:
            self._prompt_timer = self._loop.call_later(self._prompt_s, self._show_prompts)

    def _release(self, feed: Feed, rest: bytes | memoryview = b"") -> bytes:
        """Return what is held and `rest` behind it, in one copy."""
        held = b"".join([*feed.pieces, rest])
        feed.pieces.clear()
        self._held_bytes -= feed.held_bytes
        feed.held_bytes = 0
        self._partial.pop(feed, None)
        return held

    def _show(self, feed: Feed) -> None:
        feed.is_open = True
        self._send(feed, self._release(feed))

    def _show_prompts(self) -> None:
        self._prompt_timer = None
        if self._streaming is not None:
            self._watch_silence()
            return
        if self._paused or self._is_full():
            return  # it is we who do not read: what is silent then is no prompt, and `resume()` looks again
        now_s = self._loop.now()
        waits = []
        for feed in list(self._partial):
            is_drawing = self._redraws and b"\r" in feed.pieces[-1]
            wait_s = (feed.began_s if is_drawing else feed.last_s) + self._prompt_s - now_s
            if wait_s > 0:
                waits.append(wait_s)
            else:
                self._show(feed)
        if waits:
            self._prompt_timer = self._loop.call_later(min(waits), self._show_prompts)

    # --- a line longer than the budget ---

    def _stream(self, feed: Feed) -> None:
        self._show(feed)
        self._streaming = feed

    def _watch_silence(self) -> None:
        if self._streaming is not None and self._silence_timer is None:
            self._silence_timer = self._loop.call_later(STREAM_SILENCE_S, self._check_silence)

    def _check_silence(self) -> None:
        self._silence_timer = None
        feed = self._streaming
        if feed is None:
            return
        left_s = feed.last_s + STREAM_SILENCE_S - self._loop.now()
        if left_s > 0:
            self._silence_timer = self._loop.call_later(left_s, self._check_silence)
        elif not self._is_full():  # else it is we who do not read: `resume()` looks again
            self._end_streaming()

    def _end_streaming(self) -> None:
        self._streaming = None
        delayed, self._delayed = self._delayed, []
        for event in delayed:
            self._emit(event)
        self.resume()
