"""What a test is: its columns, and how one sample of one tool is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.peers import Peer

Sample = dict[str, float]


class Column(NamedTuple):
    """One figure of a sample. `is_compared`: the table has the ratio to procman beside it."""

    key: str
    title: str
    is_better: str = "less"  # or "more"
    is_compared: bool = True


class Test(NamedTuple):
    """`columns[0]` is what the test is about; the first `plots` columns are drawn."""

    name: str  # "throughput:pipe:4:100"
    title: str
    columns: tuple[Column, ...]
    sample: Callable[[Peer], Sample]  # raises session.Failed
    floors: tuple[str, ...] = ()  # which of them take part
    refuses: Callable[[Peer], str] = lambda peer: ""  # why a tool takes no part
    plots: int = 1
    repetitions: int = 3


class Scale(NamedTuple):
    """How large: the full sizes are for a quiet machine, the quick ones show that all works."""

    seconds: float
    megabytes: int
    line_bytes: tuple[int, ...]
    tick_s: float
    memory_children: tuple[int, ...]
    idle_s: float
    scale_children: tuple[int, ...]
    scale_alone: tuple[int, ...]  # only procman
    stall_megabytes: int
    stall_s: float


FULL = Scale(1.5, 400, (20, 100, 1000), 5.0, (2, 50, 300, 1000), 10.0, (2, 50, 500, 2000), (5000,), 50, 5.0)
QUICK = Scale(0.4, 20, (100,), 1.0, (2, 50), 2.0, (2, 50), (), 10, 1.0)
