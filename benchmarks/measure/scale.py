"""How long do many children take to start, and to stop?"""

from __future__ import annotations

import os
import select
import signal
import time
from functools import partial

from benchmarks.app import UP, App
from benchmarks.peers import Peer
from benchmarks.session import Session
from benchmarks.tests import Column, Sample, Scale, Test

START_LIMIT_S = 90
STOP_LIMIT_S = 45
COLUMNS = (
    Column("start_ms", "all started ms"),
    Column("start_each_ms", "start ms a child"),
    Column("stop_ms", "all stopped ms"),
    Column("stop_each_ms", "stop ms a child"),
    Column("left", "left"),
)


def sample(peer: Peer, children: int) -> Sample:
    with App().idle(children) as app, Session(peer, app) as session:
        start_ms = 1000 * session.wait_for_lines(UP, children, START_LIMIT_S)
        time.sleep(1)  # the start is over, and nobody is busy with it any more
        figures = {"start_ms": start_ms, "start_each_ms": start_ms / children}
        stop_s, left = stop(session)
        figures["left"] = left
        if not left:
            figures |= {"stop_ms": 1000 * stop_s, "stop_each_ms": 1000 * stop_s / children}
        return figures


def stop(session: Session) -> tuple[float, int]:
    """Send SIGTERM; return the seconds until manager and children are gone, and how many never went."""
    # A pidfd becomes readable the moment its process ends, so nothing is polled while the clock runs.
    pids = {os.pidfd_open(pid) for pid in (session.manager.pid, *session.processes().children)}
    poll = select.epoll()
    for fd in (*pids, session.fd):
        poll.register(fd, select.EPOLLIN)
    began_s = last_s = time.monotonic()
    session.manager.send_signal(signal.SIGTERM)
    while pids and (left_s := began_s + STOP_LIMIT_S - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s):
            if fd == session.fd:
                # What a manager says about the end must not fill the pipe.
                if not os.read(fd, 1 << 20):
                    poll.unregister(fd)
            else:
                last_s = time.monotonic()
                poll.unregister(fd)
                pids.remove(fd)
                os.close(fd)
    for fd in pids:
        os.close(fd)
    poll.close()
    return last_s - began_s, len(pids)


def tests(scale: Scale) -> list[Test]:
    alone = [(children, True) for children in scale.scale_alone]
    return [
        Test(
            f"scale:{children}",
            f"{children} children: start, and stop by SIGTERM",
            COLUMNS,
            partial(sample, children=children),
            refuses=refuses_all_but_procman if is_alone else lambda peer: "",
        )
        for children, is_alone in [*((children, False) for children in scale.scale_children), *alone]
    ]


def refuses_all_but_procman(peer: Peer) -> str:
    return "" if peer.name == "procman" else "not measured with so many"


