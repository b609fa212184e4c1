"""The benchmarks find every fault of a stream of numbered lines: a checker that finds nothing proves nothing."""

from __future__ import annotations

import pytest

from benchmarks.children.flood import cycle_lines, line
from benchmarks.lines import Faults, check

LENGTH = 100


def stream(child: int, count: int) -> list[bytes]:
    cycle = cycle_lines(LENGTH)
    return [b"18:29:53 w%d.1 | " % child + line(child, number % cycle, LENGTH) for number in range(count)]


def faults(lines: list[bytes], counts: dict[int, int], has_names: bool = True) -> Faults:
    return check(memoryview(b"".join(lines)), counts, LENGTH, has_names)


def test_all_is_there_over_several_cycles_and_slices():
    count = 5 * cycle_lines(LENGTH)
    assert faults(stream(0, count), {0: count}) == (0, 0, 0)


def test_children_may_take_turns_in_any_way():
    one, two = stream(0, 50), stream(1, 70)
    assert faults(two[:9] + one + [b"17:00:00 system | a notice\n"] + two[9:], {0: 50, 1: 70}) == (0, 0, 0)


def test_colours_and_carriage_returns_of_a_tool_are_no_fault():
    lines = [b"\x1b[31m" + whole[:-1] + b"\x1b[0m\r\n" for whole in stream(0, 9)]
    assert faults(lines, {0: 9}) == (0, 0, 0)


@pytest.mark.parametrize("at", [0, 4, 9], ids=["first", "middle", "last"])
def test_a_lost_line(at: int):
    lines = stream(0, 10)
    del lines[at]
    assert faults(lines, {0: 10}) == (1, 0, 0)


def test_a_line_cut_in_two():
    lines = stream(0, 10)
    lines[4] = lines[4][:60] + b"\n" + lines[4][60:]
    assert faults(lines, {0: 10}) == (1, 2, 0)


def test_a_line_within_another():
    lines = stream(0, 10)
    other = stream(1, 1)[0]
    lines[4] = lines[4][:60] + other + lines[4][60:]
    assert faults(lines, {0: 10, 1: 1}) == (2, 2, 0)


def test_two_lines_without_a_newline_between():
    lines = stream(0, 10)
    lines[4] = lines[4][:-1]
    assert faults(lines, {0: 10}) == (2, 1, 0)


def test_lines_out_of_order():
    lines = stream(0, 10)
    lines[4], lines[5] = lines[5], lines[4]
    assert faults(lines, {0: 10}) == (0, 0, 1)


def test_the_name_of_another_child():
    lines = stream(0, 10)
    lines[4] = lines[4].replace(b"w0.1", b"w1.1")
    assert faults(lines, {0: 10, 1: 0}) == (1, 1, 0)
    assert faults(lines, {0: 10, 1: 0}, has_names=False) == (0, 0, 0)


def test_a_line_twice():
    lines = stream(0, 10)
    lines.insert(4, lines[4])
    lost, _, reordered = faults(lines, {0: 10})
    assert (lost, reordered) == (-1, 1)
