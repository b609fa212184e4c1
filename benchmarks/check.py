"""Does procman lose, mix or reorder a line under flood? Small, and nothing depends on time: a step of .ci/run."""

from __future__ import annotations

from itertools import product

from benchmarks import flooding, install
from benchmarks.app import App, Flood
from benchmarks.flooding import READY_S
from benchmarks.peers import PEERS, Peer
from benchmarks.session import Failed, Session

LIMIT_S = 60.0  # only a bug comes near it
MEGABYTES = {20: 5, 100: 20, 1000: 40}  # by length of the lines
VARIANTS = [peer for peer in PEERS if peer.program == "procman"]


def fault(peer: Peer, output: str, flood: Flood) -> str:
    """Return what is wrong with this flood, or ""."""
    with App().flood(flood) as app, Session(peer, app, output) as session:
        try:
            session.wait_for_reports(flood.children, READY_S)
            into = flooding.buffer_for(session, flood)
            app.open_gate()
            faults = flooding.receive(session, flood, into, LIMIT_S).faults(peer.prefixes)
        except Failed as failure:
            return str(failure)
    return str(faults) if any(faults) else ""


def main() -> int:
    install.prepare()
    has_fault = False
    for peer, output, children, line_bytes in product(VARIANTS, ("pipe", "pty"), (1, 4), MEGABYTES):
        if not peer.takes_part(f"throughput:{output}"):
            continue
        flood = Flood(children, line_bytes, MEGABYTES[line_bytes], LIMIT_S)
        what = fault(peer, output, flood)
        has_fault = has_fault or bool(what)
        case = f"{peer.name} to a {output}, {children} writing {flood.megabytes} MB of {line_bytes}-byte lines"
        print(f"{case}: {what or 'every line is there'}", flush=True)
    return int(has_fault)
