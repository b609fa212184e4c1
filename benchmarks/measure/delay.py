"""How long is a line on its way, when there are 500 a second?"""

from __future__ import annotations

import re
import statistics
import time
from functools import partial

from benchmarks import processes
from benchmarks.app import App
from benchmarks.flooding import END, READY_S
from benchmarks.peers import Peer
from benchmarks.plan import Column, Sample, Scale, Test
from benchmarks.session import Failed, Session

RATE = 500
STAMP = re.compile(rb"@(\d+)@")
COLUMNS = (
    Column("p99_ms", "p99 ms"),
    Column("p50_ms", "p50 ms"),
    Column("max_ms", "longest ms"),
    Column("cpu_us", "CPU µs a line"),
    Column("lost", "lost", is_compared=False),
)


def sample(peer: Peer, seconds: float) -> Sample:
    count = round(RATE * seconds)
    with App().tick(RATE, count) as app, Session(peer, app) as session:
        session.wait_for_reports(1, READY_S)
        managers = session.processes().manager
        cpu_s = processes.cpu_s(managers)
        app.open_gate()
        delays_ms = sorted(listen(session, seconds + 10))
        cpu_s = processes.cpu_s(managers) - cpu_s
    if len(delays_ms) < 10:
        raise Failed("hardly any line arrived whole")
    return {
        "p99_ms": delays_ms[int(len(delays_ms) * 0.99)],
        "p50_ms": statistics.median(delays_ms),
        "max_ms": delays_ms[-1],
        "cpu_us": cpu_s / count * 1e6,
        "lost": count - len(delays_ms),
    }


def listen(session: Session, limit_s: float) -> list[float]:
    """Read to the end; return how old each line was when it came, in milliseconds."""
    deadline_s = time.monotonic() + limit_s
    delays_ms: list[float] = []
    rest = b""
    while chunk := session.read(deadline_s):
        now_ns = time.monotonic_ns()
        whole, _, rest = (rest + chunk).rpartition(b"\n")
        delays_ms += [(now_ns - int(stamp)) / 1e6 for stamp in STAMP.findall(whole)]
        if END in whole:
            return delays_ms
    raise Failed(f"the last line did not arrive within {limit_s:.0f} s")


def tests(scale: Scale) -> list[Test]:
    measure = partial(sample, seconds=scale.tick_s)
    return [
        Test("delay", f"Delay of a line, {RATE} lines a second, to a pipe", COLUMNS, measure, ("cat",), repetitions=5)
    ]
