"""The merged stream for people: Foreman's shape, byte for byte when it is not a terminal (contract F1-F15)."""

from __future__ import annotations

import time
from collections.abc import Callable

from procman.events import SYSTEM, Event, Exited, GaveUp, Notice, Output, Restarting, Started
from procman.kernel import signal_name
from procman.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from procman.sinks.stream import Buffer
    from procman.sinks.terminal import Screen
    from procman.sinks.typed import TypedLine

    class Target(Protocol):
        """Where the bytes go: a Stream, or what a command writes to."""

        @property
        def is_idle(self) -> bool: ...
        def write(self, *buffers: Buffer) -> None: ...
        def flush(self) -> None: ...


class Style(NamedTuple):
    """How the stream looks."""

    width: int  # of the name column
    has_timestamp: bool = True
    has_date: bool = False  # in the timestamp: a log spans days
    has_prefix: bool = True
    has_colour: bool = False
    is_filtered: bool = False  # a terminal that several instances share
    muted: frozenset[str] = frozenset()  # process types whose output is not shown
    attached: str = ""  # the instance that gets the user's keys


class Console:
    """Writes events to a Target. `colour_of` gives a process type's position in the Procfile."""

    def __init__(self, stream: Target, style: Style, colour_of: Callable[[str], int]) -> None:
        self._stream = stream
        self._style = style
        self._colour_of = colour_of
        self._second = -1
        self._clock = b""
        self._prefixes: dict[str, tuple[bytes, bytes]] = {}  # name -> (prefix, newline + prefix), of this second
        self._labels: dict[str, tuple[bytes, bytes]] = {}  # name -> what stands before and behind the time
        self._screens: dict[str, Screen] = {}
        self._open_name = ""  # whose unfinished line the stream ends with
        self._cut_names: set[str] = set()  # whose unfinished line got a newline of ours
        self._typed: TypedLine | None = None
        if style.attached and style.is_filtered:
            from procman.sinks.typed import TypedLine

            self._typed = TypedLine()

    @property
    def is_idle(self) -> bool:
        return self._stream.is_idle

    def close(self) -> None:
        self._stream.flush()

    def widen(self, width: int) -> None:
        """Make room for longer names; lines that are out keep theirs."""
        self._style = self._style._replace(width=max(width, self._style.width))
        self._labels.clear()
        self._second = -1

    def leave_line(self) -> None:
        """Write no typed line again: the terminal is another's, who goes on where the cursor stands."""
        self._typed = None

    def write(self, event: Event) -> None:
        if self._typed is not None and self._open_name == self._style.attached != event.name:
            self._write_above(event, self._typed)
        else:
            self._write(event)

    def _write(self, event: Event) -> None:
        if type(event) is Output:
            if event.name.rpartition(".")[0] not in self._style.muted:
                self._write_output(event.name, event.at, event.block)
            return
        text = text_of(event)
        if text:
            self._end_open_line()
            prefix, _ = self._prefix(event.name, event.at)
            self._stream.write(prefix + text.encode("utf-8", "surrogateescape") + b"\n")

    # --- the hot path: one call per chunk, never one per line ---

    def _write_output(self, name: str, at: float, block: bytes) -> None:
        prefix, newline_prefix = self._prefix(name, at)
        if self._style.is_filtered:
            block = self._screen(name).cleaned(block, prefix)
        if self._open_name or name in self._cut_names or block[-1:] != b"\n":
            block = self._joined(name, block)
            if not block:
                return
            if self._open_name == name:
                self._continue_line(name, block, newline_prefix)
                return
            if block[-1:] != b"\n":
                self._open_name = name
                shown = prefix + block.replace(b"\n", newline_prefix)
                if self._typed is not None and name == self._style.attached:
                    self._typed.begin(shown)
                self._stream.write(shown)
                return
        if not prefix:
            self._stream.write(block)
            return
        # replace() prefixes thousands of lines in one pass in C; what it put behind the last newline is cut off again.
        lines = block.replace(b"\n", newline_prefix)
        self._stream.write(prefix, memoryview(lines)[: -len(prefix)])

    # --- unfinished lines ---

    def _joined(self, name: str, block: bytes) -> bytes:
        """Close another's open line; drop the newline that ended a line to which we gave one before."""
        if block and self._open_name != name:
            self._end_open_line()
        if name in self._cut_names and block:
            self._cut_names.discard(name)
            if block[:1] == b"\n":
                return block[1:]
        return block

    def _continue_line(self, name: str, block: bytes, newline_prefix: bytes) -> None:
        if block[-1:] == b"\n":
            self._open_name = ""
            block = block[:-1].replace(b"\n", newline_prefix) + b"\n"
        else:
            block = block.replace(b"\n", newline_prefix)
            if self._typed is not None and name == self._style.attached:
                self._typed.go_on(block)
        self._stream.write(block)

    def _end_open_line(self) -> None:
        if self._open_name:
            self._stream.write(b"\n")
            self._cut_names.add(self._open_name)
            self._open_name = ""

    def _write_above(self, event: Event, typed: TypedLine) -> None:
        """Write what another says above the line that is being typed, which is shown again below."""
        is_shown = event.name.rpartition(".")[0] not in self._style.muted if type(event) is Output else text_of(event)
        if not is_shown:
            return
        if not typed.can_be_lifted():
            self._write(event)
            return
        name, self._open_name = self._open_name, ""
        self._stream.write(typed.erasure())
        self._write(event)
        self._end_open_line()
        self._open_name = name
        self._stream.write(typed.shown)

    def _screen(self, name: str) -> Screen:
        screen = self._screens.get(name)
        if screen is None:
            from procman.sinks.terminal import Screen  # only for a terminal

            screen = self._screens[name] = Screen(is_edited=name == self._style.attached)
        return screen

    # --- prefixes ---

    def _prefix(self, name: str, at: float) -> tuple[bytes, bytes]:
        second = int(at)
        if second != self._second:
            self._second = second
            form = "%Y-%m-%d %H:%M:%S " if self._style.has_date else "%H:%M:%S "
            self._clock = time.strftime(form, time.localtime(second)).encode()
            self._prefixes.clear()
        found = self._prefixes.get(name)
        if found is None:
            before, behind = self._label(name)
            clock = self._clock if self._style.has_timestamp and self._style.has_prefix else b""
            prefix = before + clock + behind
            found = self._prefixes[name] = (prefix, b"\n" + prefix)
        return found

    def _label(self, name: str) -> tuple[bytes, bytes]:
        found = self._labels.get(name)
        if found is None:
            label = f"{name:<{self._style.width}} | ".encode() if self._style.has_prefix else b""
            before, behind = self._colour(name) if self._style.has_colour and label else (b"", b"")
            found = self._labels[name] = (before, label + behind)
        return found

    def _colour(self, name: str) -> tuple[bytes, bytes]:
        from colorama import Fore, Style  # after the first spawn, and only for a terminal

        colours = (Fore.CYAN, Fore.YELLOW, Fore.GREEN, Fore.MAGENTA, Fore.RED, Fore.BLUE)
        if name == SYSTEM:
            return Fore.WHITE.encode(), Style.RESET_ALL.encode()
        index = self._colour_of(name.rpartition(".")[0])
        bright = Style.BRIGHT if index // len(colours) % 2 else ""
        return (colours[index % len(colours)] + bright).encode(), Style.RESET_ALL.encode()


def text_of(event: Event) -> str:
    """Return procman's own line for an event, in Foreman's words; "" where it says nothing."""
    if type(event) is Notice:
        return event.text
    if type(event) is Started:
        return f"started with pid {event.pid}"
    if type(event) is Exited:
        return f"terminated by {signal_name(event.signum)}" if event.signum else f"exited with code {event.code}"
    if type(event) is Restarting:
        return f"restarting in {event.delay_s:g} s"
    if type(event) is GaveUp:
        return event.reason
    return ""
