"""Does procman lose, mix or reorder a line under flood? Small, without any timing: part of .ci/run."""

from __future__ import annotations

import sys

from benchmarks import flooding, install
from benchmarks.app import App
from benchmarks.flooding import DRAIN_S, READY_S, Flood
from benchmarks.lines import Faults
from benchmarks.peers import PEERS, Peer
from benchmarks.session import Failed, Session

LIMIT_S = 60.0  # only a bug comes near it
MEGABYTES = 20


def flood_once(peer: Peer, output: str, flood: Flood) -> Faults:
    with App().flood(flood.children, flood.line_bytes, flood.most_lines, flood.seconds) as app:
        with Session(peer, app, output) as session:
            session.wait_for_reports(flood.children, READY_S)
            app.open_gate()
            return flooding.receive(session, flood, LIMIT_S + DRAIN_S).faults(peer.prefixes)


def main() -> int:
    install.prepare()
    good = True
    for peer in PEERS[:2]:
        for output in ("pipe", "pty"):
            if peer.only not in ("", output):
                continue
            for children in (1, 4):
                for line_bytes in (20, 100, 1000):
                    flood = Flood(children, line_bytes, min(MEGABYTES, line_bytes), LIMIT_S)
                    try:
                        faults = flood_once(peer, output, flood)
                        told = str(faults)
                    except Failed as failure:
                        faults, told = None, str(failure)
                    is_good = faults is not None and not any(faults)
                    good = good and is_good
                    what = f"{peer.name}, {output}, {children} writing, {line_bytes}-byte lines, {flood.megabytes} MB"
                    print(f"{'good ' if is_good else 'FAULT'} {what}: {told}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
