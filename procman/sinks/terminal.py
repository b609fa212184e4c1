"""What of an instance's output a shared terminal is shown (kernel rule 10).

Two processes cannot share a screen: colours and styles (SGR) pass, sequences that clear, move, set titles or query are
dropped. A lone carriage return redraws the line behind its prefix. A style left open ends with its line and is opened
again on that instance's next.
"""

from __future__ import annotations

import re

RESET = b"\x1b[0m"
ERASE_LINE = b"\r\x1b[K"

# ECMA-48: CSI parameters, intermediates, final byte; OSC, DCS, SOS, PM and APC strings up to BEL or ST; other escapes;
# C1 controls as UTF-8. Then the C0 controls a line has no use for: all but \t, \n, \r. An ESC or a first byte of a C1
# control that begins nothing goes too: it could begin something once what stands behind it has been dropped.
_SEQUENCE = re.compile(
    rb"\x1b\[(?P<parameters>[0-?]*)(?P<between>[ -/]*)(?P<final>[@-~])"
    rb"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\|(?=\x1b)|\Z)"
    rb"|\x1b[ -/]*[0-~]"
    rb"|\x1b"
    rb"|\xc2(?![\xa0-\xbf])[\x80-\x9f]?"
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]"
)
# Or a character: a style that ends between its bytes would break it.
_UNFINISHED = re.compile(
    rb"(?:(?P<csi>\x1b\[[0-?]*[ -/]*)|(?P<string>\x1b[\]PX^_])[^\x07\x1b\n]*(?P<st>\x1b?)|\x1b[ -/]*"
    rb"|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z"
)
# Back, to the right and left, erase to the end, delete and insert characters: what line editors draw with.
_EDITING = re.compile(rb"\x08|\x1b\[(?:[0-9]{0,4}[CDPX@]|0?K|4[hl])")
_INSERT, _OVERWRITE = b"\x1b[4h", b"\x1b[4l"
_HARMLESS = bytes(byte for byte in range(256) if byte in b"\t\n" or (byte >= 0x20 and byte not in (0x7F, 0xC2)))
MAX_PARAMETERS_BYTES = 64


class Screen:
    """The filter of one instance: it remembers the open style and an escape sequence cut by a chunk's end.

    `is_edited`: somebody types at it. What moves the cursor within the line, or erases the rest of it, passes, too.
    """

    __slots__ = ("_is_edited", "_is_returned", "_styles", "_unfinished")

    def __init__(self, is_edited: bool = False) -> None:
        self._is_edited = is_edited
        self._styles: dict[int, bytes] = {}  # style -> its SGR parameters
        self._unfinished = b""
        self._is_returned = False  # by a carriage return with nothing behind it yet

    def cleaned(self, block: bytes, prefix: bytes) -> bytes:
        """Return what the terminal gets for `block`, without the prefixes at line starts.

        `prefix` goes behind a lone carriage return. Every piece ends in the plain style and opens its own again.
        """
        block = self._unfinished + block
        self._unfinished = b""
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")  # a pty does that once a child has set its modes back to sane
        if not self._styles and not self._is_returned and not block.translate(None, _HARMLESS):
            return block
        unfinished = _UNFINISHED.search(block)
        if unfinished:
            block = block[: unfinished.start()]
            self._unfinished = _shortened(unfinished)
        *lines, rest = block.split(b"\n")
        shown = []
        for line in lines:
            shown.append(self._line(line, prefix) if line else line)
            self._is_returned = False
        return b"\n".join([*shown, self._line(rest, prefix)])

    def _line(self, line: bytes, prefix: bytes) -> bytes:
        drawn = []
        for at, part in enumerate(line.split(b"\r")):
            if at:
                self._is_returned = True
            opening = b"\x1b[" + b";".join(self._styles.values()) + b"m" if self._styles else b""
            text = _SEQUENCE.sub(self._keep_style, part)
            if text.rfind(_INSERT) > text.rfind(_OVERWRITE):
                text += _OVERWRITE  # others write, too
            if text:
                erase = b"\r" if self._is_edited else ERASE_LINE
                redraw = erase + prefix if self._is_returned else b""
                self._is_returned = False
                drawn.append(redraw + opening + text + (RESET if self._styles else b""))
        return b"".join(drawn)

    def _keep_style(self, found: re.Match[bytes]) -> bytes:
        parameters = found["parameters"]
        if self._is_edited and _EDITING.fullmatch(found[0]):
            return found[0]
        is_style = found["final"] == b"m" and not found["between"] and not parameters.strip(b"0123456789:;")
        if not is_style or len(parameters) > MAX_PARAMETERS_BYTES:
            return b""
        self._note_style(parameters)
        return found[0]

    def _note_style(self, parameters: bytes) -> None:
        tokens = iter(parameters.split(b";"))
        for token in tokens:
            code = int(token.partition(b":")[0] or 0)
            if code in (38, 48, 58) and b":" not in token:
                # 38;5;N and 38;2;R;G;B: the colour's own parameters follow
                kind = next(tokens, b"")
                count = {b"5": 1, b"2": 3}.get(kind, 0)
                token = b";".join([token, kind, *(next(tokens, b"") for _ in range(count))])
            if code in _ENDS:
                for style in _ENDS[code]:
                    self._styles.pop(style, None)
            elif code in _STYLE_OF:
                self._styles[_STYLE_OF[code]] = token
            elif code == 0:
                self._styles.clear()


def _shortened(unfinished: re.Match[bytes]) -> bytes:
    """Return what must be remembered of a sequence cut by a chunk's end; of one that is dropped anyway, its kind."""
    if unfinished["string"]:
        return unfinished["string"] + unfinished["st"]
    if unfinished["csi"] and len(unfinished["csi"]) > MAX_PARAMETERS_BYTES:
        return b"\x1b[?"
    return unfinished[0][-MAX_PARAMETERS_BYTES:]


# ECMA-48 8.3.117 and the colours of xterm: the codes that set the same style share a name, and these end it.
_STYLE_OF = {
    **{code: code for code in (1, 2, 3, 4, 5, 7, 8, 9, 51, 53)},
    **dict.fromkeys([*range(30, 39), *range(90, 98)], 39),
    **dict.fromkeys([*range(40, 49), *range(100, 108)], 49),
    **dict.fromkeys(range(11, 20), 10),
    6: 5,
    20: 3,
    21: 4,
    52: 51,
    58: 59,
}
_ENDS = {
    22: (1, 2), 23: (3,), 24: (4,), 25: (5,), 27: (7,), 28: (8,), 29: (9,),
    39: (39,), 49: (49,), 59: (59,), 54: (51,), 55: (53,), 10: (10,),
}  # fmt: skip
