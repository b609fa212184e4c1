"""What arrived of the numbered lines: none may be missing, cut, mixed with another or out of order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.children.flood import cycle_lines

SLICE_BYTES = 4 << 20
ANSI = rb"(?:\x1b\[[0-9;]*[A-Za-z])*"


class Faults(NamedTuple):
    lost: int  # lines that did not arrive whole
    mixed: int  # lines with something of a child's, but not as a child wrote it
    reordered: int

    def __str__(self) -> str:
        return f"{self.lost} lost, {self.mixed} mixed, {self.reordered} reordered"


def check(received: memoryview, counts: dict[int, int], line_bytes: int, has_names: bool) -> Faults:
    """Compare what arrived with how many lines each child says it wrote.

    With `has_names` the prefix must name the child that the line is of: `w3` before `#3`.
    """
    prefix = rb"^[^#\n]*?w(\d)\b[^#\n]*#(\1\d{7})" if has_names else rb"^[^#\n]*()#(\d{8})"
    whole = re.compile(prefix + rb"x{%d}%s\r?$" % (line_bytes - 10, ANSI), re.MULTILINE)
    cycle = cycle_lines(line_bytes)
    seen = dict.fromkeys(counts, 0)
    last = dict.fromkeys(counts, cycle - 1)
    mixed = reordered = 0
    for piece in slices(received):
        found = [number for _, number in whole.findall(piece)]
        mixed += sum(b"#" in line or b"xxx" in line for line in piece.split(b"\n")) - len(found)
        for child in counts:
            numbers = [int(number[1:]) for number in found if number[0] == ord("0") + child]
            seen[child] += len(numbers)
            reordered += backwards(last[child], numbers, cycle)
            last[child] = numbers[-1] if numbers else last[child]
    return Faults(sum(counts.values()) - sum(seen.values()), mixed, reordered)


def slices(received: memoryview) -> Iterator[bytes]:
    """Cut into pieces of whole lines."""
    start = 0
    while start < len(received):
        piece = bytes(received[start : start + SLICE_BYTES])
        if start + len(piece) < len(received):
            piece = piece[: piece.rfind(b"\n") + 1] or piece
        yield piece
        start += len(piece)


def backwards(last: int, numbers: list[int], cycle: int) -> int:
    """Count the lines that come before their predecessor. Lost ones leave a gap forwards, less than half of a cycle."""
    pairs = zip([last, *numbers], numbers, strict=False)
    return sum((number - before - 1) % cycle >= cycle // 2 for before, number in pairs if number != before + 1)
