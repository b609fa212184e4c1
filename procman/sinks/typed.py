"""The line that a user is typing at one instance, on the terminal where the others write, too (`start --attach`)."""

from __future__ import annotations

import os
import re

from procman.sinks.terminal import ERASE_LINE

MAX_BYTES = 4096  # of a longer one, as of a progress bar that goes on for hours, the line is closed instead

_STYLE = re.compile(rb"\x1b\[[0-9:;]*m")
_MOVE = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|[\x08\r]")


class TypedLine:
    """What was written of it, prefix and all: written again, it makes the same line, with the cursor at its place."""

    def __init__(self) -> None:
        self.shown = b""

    def begin(self, shown: bytes) -> None:
        """Take the first piece, of which only what stands behind its last newline is the line."""
        self.shown = shown[shown.rfind(b"\n") + 1 :]

    def go_on(self, piece: bytes) -> None:
        if b"\n" in piece:
            self.begin(piece)
        elif len(self.shown) <= MAX_BYTES:
            self.shown += piece

    def can_be_lifted(self) -> bool:
        """Tell whether it can be erased and written again."""
        return len(self.shown) <= MAX_BYTES

    def erasure(self) -> bytes:
        """Return what takes it off the screen; where it cannot be told how many rows that are, only what leaves it."""
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 0
        text = _STYLE.sub(b"", self.shown)
        if len(text) > columns > 0 and text.isascii() and text.decode().isprintable():
            return b"\x1b[%dA\r\x1b[J" % ((len(text) - 1) // columns)
        cells = sum(1 if character < "\x7f" else 2 for character in _MOVE.sub(b"", text).decode("utf-8", "replace"))
        return ERASE_LINE if cells + 7 * text.count(b"\t") <= columns else b"\n"
