"""How long do many children take to start, and to stop?"""

from __future__ import annotations

import os
import select
import signal
import time
from functools import partial

from benchmarks import processes
from benchmarks.app import UP, App
from benchmarks.peers import Peer
from benchmarks.plan import Column, Sample, Scale, Test
from benchmarks.session import Failed, Session
from procman.procfile import MAX_TYPES

START_LIMIT_S = 90
STOP_LIMIT_S = 60
ORPHANS_S = 5  # nobody stops them any more when the manager has ended
COLUMNS = (
    Column("start_ms", "all started ms"),
    Column("stop_ms", "all stopped ms"),
    Column("start_each_ms", "start ms a child", is_compared=False),
    Column("start_cpu_each_ms", "of it CPU ms of the manager", is_compared=False),
    Column("stop_each_ms", "stop ms a child", is_compared=False),
)


def sample(peer: Peer, children: int) -> Sample:
    with App().idle(children) as app, Session(peer, app) as session:
        start_ms = 1000 * session.wait_for_lines(UP, children, START_LIMIT_S)
        time.sleep(1)  # the start is over, and nobody is busy with it any more
        cpu_ms = 1000 * processes.cpu_s(session.processes().manager)
        figures = {
            "start_ms": start_ms,
            "start_each_ms": start_ms / children,
            "start_cpu_each_ms": cpu_ms / children,
        }
        stop_s, left = stop(session)
        if left:
            raise Failed(f"left {left} of {children + 1} processes {stop_s:.0f} s after SIGTERM", figures)
        return figures | {"stop_ms": 1000 * stop_s, "stop_each_ms": 1000 * stop_s / children}


def stop(session: Session) -> tuple[float, int]:
    """Send SIGTERM; return the seconds until manager and children are gone, or we gave up, and how many were left."""
    # A pidfd becomes readable the moment its process ends, so nothing is polled while the clock runs.
    manager = os.pidfd_open(session.manager.pid)
    pids = {manager, *map(os.pidfd_open, session.processes().children)}
    poll = select.epoll()
    for fd in (*pids, session.fd):
        poll.register(fd, select.EPOLLIN)
    began_s = time.monotonic()
    until_s = began_s + STOP_LIMIT_S
    session.manager.send_signal(signal.SIGTERM)
    while pids and time.monotonic() < until_s:
        for fd, _ in poll.poll(until_s - time.monotonic()):
            if fd == session.fd:
                # What a manager says about the end must not fill the pipe.
                if not os.read(fd, 1 << 20):
                    poll.unregister(fd)
            else:
                poll.unregister(fd)
                pids.remove(fd)
                os.close(fd)
                if fd == manager:
                    until_s = min(until_s, time.monotonic() + ORPHANS_S)
    gone_s = time.monotonic() - began_s
    for fd in pids:
        os.close(fd)
    poll.close()
    return gone_s, len(pids)


def tests(scale: Scale) -> list[Test]:
    alone = [(children, True) for children in scale.scale_alone]
    return [
        Test(
            f"scale:{children}",
            f"{children} children: start, and stop by SIGTERM",
            COLUMNS,
            partial(sample, children=children),
            refuses=partial(refusal, children=children, is_alone=is_alone),
            plots=2,
        )
        for children, is_alone in [*((children, False) for children in scale.scale_children), *alone]
    ]


def refusal(peer: Peer, children: int, is_alone: bool) -> str:
    if peer.name == "procman" and children > MAX_TYPES:
        return f"more than {MAX_TYPES} process types are refused; see w=N"
    return "not measured with so many" if is_alone and peer.program != "procman" else ""
