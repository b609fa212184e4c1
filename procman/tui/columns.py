"""What the table of the view says: columns that fit, and lines of what an instance has used."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from procman.control.table import HEADINGS, MIN_COMMAND, cells_of, width_of

MIN_LINE, MAX_LINE = 5, 20  # columns of a sparkline
LINES = ("cpu_line", "memory_line")
COLUMNS = ("name", "state", "port", "uptime", "restarts", "cpu", "cpu_line", "memory", "memory_line")
# One after the other until it fits: the gap between columns, the heading of the restarts, and what is left out.
TIGHTER: Sequence[tuple[int, str, tuple[str, ...]]] = (
    (2, HEADINGS["restarts"], ()),
    (1, "RST", ()),
    (1, "RST", ("port",)),
    (1, "RST", ("port", "memory")),
    (1, "RST", ("port", "memory", "cpu")),
    (1, "", ("port", "memory", "cpu", "restarts", "uptime")),
    (1, "", ("port", "memory", "cpu", "restarts", "uptime", *LINES)),
)

BARS = "▁▂▃▄▅▆▇█"
CPU_TOP = 100.0  # percent of a core: a full bar, unless there has been more
MEMORY_SPARE = 1.5  # memory has no natural top, so the most there has been is at two thirds

Used = deque[float | None]  # at each look; None while it did not run


class Layout:
    """The columns that fit a width, in order, with the width of each."""

    def __init__(self, rows: Iterable[Mapping[str, str]], width: int) -> None:
        rows = list(rows)
        content = {
            column: max((width_of(row[column]) for row in rows), default=0)
            for column in (*COLUMNS, "command")
            if column not in LINES
        }
        self.gap = 1
        self.widths = {"name": max(1, width)}
        self.headings: dict[str, str] = {}
        for gap, restarts, left_out in TIGHTER:
            headings = {**HEADINGS, "restarts": restarts, **dict.fromkeys(LINES, "")}
            kept = [column for column in COLUMNS if column not in left_out]
            widths = {
                column: MIN_LINE if column in LINES else max(content[column], len(headings[column])) for column in kept
            }
            spare = width - sum(widths.values()) - gap * (len(kept) - 1)
            if spare >= 0:
                self.gap, self.headings = gap, headings
                self.widths = self._stretched(widths, spare, content["command"])
                return

    def _stretched(self, widths: dict[str, int], spare: int, command: int) -> dict[str, int]:
        """Give what is left to the lines, and then to the command."""
        lines = [column for column in widths if column in LINES]
        for column in lines:
            widths[column] += min(MAX_LINE - MIN_LINE, spare // len(lines))
        spare -= sum(widths[column] - MIN_LINE for column in lines)
        if command and spare - self.gap >= min(MIN_COMMAND, command):
            widths["command"] = spare - self.gap
        return widths


class Past:
    """What instances have used at the last looks."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[Used, Used]] = {}

    def add(self, instances: Iterable[Mapping[str, Any]]) -> None:
        """Take another look; who is no longer there is forgotten."""
        before, self._of = self._of, {}
        for instance in instances:
            cpu, memory = before.get(instance["name"]) or (deque(maxlen=MAX_LINE), deque(maxlen=MAX_LINE))
            cpu.append(instance["cpu_percent"])
            memory.append(instance["memory_bytes"])
            self._of[instance["name"]] = cpu, memory

    def cells_of(self, instance: Mapping[str, Any], widths: Mapping[str, int]) -> dict[str, str]:
        """Return what stands in each column of an instance."""
        cells = cells_of(instance)
        cpu, memory = self._of.get(instance["name"], ((), ()))
        if "cpu_line" in widths:
            cells["cpu_line"] = spark(cpu, widths["cpu_line"], max(CPU_TOP, *_known(cpu)))
        if "memory_line" in widths:
            cells["memory_line"] = spark(memory, widths["memory_line"], max(1.0, *_known(memory)) * MEMORY_SPARE)
        return cells


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None] or [0.0]


def spark(values: Iterable[float | None], width: int, top: float) -> str:
    """Return the last values as bars, the newest at the right; nothing where there was nothing to measure."""
    last = list(values)[-width:]
    return "".join(" " if value is None else BARS[min(7, math.ceil(value / top * 7))] for value in last).rjust(width)
