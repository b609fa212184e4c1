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


PATIENCE_S = 20


def run(test: Test, peers: list[Peer], repetitions: int | None) -> Result:
    peers = [peer for peer in peers if peer.takes_part(test.name) and (not peer.is_floor or peer.name in test.floors)]
    refusals = {peer.name: why for peer in peers if not peer.is_floor and (why := test.refuses(peer))}
    waiting = [peer for peer in peers if peer.name not in refusals]
    result = Result(test, {peer.name: [] for peer in waiting}, refusals)
    for _ in range(repetitions or test.repetitions):
        waiting = [peer for peer in waiting if _sample(test, peer, result)]
        # Everybody is first once: whoever is, may find the caches cold.
        waiting = waiting[1:] + waiting[:1]
    return result


def _sample(test: Test, peer: Peer, result: Result) -> bool:
    """Take one sample; return whether another is worth its time. What fails by a limit costs a minute each time."""
    began_s = time.monotonic()
    is_worth_more = True
    try:
        sample = test.sample(peer)
        told = " ".join(f"{key}={value:.4g}" for key, value in sample.items())
    except (Failed, ProcessLookupError) as failure:
        sample = failure.figures if isinstance(failure, Failed) else {}
        told = str(failure)
        result.remarks[peer.name] = str(failure)
        is_worth_more = bool(sample) and time.monotonic() - began_s < PATIENCE_S
    if sample:
        result.samples[peer.name].append(sample)
    print(f"{test.name:24} {peer.name:32} {time.monotonic() - began_s:6.1f} s  {told}", file=sys.stderr, flush=True)
    return is_worth_more
