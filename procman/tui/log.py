"""The log of one instance: so many lines, drawn as far as they are seen."""

from __future__ import annotations

import contextlib
import re
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from types import FrameType

from rich.ansi import AnsiDecoder
from rich.style import Style
from rich.text import Text
from textual.events import Resize
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from procman.control.table import cut, size_text, width_of
from procman.records import NamedTuple
from procman.tui.feed import GAP, OWN, TEXT

MAX_LINES = 5000
MAX_CHARS = 2000  # of a line; the rest is `procman logs`'

SEARCH_S = 0.5  # of processor time, for an expression to be looked for in all lines
DRAW_S = 0.01  # and in one that is drawn

_SEQUENCE = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]")
_UNFINISHED = re.compile("\x1b[^m]*\\Z")
_STYLES = {OWN: Style(dim=True, italic=True), GAP: Style(color="yellow")}
_FOUND = Style(reverse=True, bold=True)


class TooSlow(Exception):
    """A regular expression takes too long on these lines."""


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TooSlow when this takes longer: `.*x` in a line of 2,000 characters takes 50 ms, and others for ever.

    The module `re` looks for signals while it searches. A signal that comes too late means nobody.
    """
    is_armed = True

    def stop(signum: int, frame: FrameType | None) -> None:
        if is_armed:
            raise TooSlow

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        is_armed = False
        signal.setitimer(signal.ITIMER_PROF, 0)


class Line(NamedTuple):
    kind: str
    text: str


class LogView(ScrollView, can_focus=True):
    """The last lines. It goes with what comes as long as the newest one is seen."""

    def __init__(self) -> None:
        super().__init__(id="log")
        self._lines: deque[Line] = deque(maxlen=MAX_LINES)
        self._dropped = 0  # lines that have been here
        self._is_open = False  # the last line has no end yet
        self._is_following = True
        self._width = 0
        self._strips: dict[Line, Strip] = {}
        self._pattern: re.Pattern[str] | None = None
        self._marked: re.Pattern[str] | None = None  # the same, unless that takes too long
        self._found = -1  # which line, counted with those that have been here
        self.nothing = ""

    @property
    def lines(self) -> list[str]:
        """The text of all lines, without colours."""
        return [_plain(line) for line in self._lines]

    def clear(self) -> None:
        self._lines.clear()
        self._dropped = self._width = 0
        self._is_open = False
        self._found = -1
        self._strips.clear()
        self.virtual_size = Size(0, 0)
        self.scroll_to(0, 0, animate=False, immediate=True, force=True)
        self._is_following = True
        self.refresh()

    def add(self, parts: Sequence[tuple[str, str, int]]) -> None:
        """Take what has come: parts of a kind, text, bytes that are missing."""
        if not parts:
            return
        dropped = self._dropped
        for kind, text, size in parts:
            if kind == TEXT:
                self._add_text(text)
            else:
                self._is_open = False
                self._append(Line(kind, f"… {size_text(size)} passed over …" if kind == GAP else text))
        self.virtual_size = Size(self._width, len(self._lines))
        if self._is_following:
            self.follow()
        elif self._dropped > dropped:
            self._go_to(max(0, self.scroll_offset.y - (self._dropped - dropped)))
        self.refresh()

    def follow(self) -> None:
        """Go to the newest line, and stay there."""
        self._go_to(self.max_scroll_y)
        self._is_following = True

    def _go_to(self, y: int) -> None:
        # By force, for the layout learns only later that there is something to scroll.
        self.scroll_to(y=y, animate=False, immediate=True, force=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._is_following = new_value >= self.max_scroll_y

    def on_resize(self, event: Resize) -> None:
        if self._is_following:
            self.call_after_refresh(self.follow)

    def _add_text(self, text: str) -> None:
        *whole, rest = text.split("\n")
        for line in whole:
            self._end_line(line)
            self._is_open = False
        if rest:
            self._end_line(rest)
            self._is_open = True

    def _end_line(self, text: str) -> None:
        if self._is_open and self._lines:
            text = self._lines.pop().text + text
        text = text.rpartition("\r")[2]
        if len(text) > MAX_CHARS:
            text = _UNFINISHED.sub("", text[:MAX_CHARS]) + "\x1b[0m…"
        self._append(Line(TEXT, text))

    def _append(self, line: Line) -> None:
        if len(self._lines) == MAX_LINES:
            self._dropped += 1
        self._lines.append(line)
        text = _plain(line)
        self._width = max(self._width, len(text) if text.isascii() else width_of(text))

    # --- looking for something ---

    def search(self, pattern: re.Pattern[str] | None) -> None:
        """Show where `pattern` is found."""
        self._pattern = self._marked = pattern
        self._found = -1
        self._strips.clear()
        self.refresh()

    def find(self, step: int) -> tuple[int, int]:
        """Go to the next older or newer line in which it is found, first to the newest; return which of how many.

        Raises TooSlow, and then it is no longer looked for.
        """
        if self._pattern is None:
            return 0, 0
        search = self._pattern.search
        try:
            with _within(SEARCH_S):
                found = [at + self._dropped for at, line in enumerate(self._lines) if search(_plain(line))]
        except TooSlow:
            self.search(None)
            raise
        if not found:
            self._found = -1
            return 0, 0
        if step < 0:
            before = [at for at in found if self._found < 0 or at < self._found]
            self._found = before[-1] if before else found[-1]
        else:
            behind = [at for at in found if at > self._found]
            self._found = behind[0] if behind else found[0]
        y = self._found - self._dropped
        if not self.scroll_offset.y <= y < self.scroll_offset.y + self.size.height:
            self._go_to(max(0, min(y - self.size.height // 2, self.max_scroll_y)))
        self._strips.clear()
        self.refresh()
        return found.index(self._found) + 1, len(found)

    # --- drawing ---

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        x, top = self.scroll_offset
        at = top + y
        if not self._lines and y == 0:
            text = Text(cut(self.nothing, width), style=Style(dim=True), end="")
            return Strip(text.render(self.app.console)).apply_style(base).adjust_cell_length(width, base)
        if at >= len(self._lines):
            return Strip.blank(width, base)
        return self._strip(self._lines[at], at + self._dropped == self._found).crop_extend(x, x + width, base)

    def _strip(self, line: Line, is_found: bool) -> Strip:
        strip = self._strips.get(line)
        if strip is None or is_found:
            text = AnsiDecoder().decode_line(line.text) if line.kind == TEXT else Text(line.text)
            text.end = ""
            text.expand_tabs(8)
            text.stylize(_STYLES.get(line.kind, Style()))
            if self._marked is not None:
                try:
                    with _within(DRAW_S):
                        text.highlight_regex(self._marked, _FOUND)
                except TooSlow:
                    self._marked = None
            if is_found:
                text.stylize(Style(underline=True))
            strip = Strip(text.render(self.app.console)).apply_style(self.rich_style)
            if not is_found:
                if len(self._strips) > 4 * max(50, self.size.height):
                    self._strips.clear()
                self._strips[line] = strip
        return strip


def _plain(line: Line) -> str:
    return _SEQUENCE.sub("", line.text) if "\x1b" in line.text else line.text
