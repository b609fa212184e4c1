"""Children that flood a tool, and all of what arrives behind it."""

from __future__ import annotations

import mmap
import os
import select
import time
from typing import NamedTuple

from benchmarks.app import Flood
from benchmarks.lines import Faults, check
from benchmarks.session import Failed, Session

END = b"@end "
READY_S = 30  # supervisor starts with a second of sleep
SILENCE_S = 2  # of a tool, when the children are done
DRAIN_S = 40  # for what a tool has queued when the children are done
PREFIX_MOST_BYTES = 80

# Kept from sample to sample, and written to once, so that no page fault is part of a measurement.
_buffer = mmap.mmap(-1, 1 << 20)


class Arrival(NamedTuple):
    """What came of a flood. `received` is empty where nobody reads."""

    counts: dict[int, int]  # of the lines that each child wrote
    received: memoryview
    ended_s: float  # monotonic time of the last byte, or of the last child's end where nobody reads
    flood: Flood

    @property
    def lines(self) -> int:
        return sum(self.counts.values())

    def faults(self, has_names: bool) -> Faults:
        return check(self.received, self.counts, self.flood.line_bytes, has_names)


def receive(session: Session, flood: Flood, into: memoryview, limit_s: float) -> Arrival:
    """Take all that comes until every child has reported and its last line is here. Raises Failed after the limit."""
    report_fd, told, ended_s = session.app.report, b"", 0.0
    fds = [report_fd] + [session.fd] * (session.fd >= 0)
    size = ends = 0
    is_over = False
    deadline_s = time.monotonic() + limit_s
    while not is_over or (session.fd >= 0 and ends < flood.children):
        left_s = deadline_s - time.monotonic()
        ready = select.select(fds, [], [], max(0.0, min(left_s, SILENCE_S)))[0]
        if not ready and is_over:
            break  # the last lines did not arrive whole: the check will tell
        if left_s <= 0:
            raise Failed(f"the output did not arrive within {limit_s:.0f} s")
        if report_fd in ready:
            told += os.read(report_fd, 1 << 16)
            is_over = told.count(b"\n") == flood.children
        if session.fd in ready:
            behind = size
            size += _read(session.fd, into[size : size + (1 << 20)])
            ended_s = time.monotonic()
            if told:  # a child reports before it writes its end, so there is no end to look for before
                ends += bytes(into[max(0, behind - len(END) + 1) : size]).count(END)
    reports = [report.split() for report in told.splitlines()]
    counts = {int(child): int(count) for child, count, _ in reports}
    return Arrival(counts, into[:size], ended_s or max(float(at_s) for _, _, at_s in reports), flood)


def _read(fd: int, into: memoryview) -> int:
    try:
        count = os.readv(fd, [into])
    except OSError:  # EIO: a terminal that nobody has open any more
        count = 0
    if not count:
        raise Failed("ended by itself")
    return count


def buffer_for(session: Session, flood: Flood) -> memoryview:
    """Return where to keep what arrives. To be asked before the gate opens: the first of a size takes a second."""
    global _buffer
    if session.fd < 0:
        return memoryview(b"")
    # A child looks at its limit once a block, and managers say things of their own.
    size = flood.most_lines * flood.children * (flood.line_bytes + PREFIX_MOST_BYTES) + (8 << 20)
    if len(_buffer) < size:
        _buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    return memoryview(_buffer)
