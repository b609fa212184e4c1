"""What does a manager hold while nobody reads, and is all there afterwards?"""

from __future__ import annotations

import time
from functools import partial

from benchmarks import flooding, processes
from benchmarks.app import App, Flood
from benchmarks.flooding import READY_S
from benchmarks.peers import Peer
from benchmarks.plan import Column, Sample, Scale, Test
from benchmarks.session import Session

LOOK_S = 0.2
LINE_BYTES = 100
LIMIT_S = 60
COLUMNS = (
    Column("growth_mb", "growth MB"),
    Column("before_mb", "PSS before MB", is_compared=False),
    Column("lost", "lost", is_compared=False),
    Column("mixed", "mixed", is_compared=False),
    Column("reordered", "reordered", is_compared=False),
)


def sample(peer: Peer, megabytes: int, seconds: float) -> Sample:
    flood = Flood(1, LINE_BYTES, megabytes, LIMIT_S)
    with App().flood(flood) as app, Session(peer, app) as session:
        session.wait_for_reports(1, READY_S)
        into = flooding.buffer_for(session, flood)
        managers = session.processes().manager
        before_mb = most_mb = processes.memory_mb(managers, "Pss")
        app.open_gate()
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(LOOK_S)
            most_mb = max(most_mb, processes.memory_mb(managers, "Pss"))
        arrival = flooding.receive(session, flood, into, LIMIT_S)
    return {"growth_mb": most_mb - before_mb, "before_mb": before_mb, **arrival.faults(peer.prefixes)._asdict()}


def tests(scale: Scale) -> list[Test]:
    title = f"The reader stalls for {scale.stall_s:.0f} s, a child writes {scale.stall_megabytes} MB: growth of memory"
    measure = partial(sample, megabytes=scale.stall_megabytes, seconds=scale.stall_s)
    return [Test("stall", title, COLUMNS, measure, ("cat",))]
