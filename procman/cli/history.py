"""What `procman logs` shows: the events of several supervisors in the order of time, and a choice of their lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from procman.control.protocol import Message, event_of
from procman.events import SYSTEM, Event, Notice, Output
from procman.records import NamedTuple
from procman.sinks.console import text_of

MAX_HELD_BYTES = 1024 * 1024  # of a line whose end has not come

_LINE = re.compile(rb"[^\n]*\n|[^\n]+")  # and not splitlines(): a lone carriage return ends no line
_STYLE = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]")


class Choice(NamedTuple):
    """Which lines to show of what was kept; the pattern holds for what comes later, too."""

    last: int | None = None  # so many
    since: float | None = None  # wall clock
    pattern: re.Pattern[str] | None = None

    def fits(self, line: bytes) -> bool:
        """Tell whether the pattern is found in a line's text, without its colours."""
        if self.pattern is None:
            return True
        text = _STYLE.sub(b"", line).rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        return self.pattern.search(text) is not None


def told(message: Message, at: float = 0.0) -> Event | None:
    """Return what a message of `logs` tells; a gap becomes procman's own line. None for what this version knows not."""
    if message.get("event") == "lost":
        name, size = message.get("name"), message.get("lost_bytes")
        return Notice(SYSTEM, at, f"{name}: {size} bytes of its output are missing here")
    return event_of(message)


def kept(messages: Sequence[Message]) -> list[Event]:
    """Return the events of one supervisor's history, in its order; a gap right before what follows of its instance."""
    events: list[Event] = []
    gaps: dict[object, list[Message]] = {}
    for message in messages:
        if message.get("event") == "lost":
            gaps.setdefault(message.get("name"), []).append(message)
        elif (event := told(message)) is not None:
            events += (gap for lost in gaps.pop(event.name, ()) if (gap := told(lost, event.at)) is not None)
            events.append(event)
    at = events[-1].at if events else 0.0
    return events + [gap for some in gaps.values() for lost in some if (gap := told(lost, at)) is not None]


def merged(histories: Iterable[Sequence[Event]]) -> list[Event]:
    """Return all events by time. Each supervisor's order stays as it is, whatever its clock did."""
    timed: list[tuple[float, Event]] = []
    for events in histories:
        latest = 0.0
        for event in _with_whole_lines(events):
            latest = max(latest, event.at)
            timed.append((latest, event))
    timed.sort(key=lambda pair: pair[0])  # stable
    return [event for _, event in timed]


def _with_whole_lines(events: Iterable[Event]) -> list[Event]:
    """Put lines together that came in pieces; they stand where they began."""
    whole: list[Event] = []
    begun: dict[str, int] = {}  # instance -> where its unfinished line stands in `whole`
    for event in events:
        if type(event) is not Output:
            begun.pop(event.name, None)
            whole.append(event)
            continue
        block = event.block
        if event.name in begun:
            at = begun.pop(event.name)
            start = whole[at]
            assert type(start) is Output
            end, newline, block = block.partition(b"\n")
            whole[at] = start._replace(block=start.block + end + newline)
            if not newline:
                begun[event.name] = at
        lines, newline, rest = block.rpartition(b"\n")
        if newline:
            whole.append(event._replace(block=lines + newline))
        if rest:
            begun[event.name] = len(whole)
            whole.append(event._replace(block=rest))
    return whole


def chosen(events: Iterable[Event], choice: Choice) -> list[Event]:
    """Return what of `events` is to be shown: since then, with the pattern, and of that the last lines."""
    shown: list[Event] = []
    for event in events:
        if choice.since is not None and event.at < choice.since:
            continue
        if type(event) is Output:
            block = _fitting(event.block, choice)
            if block:
                shown.append(event._replace(block=block))
        elif (text := text_of(event)) and choice.fits(text.encode("utf-8", "surrogateescape")):
            shown.append(event)
    return shown if choice.last is None else _last(shown, choice.last)


def _fitting(block: bytes, choice: Choice) -> bytes:
    if choice.pattern is None:
        return block
    return b"".join(line for line in _LINE.findall(block) if choice.fits(line))


def _last(events: Sequence[Event], count: int) -> list[Event]:
    shown: list[Event] = []
    for event in reversed(events):
        if count <= 0:
            break
        if type(event) is Output:
            lines = _LINE.findall(event.block)
            event = event._replace(block=b"".join(lines[-count:]))
            count -= len(lines)
        else:
            count -= 1
        shown.append(event)
    return shown[::-1]


class Following:
    """Chooses from what comes now. With a pattern a line is held until its end has come."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._held: dict[str, bytes] = {}

    def take(self, event: Event) -> list[Event]:
        """Return what of `event` is to be shown, and what it ends."""
        if self._choice.pattern is None:
            return [event]
        if type(event) is not Output:
            held = self._held.pop(event.name, b"")
            before = [Output(event.name, event.at, held)] if held and self._choice.fits(held) else []
            return [*before, *([event] if self._choice.fits(text_of(event).encode("utf-8", "surrogateescape")) else [])]
        block = self._held.pop(event.name, b"") + event.block
        lines, newline, rest = block.rpartition(b"\n")
        if len(rest) > MAX_HELD_BYTES:
            lines, newline, rest = block, b"", b""
        if rest:
            self._held[event.name] = rest
        block = _fitting(lines + newline, self._choice)
        return [event._replace(block=block)] if block else []
