"""Run tests: the tools take turns within each repetition, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

from benchmarks.peers import Peer
from benchmarks.plan import Sample, Test
from benchmarks.session import Failed


class Result(NamedTuple):
    """All samples of one test by tool, and why a tool has fewer of them than there were repetitions."""

    test: Test
    samples: dict[str, list[Sample]]
    remarks: dict[str, str]


def run(test: Test, peers: list[Peer], repetitions: int | None) -> Result:
    peers = [peer for peer in peers if peer.takes_part(test.name) and (not peer.is_floor or peer.name in test.floors)]
    refusals = {peer.name: why for peer in peers if not peer.is_floor and (why := test.refuses(peer))}
    taking_part = [peer for peer in peers if peer.name not in refusals]
    result = Result(test, {peer.name: [] for peer in taking_part}, refusals)
    for repetition in range(repetitions or test.repetitions):
        # Everybody is first once: whoever is, may find the caches cold.
        turn = repetition % max(1, len(taking_part))
        for peer in taking_part[turn:] + taking_part[:turn]:
            if peer.name not in result.remarks:
                _sample(test, peer, result)
    return result


def _sample(test: Test, peer: Peer, result: Result) -> None:
    began_s = time.monotonic()
    try:
        sample = test.sample(peer)
    except (Failed, ProcessLookupError) as failure:
        # Not tried again: a limit costs a minute each time.
        good = len(result.samples[peer.name])
        result.remarks[peer.name] = f"{failure}, after {good} good repetitions" if good else str(failure)
        if isinstance(failure, Failed) and failure.figures:
            result.samples[peer.name].append(failure.figures)
        told = str(failure)
    else:
        result.samples[peer.name].append(sample)
        told = " ".join(f"{key}={value:.4g}" for key, value in sample.items())
    print(f"{test.name:24} {peer.name:32} {time.monotonic() - began_s:6.1f} s  {told}", file=sys.stderr, flush=True)
