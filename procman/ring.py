"""The last output of each instance, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from procman.events import Event, Output
from procman.records import NamedTuple

EVENT_BYTES = 250  # what an event takes beside its output: short lines, one by one, would else be ten times the limit

SLACK_SHARE = 16  # a shelf that is full is cut to this share below its limit


class Kept(NamedTuple):
    """An event, and where it stood among all."""

    number: int
    event: Event


class _Shelf:
    """What is kept of one instance."""

    __slots__ = ("dropped_bytes", "held_bytes", "kept")

    def __init__(self) -> None:
        self.kept: deque[Kept] = deque()
        self.held_bytes = 0
        self.dropped_bytes = 0


class Ring:
    """Keeps the last `instance_bytes` of each instance, and no more than `total_bytes` of all together."""

    def __init__(self, instance_bytes: int, total_bytes: int) -> None:
        self._instance_bytes = instance_bytes
        self._total_bytes = total_bytes
        self._limit_bytes = instance_bytes
        self._shelves: dict[str, _Shelf] = {}
        self._number = 0

    def write(self, event: Event) -> None:
        shelf = self._shelves.get(event.name)
        if shelf is None:
            shelf = self._shelves[event.name] = _Shelf()
            self._share()
        self._number += 1
        size = EVENT_BYTES
        if type(event) is Output:
            too_much = len(event.block) + EVENT_BYTES - self._limit_bytes
            if too_much > 0:
                shelf.dropped_bytes += len(event.block)
                event = _end_of(event, too_much)
                shelf.dropped_bytes -= len(event.block)
            size += len(event.block)
        shelf.kept.append(Kept(self._number, event))
        shelf.held_bytes += size
        if shelf.held_bytes > self._limit_bytes:
            self._trim(shelf)

    def history(self, names: Collection[str], limit_bytes: int | None = None) -> tuple[list[Event], dict[str, int]]:
        """Return what is kept of the instances `names`, oldest first, and how many bytes of each are not in it.

        With a limit these are the last events of each, with no more output than that; the oldest may be cut.
        """
        shelves = {name: self._shelves[name] for name in names if name in self._shelves}
        newest = {name: _newest(shelf, limit_bytes) for name, shelf in shelves.items()}
        kept = sorted(kept for some, _ in newest.values() for kept in some)
        return [event for _, event in kept], {name: missing for name, (_, missing) in newest.items() if missing}

    def tail(self, name: str, size: int) -> bytes:
        """Return the last bytes that instance `name` wrote, at most `size`."""
        shelf = self._shelves.get(name)
        blocks = [kept.event.block for kept in shelf.kept if type(kept.event) is Output] if shelf else []
        return b"".join(blocks)[-size:]

    def _share(self) -> None:
        """Set what each may hold; with many instances less, so that the sum has a bound."""
        limit = min(self._instance_bytes, self._total_bytes // max(1, len(self._shelves)))
        if limit < self._limit_bytes:
            self._limit_bytes = limit
            for shelf in self._shelves.values():
                self._trim(shelf)
        self._limit_bytes = limit

    def _trim(self, shelf: _Shelf) -> None:
        while shelf.held_bytes > self._limit_bytes and shelf.kept:
            number, event = shelf.kept.popleft()
            # Of a long block only the oldest lines go, and some more, or it would be cut anew for each line that comes.
            too_much = shelf.held_bytes - self._limit_bytes + self._limit_bytes // SLACK_SHARE
            if type(event) is Output and len(event.block) > too_much and (rest := _end_of(event, too_much)).block:
                dropped_bytes = len(event.block) - len(rest.block)
                shelf.dropped_bytes += dropped_bytes
                shelf.held_bytes -= dropped_bytes
                shelf.kept.appendleft(Kept(number, rest))
                return
            shelf.held_bytes -= EVENT_BYTES
            if type(event) is Output:
                shelf.held_bytes -= len(event.block)
                shelf.dropped_bytes += len(event.block)


def _newest(shelf: _Shelf, limit_bytes: int | None) -> tuple[Iterable[Kept], int]:
    """Return the last events of a shelf, and how many bytes came before them."""
    if limit_bytes is None or shelf.held_bytes <= limit_bytes:
        return shelf.kept, shelf.dropped_bytes
    chosen: list[Kept] = []
    older = iter(reversed(shelf.kept))
    for kept in older:
        size = _size_of(kept)
        if size > limit_bytes:
            missing = size
            if type(kept.event) is Output and limit_bytes > 0:
                event = _end_of(kept.event, size - limit_bytes)
                missing -= len(event.block)
                chosen.append(kept._replace(event=event))
            return reversed(chosen), shelf.dropped_bytes + missing + sum(map(_size_of, older))
        limit_bytes -= size
        chosen.append(kept)
    return reversed(chosen), shelf.dropped_bytes


def _end_of(event: Output, too_much: int) -> Output:
    """Return the last lines: from behind the first newline of what is left without the first `too_much` bytes."""
    start = min(event.block.find(b"\n", too_much - 1) + 1 or too_much, len(event.block))
    return Output(event.name, event.at, event.block[start:])


def _size_of(kept: Kept) -> int:
    return len(kept.event.block) if type(kept.event) is Output else 0
