"""How much output goes through, where it goes to, and does all of it arrive?"""

from __future__ import annotations

import time
from functools import partial

from benchmarks import flooding, processes
from benchmarks.app import App, Flood
from benchmarks.flooding import DRAIN_S, READY_S
from benchmarks.peers import Peer
from benchmarks.plan import Column, Sample, Scale, Test
from benchmarks.session import OUTPUTS, Session

SPEED = (
    Column("mb_s", "MB/s", "more"),
    Column("lines_s", "lines/s", "more", is_compared=False),
    Column("cpu_s_gb", "CPU s per GB"),
)
ARRIVED = Column("arrived_mb_s", "arrived MB/s", "more")  # prefixes and all
FAULTS = (
    Column("lost", "lost", is_compared=False),
    Column("mixed", "mixed", is_compared=False),
    Column("reordered", "reordered", is_compared=False),
)
LOOK_S = 0.02
CALM_LOOKS = 5
BUSY = 0.3  # share of a processor; one that only polls has a hundredth
PLACES = {"null": "/dev/null", "pipe": "a pipe", "pty": "a terminal"}


def sample(peer: Peer, output: str, flood: Flood) -> Sample:
    flood = flood._replace(megabytes=min(flood.megabytes, peer.flood_mb or flood.megabytes))
    with App().flood(flood) as app, Session(peer, app, output) as session:
        session.wait_for_reports(flood.children, READY_S)
        into = flooding.buffer_for(session, flood)
        managers = session.processes().manager
        cpu_s = processes.cpu_s(managers)
        began_s = time.monotonic()
        app.open_gate()
        arrival = flooding.receive(session, flood, into, flood.seconds + DRAIN_S)
        ended_s = arrival.ended_s if session.fd >= 0 else max(arrival.ended_s, last_busy_s(managers))
        cpu_s = processes.cpu_s(managers) - cpu_s
    seconds = ended_s - began_s
    moved_bytes = arrival.lines * flood.line_bytes  # what the children wrote; the prefixes are no merit
    figures = {
        "mb_s": moved_bytes / 1e6 / seconds,
        "lines_s": arrival.lines / seconds,
        "cpu_s_gb": cpu_s / moved_bytes * 1e9,
    }
    if output == "null":
        return figures
    figures["arrived_mb_s"] = len(arrival.received) / 1e6 / seconds
    return figures | arrival.faults(peer.prefixes)._asdict()


def last_busy_s(managers: list[int]) -> float:
    """Wait until the manager rests; return the monotonic time when it was last seen to work, or 0.

    Nobody reads /dev/null, and a manager that queues still has much to write when its children are done.
    """
    at_s, calm, cpu_s = 0.0, 0, processes.cpu_s(managers)
    deadline_s = time.monotonic() + DRAIN_S
    while calm < CALM_LOOKS and time.monotonic() < deadline_s:
        time.sleep(LOOK_S)
        before_s, cpu_s = cpu_s, processes.cpu_s(managers)
        is_busy = cpu_s - before_s > BUSY * LOOK_S
        calm = 0 if is_busy else calm + 1
        at_s = time.monotonic() if is_busy else at_s
    return at_s


def test(output: str, children: int, line_bytes: int, scale: Scale) -> Test:
    # What is read is kept until it is checked. Of short lines, there is more to keep and to check in a MB.
    megabytes = 5 * scale.megabytes if output == "null" else min(scale.megabytes, 4 * line_bytes)
    flood = Flood(children, line_bytes, megabytes, scale.seconds)
    writers = "1 child" if children == 1 else f"{children} children"
    return Test(
        f"throughput:{output}:{children}:{line_bytes}",
        f"Throughput to {PLACES[output]}, {writers}, {line_bytes}-byte lines",
        SPEED if output == "null" else (*SPEED, ARRIVED, *FAULTS),
        partial(sample, output=output, flood=flood),
        ("cat", "relay", "script") if output == "pty" else ("cat",),
    )


def tests(scale: Scale) -> list[Test]:
    return [
        test(output, children, line_bytes, scale)
        for output in OUTPUTS
        for children in (1, 4)
        for line_bytes in scale.line_bytes
    ]
