"""What is kept of the output: the end of it, in order, within bounds, and how much is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from procman.events import Exited, Output
from procman.ring import EVENT_BYTES, Ring


def output(name: str, block: bytes) -> Output:
    return Output(name, 1.0, block)


def test_in_order_of_all() -> None:
    ring = Ring(1000, 10_000)
    events = [output("a.1", b"1\n"), output("b.1", b"2\n"), Exited("a.1", 2.0, 0, 0), output("a.1", b"3\n")]
    for event in events:
        ring.write(event)
    assert ring.history(["a.1", "b.1"]) == (events, {})
    assert ring.history(["b.1", "nobody.1"]) == ([events[1]], {})


def test_the_oldest_goes_and_is_counted() -> None:
    ring = Ring(10, 10_000)
    for number in range(10):
        ring.write(output("a.1", b"%d234\n" % number))
    kept, dropped = ring.history(["a.1"])
    assert [event.block for event in kept if isinstance(event, Output)] == [b"8234\n", b"9234\n"]
    assert dropped == {"a.1": 40}


def test_of_a_large_block_its_last_lines_stay() -> None:
    ring = Ring(10, 10_000)
    ring.write(output("a.1", b"first\nsecond\nthird\n"))
    assert ring.history(["a.1"]) == ([output("a.1", b"third\n")], {"a.1": 13})


def test_of_a_line_that_is_too_long_its_end_stays() -> None:
    ring = Ring(4, 10_000)
    ring.write(output("a.1", b"x" * 10 + b"yz"))
    assert ring.history(["a.1"]) == ([output("a.1", b"xxyz")], {"a.1": 8})


def test_many_instances_share_the_total() -> None:
    ring = Ring(1000, 2000)
    for instance in range(10):
        for _ in range(300):
            ring.write(output(f"a.{instance}", b"1234\n"))
    kept, dropped = ring.history([f"a.{instance}" for instance in range(10)])
    assert sum(len(event.block) for event in kept if isinstance(event, Output)) <= 2000
    assert len(dropped) == 10


def test_nothing_may_be_kept() -> None:
    ring = Ring(0, 0)
    ring.write(output("a.1", b"1\n"))
    ring.write(Exited("a.1", 2.0, 0, 0))
    assert ring.history(["a.1"]) == ([], {"a.1": 2})
    assert ring.tail("a.1", 10) == b""


def test_tail() -> None:
    ring = Ring(1000, 1000)
    ring.write(output("a.1", b"one\ntw"))
    ring.write(Exited("a.1", 2.0, 0, 0))
    ring.write(output("a.1", b"o\n"))
    assert ring.tail("a.1", 6) == b"e\ntwo\n"
    assert ring.tail("nobody.1", 6) == b""


BLOCKS = st.lists(st.tuples(st.sampled_from(["a.1", "a.2", "b.1"]), st.binary(min_size=1, max_size=40)), max_size=60)


@given(BLOCKS, st.integers(0, 100), st.integers(0, 200))
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


def test_events_count_too() -> None:
    ring = Ring(3 * EVENT_BYTES, 10_000)
    for code in range(5):
        ring.write(Exited("a.1", 1.0, code, 0))
    kept, dropped = ring.history(["a.1"])
    assert [event.code for event in kept if isinstance(event, Exited)] == [2, 3, 4]
    assert dropped == {}
