"""How much output goes through, where it goes to, and does all of it arrive?"""

from __future__ import annotations

import time
from functools import partial

from benchmarks import flooding, processes
from benchmarks.app import App
from benchmarks.flooding import DRAIN_S, READY_S, Flood
from benchmarks.peers import Peer
from benchmarks.session import OUTPUTS, Session
from benchmarks.tests import Column, Sample, Scale, Test

SPEED = (Column("mb_s", "MB/s", "more"), Column("lines_s", "lines/s", "more"), Column("cpu_s_gb", "CPU s per GB"))
FAULTS = (Column("lost", "lost lines"), Column("mixed", "mixed lines"), Column("reordered", "reordered lines"))
PLACES = {"null": "/dev/null", "pipe": "a pipe", "pty": "a terminal"}


def sample(peer: Peer, output: str, flood: Flood) -> Sample:
    with App().flood(flood.children, flood.line_bytes, flood.most_lines, flood.seconds) as app:
        with Session(peer, app, output) as session:
            session.wait_for_reports(flood.children, READY_S)
            managers = session.processes().manager
            cpu_s = processes.cpu_s(managers)
            began_s = time.monotonic()
            app.open_gate()
            arrival = flooding.receive(session, flood, flood.seconds + DRAIN_S)
            cpu_s = processes.cpu_s(managers) - cpu_s
    seconds = arrival.ended_s - began_s
    moved_bytes = arrival.lines * flood.line_bytes  # what the children wrote; the prefixes are no merit
    figures = {
        "mb_s": moved_bytes / 1e6 / seconds,
        "lines_s": arrival.lines / seconds,
        "cpu_s_gb": cpu_s / moved_bytes * 1e9,
    }
    return figures if output == "null" else figures | arrival.faults(peer.prefixes)._asdict()


def refuses(peer: Peer, output: str) -> str:
    return f"measured only with a {peer.only}" if peer.only and peer.only != output else ""


def test(output: str, children: int, line_bytes: int, scale: Scale) -> Test:
    flood = Flood(children, line_bytes, min(scale.megabytes, 5 * line_bytes), scale.seconds)
    writers = "1 child" if children == 1 else f"{children} children"
    return Test(
        f"throughput:{output}:{children}:{line_bytes}",
        f"Throughput to {PLACES[output]}, {writers}, {line_bytes}-byte lines",
        SPEED if output == "null" else SPEED + FAULTS,
        partial(sample, output=output, flood=flood),
        ("cat",),
        refuses=partial(refuses, output=output),
    )


def tests(scale: Scale) -> list[Test]:
    return [
        test(output, children, line_bytes, scale)
        for output in OUTPUTS
        for children in (1, 4)
        for line_bytes in scale.line_bytes
    ]
