"""What is kept of each instance's output, and how much memory that takes."""

from __future__ import annotations

import tracemalloc

from procman.events import Exited, Output
from procman.ring import EVENT_BYTES, INSTANCE_BYTES, TOTAL_BYTES, Ring


def test_memory_is_bounded_however_short_the_lines() -> None:
    """An event takes more than its line: 65,536 bytes of lines of seven bytes would be 2 MB."""
    tracemalloc.start()
    try:
        ring = Ring()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(30_000):
            ring.write(Output("web.1", number + 0.5, b"line %d\n" % (number % 10)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * INSTANCE_BYTES


def test_last_lines_of_a_large_block_are_kept_whole() -> None:
    ring = Ring()
    ring.write(Output("web.1", 1.0, b"a line\n" * 100_000))
    [event], dropped = ring.history(["web.1"])
    assert isinstance(event, Output)
    assert INSTANCE_BYTES - EVENT_BYTES - 7 <= len(event.block) <= INSTANCE_BYTES - EVENT_BYTES
    assert event.block.startswith(b"a line\n")
    assert dropped == {"web.1": 700_000 - len(event.block)}


def test_what_drops_out_is_counted_in_bytes_of_output() -> None:
    ring = Ring(instance_bytes=3 * (EVENT_BYTES + 5))
    for number in range(5):
        ring.write(Output("web.1", 1.0, b"ab %d\n" % number))
    kept, dropped = ring.history(["web.1"])
    assert [event.block for event in kept if isinstance(event, Output)] == [b"ab 2\n", b"ab 3\n", b"ab 4\n"]
    assert dropped == {"web.1": 10}
    ring.write(Exited("web.1", 2.0, 0, 0))
    assert len(ring.history(["web.1"])[0]) == 3


def test_many_instances_share_a_bound() -> None:
    ring = Ring()
    for number in range(1000):
        ring.write(Output(f"web.{number}", 1.0, b"x" * INSTANCE_BYTES))
    kept, _ = ring.history([f"web.{number}" for number in range(1000)])
    assert sum(len(event.block) for event in kept if isinstance(event, Output)) <= TOTAL_BYTES
