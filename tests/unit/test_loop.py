"""The loop with real pipes and signals, and a clock that passes when told to."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from procman.loop import PATIENCE_TURNS, Loop
from tests.support.turns import Pipes, Turns


@pytest.fixture
def loop() -> Iterator[Turns]:
    made = Turns()
    yield made
    made.close()


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close_all()


# --- timers ---


def test_timers_fire_in_order_of_their_deadlines(loop: Turns) -> None:
    fired: list[str] = []
    for delay_s, name in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        loop.call_later(delay_s, lambda name=name: fired.append(name))  # type: ignore[misc]
    loop.turn()
    assert fired == []
    loop.pass_time(0.999)
    assert fired == []
    loop.pass_time(0.001)
    assert fired == ["a"]
    loop.pass_time(5)
    assert fired == ["a", "b", "c"]


def test_timers_with_one_deadline_fire_in_the_order_they_were_made(loop: Turns) -> None:
    fired: list[int] = []
    for number in range(10):
        loop.call_later(1.0, lambda number=number: fired.append(number))  # type: ignore[misc]
    loop.pass_time(1)
    assert fired == list(range(10))


def test_cancelled_timer_never_fires(loop: Turns) -> None:
    fired: list[str] = []
    loop.call_later(1.0, lambda: fired.append("kept"))
    loop.call_later(1.0, lambda: fired.append("cancelled")).cancel()
    loop.call_later(0.5, lambda: fired.append("cancelled")).cancel()
    loop.pass_time(2)
    assert fired == ["kept"]


def test_timer_cancelled_by_an_earlier_one_of_the_same_turn(loop: Turns) -> None:
    fired: list[str] = []
    late = loop.call_later(2.0, lambda: fired.append("late"))
    loop.call_later(1.0, late.cancel)
    loop.pass_time(5)
    assert fired == []


def test_timer_made_by_a_timer_waits_for_its_own_deadline(loop: Turns) -> None:
    fired: list[str] = []
    loop.call_later(1.0, lambda: loop.call_later(1.0, lambda: fired.append("second")))
    loop.pass_time(1)
    assert fired == []
    loop.pass_time(1)
    assert fired == ["second"]


def test_cancel_after_it_fired_is_harmless(loop: Turns) -> None:
    fired: list[str] = []
    timer = loop.call_later(1.0, lambda: fired.append("once"))
    loop.pass_time(1)
    timer.cancel()
    loop.pass_time(1)
    assert fired == ["once"]


@pytest.mark.parametrize("delay_s", [3e6, 1e9, 1e18, float("inf")])
def test_a_wait_longer_than_the_kernel_can_count(loop: Turns, delay_s: float) -> None:
    """poll(2) takes milliseconds in an int: 24.8 days."""
    fired: list[str] = []
    loop.call_later(delay_s, lambda: fired.append("far"))
    loop.turn()
    assert fired == []


def test_idle_loop_takes_no_turns() -> None:
    """Nobody polls: without a timer only a descriptor or a signal ends the wait. A cancelled timer is none."""

    class Counting(Loop):
        turns = 0

        def turn(self) -> None:
            self.turns += 1
            super().turn()

    loop = Counting()
    try:
        loop.call_later(0.001, loop.stop).cancel()
        loop.on_signal(signal.SIGALRM, loop.stop)
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        loop.run()
        assert loop.turns == 1
    finally:
        loop.close()


# --- descriptors ---


def test_reader_is_told_until_it_has_read(loop: Turns, pipes: Pipes) -> None:
    reader, writer = pipes.pipe()
    seen: list[bytes] = []
    loop.add_reader(reader, lambda: seen.append(os.read(reader, 2)))
    loop.turn()
    assert seen == []
    os.write(writer, b"abcd")
    loop.turn()
    loop.turn()
    loop.turn()
    assert seen == [b"ab", b"cd"]


def test_reader_is_told_of_the_end(loop: Turns, pipes: Pipes) -> None:
    reader, writer = pipes.pipe()
    seen: list[bytes] = []
    loop.add_reader(reader, lambda: seen.append(os.read(reader, 10)))
    pipes.close(writer)
    loop.turn()
    assert seen == [b""]


def test_writer_is_told_of_room(loop: Turns, pipes: Pipes) -> None:
    reader, writer = pipes.pipe()
    os.set_blocking(writer, False)
    told: list[str] = []
    loop.add_writer(writer, lambda: told.append("room"))
    loop.turn()
    assert told == ["room"]
    while True:
        try:
            os.write(writer, bytes(4096))
        except BlockingIOError:
            break
    loop.turn()
    assert told == ["room"]
    os.read(reader, 1 << 20)
    loop.turn()
    assert told == ["room", "room"]
    loop.remove_writer(writer)
    loop.turn()
    assert told == ["room", "room"]


def test_every_ready_descriptor_has_one_turn(loop: Turns, pipes: Pipes) -> None:
    """A flood on one does not keep the others waiting."""
    seen: list[int] = []
    for number in range(3):
        reader, writer = pipes.pipe()
        os.write(writer, bytes(1000))
        loop.add_reader(reader, lambda reader=reader, n=number: (os.read(reader, 1), seen.append(n)))  # type: ignore
    loop.turn()
    assert sorted(seen) == [0, 1, 2]
    loop.turn()
    assert sorted(seen[3:]) == [0, 1, 2]


def test_error_watch_tells_that_the_reader_has_gone(loop: Turns, pipes: Pipes) -> None:
    """POLLERR comes without being asked for, even while nothing is written."""
    reader, writer = pipes.pipe()
    told: list[str] = []
    loop.add_error(writer, lambda: (told.append("gone"), loop.remove(writer)))  # type: ignore[func-returns-value]
    loop.settle()
    assert told == []
    pipes.close(reader)
    loop.settle()
    assert told == ["gone"]


@pytest.mark.parametrize("victim", ["reader", "writer"])
def test_descriptor_removed_by_its_error_callback_is_not_told_more(loop: Turns, pipes: Pipes, victim: str) -> None:
    reader, writer = pipes.pipe()
    told: list[str] = []
    add = loop.add_reader if victim == "reader" else loop.add_writer
    add(writer, lambda: told.append(victim))
    pipes.close(reader)
    loop.add_error(writer, lambda: (told.append("error"), loop.remove(writer)))  # type: ignore[func-returns-value]
    loop.turn()
    assert told == ["error"]


def test_descriptor_removed_by_its_reader_is_not_told_to_write(loop: Turns) -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        told: list[str] = []
        loop.add_reader(ours.fileno(), lambda: (told.append("read"), loop.remove(ours.fileno())))  # type: ignore
        loop.add_writer(ours.fileno(), lambda: told.append("write"))
        loop.turn()
        assert told == ["read"]


def test_reader_and_writer_of_one_descriptor(loop: Turns) -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        told: list[str] = []
        loop.add_reader(ours.fileno(), lambda: told.append("read"))
        loop.add_writer(ours.fileno(), lambda: told.append("write"))
        theirs.send(b"x")
        loop.turn()
        assert told == ["read", "write"]
        loop.remove_writer(ours.fileno())
        loop.turn()
        assert told == ["read", "write", "read"]
        loop.remove(ours.fileno())
        loop.turn()
        assert told == ["read", "write", "read"]


def test_removal_inside_anothers_callback_of_the_same_turn(loop: Turns, pipes: Pipes) -> None:
    (first, first_end), (second, second_end) = pipes.pipe(), pipes.pipe()
    told: list[str] = []

    def read(mine: int, other: int) -> None:
        told.append("read")
        loop.remove(other)
        os.read(mine, 1)

    loop.add_reader(first, lambda: read(first, second))
    loop.add_reader(second, lambda: read(second, first))
    os.write(first_end, b"x")
    os.write(second_end, b"x")
    loop.turn()
    loop.turn()
    assert told == ["read"]


def test_a_new_descriptor_under_an_old_number_is_not_told_the_old_ones_news(loop: Turns, pipes: Pipes) -> None:
    (first, first_end), (second, second_end) = pipes.pipe(), pipes.pipe()
    told: list[str] = []

    def replace(mine: int, other: int) -> None:
        told.append("first")
        loop.remove(mine)
        loop.remove(other)
        quiet, _ = pipes.pipe()
        os.dup2(quiet, other)
        os.set_blocking(other, False)
        loop.add_reader(other, lambda: told.append("stale"))

    loop.add_reader(first, lambda: replace(first, second))
    loop.add_reader(second, lambda: replace(second, first))
    os.write(first_end, b"x")
    os.write(second_end, b"x")
    loop.turn()
    assert told == ["first"]


def test_removing_what_is_not_watched(loop: Turns, pipes: Pipes) -> None:
    reader, _ = pipes.pipe()
    loop.remove(reader)
    loop.remove_reader(reader)
    loop.remove_writer(reader)
    pipes.close(reader)
    loop.remove(reader)
    loop.remove_reader(reader)
    loop.remove_writer(reader)
    loop.turn()


# --- the end of a turn ---


def test_turn_end_comes_after_all_descriptors_and_once(loop: Turns, pipes: Pipes) -> None:
    order: list[str] = []
    for name in ("a", "b"):
        reader, writer = pipes.pipe()
        os.write(writer, b"x")

        def read(reader: int = reader, name: str = name) -> None:
            os.read(reader, 1)
            order.append(f"read {name}")
            loop.at_turn_end(lambda: order.append(f"end {name}"))

        loop.add_reader(reader, read)
    loop.turn()
    assert sorted(order[:2]) == ["read a", "read b"]
    assert order[2:] == [order[0].replace("read", "end"), order[1].replace("read", "end")]
    loop.turn()
    assert len(order) == 4


def test_what_a_timer_puts_off_goes_out_before_the_loop_waits(loop: Turns, pipes: Pipes) -> None:
    """Else it would wait for somebody else's event."""
    order: list[str] = []
    loop.call_later(1.0, lambda: loop.at_turn_end(lambda: order.append("end")))
    reader, writer = pipes.pipe()
    loop.add_reader(reader, lambda: (order.append("read"), os.read(reader, 1)))  # type: ignore[func-returns-value]
    os.write(writer, b"x")
    loop.pass_time(1)
    assert order == ["end", "read"]


def test_turn_end_that_puts_off_more(loop: Turns) -> None:
    order: list[str] = []
    loop.at_turn_end(lambda: (order.append("a"), loop.at_turn_end(lambda: order.append("b"))))  # type: ignore
    loop.turn()
    assert order == ["a", "b"]


# --- before the loop waits ---


def test_before_the_wait_comes_when_nothing_is_ready() -> None:
    loop = Loop()
    pipes = Pipes()
    try:
        order: list[str] = []
        reader, writer = pipes.pipe()

        def read() -> None:
            order.append(os.read(reader, 1).decode())
            loop.before_wait(lambda: order.append("calm"))

        loop.add_reader(reader, read)
        os.write(writer, b"ab")
        loop.turn()
        assert order == ["a"]
        loop.turn()
        assert order == ["a", "b"]
        loop.before_wait(loop.stop)  # else the next turn waits
        loop.turn()
        assert order == ["a", "b", "calm", "calm"]
    finally:
        loop.close()
        pipes.close_all()


def test_before_the_wait_comes_soon_however_busy_it_is(loop: Turns) -> None:
    """Somebody whose output is not shown may write all the time."""
    order: list[str] = []
    for run in (["first"], ["first", "second"]):
        loop.before_wait(lambda run=run: order.append(run[-1]))  # type: ignore[misc]
        for _ in range(PATIENCE_TURNS):
            Loop.turn(loop)  # one descriptor of it is always ready
            assert order == run[:-1]
        Loop.turn(loop)
        assert order == run


def test_before_the_wait_that_puts_off_more() -> None:
    """All of it comes before the wait: what a flush lets in may be the last for hours."""
    loop = Loop()
    try:
        order: list[str] = []

        def first() -> None:
            order.append("first")
            loop.before_wait(lambda: order.append("second"))
            loop.before_wait(loop.stop)
            loop.at_turn_end(lambda: order.append("end"))

        loop.before_wait(first)
        loop.turn()
        assert order == ["first", "end", "second"]
    finally:
        loop.close()


def test_what_was_put_off_comes_before_the_end(loop: Turns) -> None:
    """A stop in the middle of a busy turn loses no output."""
    order: list[str] = []
    loop.before_wait(lambda: order.append("calm"))
    loop.at_turn_end(loop.stop)
    Loop.turn(loop)
    assert order == []
    loop.run()
    assert order == ["calm"]


def test_stop_before_the_wait_does_not_wait_any_more() -> None:
    loop = Loop()
    try:
        loop.before_wait(loop.stop)
        loop.run()
    finally:
        loop.close()


# --- signals ---


def test_signal_ends_the_wait_and_runs_in_the_loop() -> None:
    loop = Loop()
    try:
        told: list[str] = []
        loop.on_signal(signal.SIGUSR1, lambda: (told.append("usr1"), loop.stop()))  # type: ignore[func-returns-value]
        # A timer of the kernel, which wakes the loop out of a wait without end.
        loop.on_signal(signal.SIGALRM, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        loop.run()
        assert told == ["usr1"]
    finally:
        loop.close()


def test_each_delivery_is_told_in_order(loop: Turns) -> None:
    told: list[str] = []
    loop.on_signal(signal.SIGUSR1, lambda: told.append("usr1"))
    loop.on_signal(signal.SIGUSR2, lambda: told.append("usr2"))
    for signum in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        signal.raise_signal(signum)
    assert told == []
    loop.turn()
    assert told == ["usr1", "usr2", "usr1"]


def _fits(fd: int) -> bool:
    try:
        return os.write(fd, bytes(4096)) > 0
    except BlockingIOError:
        return False


def test_signal_while_the_wakeup_pipe_is_full(loop: Turns) -> None:
    """The byte is only the wakeup: no signal is lost when there is no room for it."""
    told: list[int] = []
    loop.on_signal(signal.SIGUSR1, lambda: told.append(1))
    wakeup_fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup_fd, warn_on_full_buffer=False)
    while _fits(wakeup_fd):
        pass
    for _ in range(100):
        signal.raise_signal(signal.SIGUSR1)
    loop.turn()
    assert len(told) == 100
    loop.settle(100)
    signal.raise_signal(signal.SIGUSR1)
    loop.turn()
    assert len(told) == 101


def test_close_gives_the_signals_back() -> None:
    loop = Loop()
    loop.on_signal(signal.SIGUSR1, lambda: None)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_stop_in_a_timer_does_not_wait_any_more() -> None:
    """Nothing is ready and nothing is due: a loop that waited would never return."""
    loop = Loop()
    try:
        loop.call_later(0.0, loop.stop)
        loop.run()
    finally:
        loop.close()


def test_real_clock_is_monotonic() -> None:
    loop = Loop()
    try:
        assert loop.now is time.monotonic
    finally:
        loop.close()
