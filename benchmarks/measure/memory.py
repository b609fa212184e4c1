"""What does a manager hold while its children sleep?"""

from __future__ import annotations

import time
from functools import partial

from benchmarks import processes
from benchmarks.app import UP, App
from benchmarks.peers import Peer
from benchmarks.plan import Column, Sample, Scale, Test
from benchmarks.session import Session

LIMIT_S = 90
COLUMNS = (
    Column("pss_mb", "PSS MB"),
    Column("rss_mb", "RSS MB"),
    Column("processes", "processes", is_compared=False),
    Column("threads", "threads", is_compared=False),
    Column("shells", "shells", is_compared=False),
)


def sample(peer: Peer, children: int) -> Sample:
    with App().idle(children) as app, Session(peer, app) as session:
        session.wait_for_lines(UP, children, LIMIT_S)
        time.sleep(1)  # what only the start needed has been given back
        found = session.processes()
        return {
            "pss_mb": processes.memory_mb(found.manager, "Pss"),
            "rss_mb": processes.memory_mb(found.manager, "Rss"),
            "processes": len(found.manager),
            "threads": processes.threads(found.manager),
            "shells": len(found.shells),
        }


def tests(scale: Scale) -> list[Test]:
    return [
        Test(f"memory:{children}", f"Memory with {children} idle children", COLUMNS, partial(sample, children=children))
        for children in scale.memory_children
    ]
