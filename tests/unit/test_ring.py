"""What is kept of the output: the end of it, in order, within bounds, and how much is missing."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from procman.events import Exited, Output
from procman.ring import EVENT_BYTES, Ring

KEEP = 64 * 1024
TOTAL = 16 * 1024 * 1024


def output(name: str, block: bytes) -> Output:
    return Output(name, 1.0, block)


def room(*sizes: int) -> int:
    """Return what events with so many bytes of output take."""
    return sum(size + EVENT_BYTES for size in sizes)


def test_in_order_of_all() -> None:
    ring = Ring(KEEP, TOTAL)
    events = [output("a.1", b"1\n"), output("b.1", b"2\n"), Exited("a.1", 2.0, 0, 0), output("a.1", b"3\n")]
    for event in events:
        ring.write(event)
    assert ring.history(["a.1", "b.1"]) == (events, {})
    assert ring.history(["b.1", "nobody.1"]) == ([events[1]], {})


def test_the_oldest_goes_and_is_counted_in_bytes_of_output() -> None:
    ring = Ring(room(5, 5, 5), TOTAL)
    for number in range(5):
        ring.write(output("a.1", b"ab %d\n" % number))
    kept, dropped = ring.history(["a.1"])
    assert [event.block for event in kept if isinstance(event, Output)] == [b"ab 2\n", b"ab 3\n", b"ab 4\n"]
    assert dropped == {"a.1": 10}
    ring.write(Exited("a.1", 2.0, 0, 0))
    assert len(ring.history(["a.1"])[0]) == 3


def test_of_a_large_block_its_last_lines_stay() -> None:
    ring = Ring(room(10), TOTAL)
    ring.write(output("a.1", b"first\nsecond\nthird\n"))
    assert ring.history(["a.1"]) == ([output("a.1", b"third\n")], {"a.1": 13})


def test_behind_a_block_that_fills_it_little_is_lost_with_each_line() -> None:
    """Not the whole block with the first line that comes behind it."""
    ring = Ring(KEEP, TOTAL)
    block = b"".join(b"%07d\n" % number for number in range(KEEP // 8))
    ring.write(output("a.1", block))
    ring.write(output("a.1", b"behind\n"))
    kept, dropped = ring.history(["a.1"])
    text = b"".join(event.block for event in kept if isinstance(event, Output))
    assert (block + b"behind\n").endswith(text)
    assert len(text) > KEEP * 7 // 8
    assert text[:8].rstrip(b"\n").isdigit()  # it begins with a whole line
    assert len(text[:8]) == len(block[:8])
    assert dropped == {"a.1": len(block) + len(b"behind\n") - len(text)}


def test_of_a_line_that_is_too_long_its_end_stays() -> None:
    ring = Ring(room(4), TOTAL)
    ring.write(output("a.1", b"x" * 10 + b"yz"))
    assert ring.history(["a.1"]) == ([output("a.1", b"xxyz")], {"a.1": 8})


def test_memory_is_bounded_however_short_the_lines() -> None:
    """An event takes more than its line: 65,536 bytes of lines of seven bytes would be 2 MB."""
    tracemalloc.start()
    try:
        ring = Ring(KEEP, TOTAL)
        before, _ = tracemalloc.get_traced_memory()
        for number in range(30_000):
            ring.write(Output("web.1", number + 0.5, b"line %d\n" % (number % 10)))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 2 * KEEP


def test_many_instances_share_the_total() -> None:
    names = [f"web.{number}" for number in range(1000)]
    ring = Ring(KEEP, TOTAL)
    for name in names:
        ring.write(output(name, b"x" * KEEP))
    kept, dropped = ring.history(names)
    assert sum(len(event.block) for event in kept if isinstance(event, Output)) <= TOTAL
    assert len(dropped) == 1000


def test_nothing_may_be_kept() -> None:
    ring = Ring(0, 0)
    ring.write(output("a.1", b"1\n"))
    ring.write(Exited("a.1", 2.0, 0, 0))
    assert ring.history(["a.1"]) == ([], {"a.1": 2})
    assert ring.tail("a.1", 10) == b""


def test_tail() -> None:
    ring = Ring(KEEP, TOTAL)
    ring.write(output("a.1", b"one\ntw"))
    ring.write(Exited("a.1", 2.0, 0, 0))
    ring.write(output("a.1", b"o\n"))
    assert ring.tail("a.1", 6) == b"e\ntwo\n"
    assert ring.tail("nobody.1", 6) == b""


BLOCKS = st.lists(st.tuples(st.sampled_from(["a.1", "a.2", "b.1"]), st.binary(min_size=1, max_size=40)), max_size=60)


@given(BLOCKS, st.integers(0, 10 * EVENT_BYTES), st.integers(0, 20 * EVENT_BYTES))
def test_kept_and_dropped_are_all(blocks: list[tuple[str, bytes]], instance_bytes: int, total_bytes: int) -> None:
    ring = Ring(instance_bytes, total_bytes)
    for name, block in blocks:
        ring.write(output(name, block))
    for name in {name for name, _ in blocks}:
        written = b"".join(block for of, block in blocks if of == name)
        kept, dropped = ring.history([name])
        text = b"".join(event.block for event in kept if isinstance(event, Output))
        assert written.endswith(text)
        assert len(text) + dropped.get(name, 0) == len(written)
        assert len(text) <= instance_bytes


def test_with_a_limit_the_last_lines_and_how_much_came_before_them() -> None:
    ring = Ring(KEEP, TOTAL)
    for number in range(5):
        ring.write(output("a.1", b"ab %d\ncd\n" % number))
    assert ring.history(["a.1"], 16) == ([output("a.1", b"ab 3\ncd\n"), output("a.1", b"ab 4\ncd\n")], {"a.1": 24})
    assert ring.history(["a.1"], 12) == ([output("a.1", b"cd\n"), output("a.1", b"ab 4\ncd\n")], {"a.1": 29})
    assert ring.history(["a.1"], 5) == ([output("a.1", b"cd\n")], {"a.1": 37})
    assert ring.history(["a.1"], 0) == ([], {"a.1": 40})
    assert ring.history(["a.1"], 10_000) == ring.history(["a.1"])


@given(st.lists(st.binary(min_size=1, max_size=9)), st.integers(0, 60))
def test_with_a_limit_nothing_is_counted_wrong(blocks: list[bytes], limit: int) -> None:
    ring = Ring(room(5, 5, 5), TOTAL)
    for block in blocks:
        ring.write(output("a.1", block))
    kept, missing = ring.history(["a.1"], limit)
    text = b"".join(event.block for event in kept if isinstance(event, Output))
    assert len(text) <= limit
    assert b"".join(blocks)[missing.get("a.1", 0) :] == text
