"""Does a manager rest while nothing happens?"""

from __future__ import annotations

import time
from functools import partial

from benchmarks import processes
from benchmarks.app import UP, App
from benchmarks.peers import Peer
from benchmarks.plan import Column, Sample, Scale, Test
from benchmarks.session import Session

CHILDREN = 10
LIMIT_S = 20
SETTLE_S = 2.0


def sample(peer: Peer, seconds: float) -> Sample:
    with App().idle(CHILDREN) as app, Session(peer, app) as session:
        session.wait_for_lines(UP, CHILDREN, LIMIT_S)
        time.sleep(SETTLE_S)
        managers = session.processes().manager
        woken, cpu_s = processes.wakeups(managers), processes.cpu_s(managers)
        time.sleep(seconds)
        return {
            "wakeups": processes.wakeups(managers) - woken,
            "cpu_ms": 1000 * (processes.cpu_s(managers) - cpu_s),
        }


def tests(scale: Scale) -> list[Test]:
    title = f"{CHILDREN} silent children, {scale.idle_s:.0f} s"
    columns = (Column("wakeups", "wakeups"), Column("cpu_ms", "CPU ms"))
    return [Test("idle", title, columns, partial(sample, seconds=scale.idle_s))]
