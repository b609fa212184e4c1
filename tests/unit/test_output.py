"""The multiplexer with real pipes and a clock that passes when told to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procman.events import Event, Exited, Notice, Output
from procman.output import BUDGET_BYTES, DRAIN_BYTES, READ_BYTES, STREAM_SILENCE_S, Feed, Multiplexer
from tests.support.turns import Pipes, Turns

PROMPT_S = 0.15


class Run:
    """A multiplexer, its feeds, and every event it passed on."""

    def __init__(self, prompt_s: float = PROMPT_S, redraws: bool = False) -> None:
        self.loop = Turns()
        self.pipes = Pipes()
        self.events: list[Event] = []
        self.is_full = False
        self.multiplexer = Multiplexer(self.loop, self.events.append, lambda: self.is_full, prompt_s, redraws)
        self.feeds: dict[str, Feed] = {}
        self.writers: dict[str, int] = {}

    def add(self, *names: str) -> None:
        for name in names:
            reader, writer = self.pipes.pipe()
            os.set_blocking(writer, False)
            self.writers[name] = writer
            self.feeds[name] = self.multiplexer.add(name, reader)

    def say(self, name: str, data: bytes, turns: int = 1) -> None:
        """Write `data` as a child would, waiting where the pipe is full, then take turns."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self.writers[name], left) :]
            except BlockingIOError:
                self.loop.turn()
        self.loop.settle(turns)

    def end(self, name: str) -> None:
        self.pipes.close(self.writers.pop(name))
        self.loop.settle(2)

    def take(self) -> list[tuple[str, bytes]]:
        """Return what was passed on since the last time."""
        taken = [(event.name, event.block if isinstance(event, Output) else b"*") for event in self.events]
        self.events.clear()
        return taken

    def close(self) -> None:
        for feed in self.feeds.values():
            if feed.fd >= 0:
                self.pipes.fds.discard(feed.fd)
                self.multiplexer.close(feed)
        self.pipes.close_all()
        self.loop.close()


@pytest.fixture
def run() -> Iterator[Run]:
    made = Run()
    yield made
    made.close()


def test_bounds_are_the_documented_ones() -> None:
    """The tests below count in these names."""
    assert (STREAM_SILENCE_S, BUDGET_BYTES, DRAIN_BYTES, READ_BYTES) == (1.0, 2 << 20, 1 << 20, 64 << 10)


# --- whole lines and halves ---


def test_whole_lines_go_out_at_once_and_together(run: Run) -> None:
    run.add("a")
    run.say("a", b"one\ntwo\n\nthree\n")
    assert run.take() == [("a", b"one\ntwo\n\nthree\n")]


def test_bytes_stay_bytes(run: Run) -> None:
    run.add("a")
    every = bytes(byte for byte in range(256) if byte != 10)
    run.say("a", every + b"\r\n")
    assert run.take() == [("a", every + b"\r\n")]


def test_half_a_line_waits_for_its_newline(run: Run) -> None:
    run.add("a")
    run.say("a", b"one\nha")
    assert run.take() == [("a", b"one\n")]
    run.say("a", b"l")
    run.say("a", b"f\ntwo\nx")
    assert run.take() == [("a", b"half\ntwo\n")]
    run.say("a", b"\n")
    assert run.take() == [("a", b"x\n")]


def test_halves_of_two_are_never_mixed(run: Run) -> None:
    run.add("a", "b")
    for _ in range(3):
        run.say("a", b"a")
        run.say("b", b"b")
    run.say("b", b"\n")
    run.say("a", b"\n")
    assert run.take() == [("b", b"bbb\n"), ("a", b"aaa\n")]


def test_last_line_gets_a_newline_at_the_end_of_the_feed(run: Run) -> None:
    run.add("a")
    run.say("a", b"no newline")
    run.end("a")
    assert run.take() == [("a", b"no newline\n")]
    assert run.feeds["a"].fd == -1


def test_end_after_a_whole_line_adds_nothing(run: Run) -> None:
    run.add("a", "silent")
    run.say("a", b"line\n")
    run.end("a")
    run.end("silent")
    assert run.take() == [("a", b"line\n")]


def test_one_read_per_turn(run: Run) -> None:
    """A flood leaves the others their turn."""
    run.add("flood", "b")
    os.write(run.writers["flood"], b"x" * 1023 + b"\n" * (READ_BYTES - 1023))
    os.write(run.writers["b"], b"line\n")
    run.loop.turn()
    assert sorted(name for name, _ in run.take()) == ["b", "flood"]


# --- prompts ---


@pytest.mark.parametrize("prompt_s", [0.15, 1.0])
def test_prompt_is_shown_after_its_silence(prompt_s: float) -> None:
    run = Run(prompt_s)
    try:
        run.add("a")
        run.say("a", b"name? ")
        run.loop.pass_time(prompt_s - 0.001)
        assert run.take() == []
        run.loop.pass_time(0.002)
        assert run.take() == [("a", b"name? ")]
        run.say("a", b"Bob\n")
        assert run.take() == [("a", b"Bob\n")]
    finally:
        run.close()


def test_silence_begins_with_the_last_byte(run: Run) -> None:
    run.add("a")
    for piece in (b"d", b"o", b"t"):
        run.say("a", piece)
        run.loop.pass_time(PROMPT_S * 0.9)
    assert run.take() == []
    run.loop.pass_time(PROMPT_S * 0.2)
    assert run.take() == [("a", b"dot")]


def test_shown_line_goes_on_at_once_unless_another_spoke(run: Run) -> None:
    run.add("a", "b")
    run.say("a", b"> ")
    run.loop.pass_time(PROMPT_S)
    run.say("a", b"x")
    assert run.take() == [("a", b"> "), ("a", b"x")]
    run.say("b", b"line\n")
    run.say("a", b"y")
    assert run.take() == [("b", b"line\n")]
    run.say("a", b"z\n")
    assert run.take() == [("a", b"yz\n")]


def test_end_of_a_shown_line_is_passed_on(run: Run) -> None:
    run.add("a")
    run.say("a", b"> ")
    run.loop.pass_time(PROMPT_S)
    run.end("a")
    assert run.take() == [("a", b"> "), ("a", b"\n")]


def test_each_prompt_has_its_own_silence(run: Run) -> None:
    run.add("a", "b")
    run.say("a", b"a? ")
    run.loop.pass_time(0.1)
    run.say("b", b"b? ")
    run.loop.pass_time(0.06)
    assert run.take() == [("a", b"a? ")]
    run.loop.pass_time(0.1)
    assert run.take() == [("b", b"b? ")]


def test_redraws_are_shown_although_they_never_fall_silent() -> None:
    run = Run(redraws=True)
    try:
        run.add("a", "b")
        run.say("b", b"no redraw")
        for percent in range(10):
            run.loop.pass_time(0.05)
            run.say("a", b"\r%d%%" % percent)
            run.say("b", b".")
        shown = b"".join(block for name, block in run.take() if name == "a")
        assert shown.startswith(b"\r0%\r1%\r2%")
        assert len(shown.split(b"\r")) > 7
    finally:
        run.close()


def test_without_redraws_a_progress_bar_waits_for_silence(run: Run) -> None:
    run.add("a")
    for percent in range(10):
        run.loop.pass_time(0.05)
        run.say("a", b"\r%d%%" % percent)
    assert run.take() == []


def test_idle_has_no_timer(run: Run) -> None:
    run.add("a", "b")
    run.say("a", b"line\n")
    run.say("b", b"> ")
    run.loop.pass_time(PROMPT_S)
    run.loop.pass_time(PROMPT_S)
    assert run.loop.due() == 0


# --- a line longer than the budget ---


def test_long_line_takes_the_stream_and_others_wait(run: Run) -> None:
    run.add("long", "b")
    long = b"x" * (BUDGET_BYTES + READ_BYTES)
    run.say("long", long, turns=5)
    shown = run.take()
    assert {name for name, _ in shown} == {"long"}
    run.say("b", b"waits\n", turns=3)
    run.say("long", b"more")
    assert run.take() == [("long", b"more")]
    run.say("long", b"end\nnext", turns=3)
    assert run.take() == [("long", b"end\n"), ("b", b"waits\n")]
    assert b"".join(block for _, block in shown) == long
    run.say("long", b"\n")
    assert run.take() == [("long", b"next\n")]


def test_the_largest_half_line_takes_the_stream(run: Run) -> None:
    run.add("small", "large")
    run.say("small", b"s" * READ_BYTES, turns=3)
    run.say("large", b"l" * BUDGET_BYTES, turns=3)
    assert {name for name, _ in run.take()} == {"large"}
    run.say("large", b"\n", turns=3)
    run.say("small", b"\n")
    assert run.take() == [("large", b"\n"), ("small", b"s" * READ_BYTES + b"\n")]


def _stream(run: Run, name: str) -> None:
    run.say(name, b"x" * (BUDGET_BYTES + 1), turns=5)
    assert {taken for taken, _ in run.take()} == {name}


def test_silence_gives_the_stream_to_others(run: Run) -> None:
    run.add("long", "b")
    _stream(run, "long")
    run.say("b", b"waits\n", turns=3)
    run.loop.pass_time(STREAM_SILENCE_S * 0.9)
    assert run.take() == []
    run.loop.pass_time(STREAM_SILENCE_S * 0.2)
    run.loop.settle(3)
    assert run.take() == [("b", b"waits\n")]
    run.say("long", b"rest\n")
    assert run.take() == [("long", b"rest\n")]


def test_no_silence_while_it_goes_on_speaking(run: Run) -> None:
    run.add("long", "b")
    _stream(run, "long")
    run.say("b", b"waits\n", turns=3)
    for _ in range(5):
        run.loop.pass_time(STREAM_SILENCE_S * 0.9)
        run.say("long", b".")
    assert {name for name, _ in run.take()} == {"long"}


def test_silent_long_line_leaves_no_timer(run: Run) -> None:
    run.add("long", "b")
    _stream(run, "long")
    run.loop.pass_time(PROMPT_S * 2)
    run.loop.pass_time(STREAM_SILENCE_S)
    run.loop.pass_time(STREAM_SILENCE_S)
    assert run.loop.due() == 0


def test_silence_of_one_that_may_not_be_read_is_no_silence(run: Run) -> None:
    run.add("long", "b")
    _stream(run, "long")
    run.say("b", b"waits\n", turns=3)
    run.is_full = True
    run.say("long", b"unread", turns=3)
    run.loop.pass_time(STREAM_SILENCE_S * 2)
    assert run.take() == []
    run.is_full = False
    run.multiplexer.resume()
    run.loop.settle(3)
    assert run.take() == [("long", b"unread")]


def test_events_of_others_wait_for_the_long_line_in_order(run: Run) -> None:
    run.add("long", "b")
    _stream(run, "long")
    run.multiplexer.emit(Notice("system", 1.0, "first"))
    run.multiplexer.emit(Exited("b", 2.0, 0, 0))
    run.multiplexer.emit(Notice("system", 3.0, "last"))
    run.say("long", b"piece")
    assert run.take() == [("long", b"piece")]
    run.say("long", b"end\n")
    assert [event.name for event in run.events] == ["long", "system", "b", "system"]
    assert run.events[1:] == [Notice("system", 1.0, "first"), Exited("b", 2.0, 0, 0), Notice("system", 3.0, "last")]


def test_delayed_events_do_not_wait_for_ever(run: Run) -> None:
    run.add("long")
    _stream(run, "long")
    run.multiplexer.emit(Notice("system", 1.0, "waits"))
    run.loop.pass_time(STREAM_SILENCE_S * 1.1)
    assert run.take() == [("system", b"*")]


def test_own_events_of_the_long_line_come_in_place(run: Run) -> None:
    run.add("long")
    _stream(run, "long")
    run.multiplexer.drain(run.feeds["long"])
    run.multiplexer.emit(Exited("long", 1.0, 0, 0))
    assert run.take() == [("long", b"\n"), ("long", b"*")]


def test_drained_output_of_another_comes_before_its_exit_and_behind_the_long_line(run: Run) -> None:
    run.add("long", "b")
    _stream(run, "long")
    os.write(run.writers["b"], b"last words")
    run.multiplexer.drain(run.feeds["b"])
    run.multiplexer.emit(Exited("b", 1.0, 0, 0))
    run.say("long", b"end\n")
    assert run.take() == [("long", b"end\n"), ("b", b"last words\n"), ("b", b"*")]


def test_end_of_the_long_line_by_the_end_of_its_feed(run: Run) -> None:
    run.add("long", "b")
    _stream(run, "long")
    run.say("b", b"waits\n", turns=3)
    run.end("long")
    run.loop.settle(3)
    assert run.take() == [("long", b"\n"), ("b", b"waits\n")]


def test_new_feed_of_the_same_name_does_not_speak_into_the_long_line(run: Run) -> None:
    """A grandchild still has the old pipe when its instance runs again."""
    run.add("web.1")
    _stream(run, "web.1")
    reader, writer = run.pipes.pipe()
    again = run.multiplexer.add("web.1", reader)
    os.write(writer, b"new\n")
    run.multiplexer.drain(again)
    run.say("web.1", b"old\n")
    assert run.take() == [("web.1", b"old\n"), ("web.1", b"new\n")]
    run.multiplexer.close(again)


def test_prompt_timers_do_not_multiply(run: Run) -> None:
    run.add("long", "b")
    for _ in range(5):
        run.say("b", b"half")
        _stream(run, "long")
        run.say("long", b"end\nhalf", turns=3)
        run.take()
    assert run.loop.due() <= 1


# --- drains, pauses, closing ---


def test_drain_reads_what_is_there_and_ends_the_line(run: Run) -> None:
    run.add("a")
    os.write(run.writers["a"], b"one\ntwo")
    run.multiplexer.drain(run.feeds["a"])
    assert run.take() == [("a", b"one\n"), ("a", b"two\n")]
    run.say("a", b"grandchild\n")
    assert run.take() == [("a", b"grandchild\n")]


def test_drain_has_a_limit(run: Run) -> None:
    """Whoever goes on writing must not keep the end from being told."""
    fcntl = pytest.importorskip("fcntl")
    run.add("a")
    size = fcntl.fcntl(run.writers["a"], fcntl.F_SETPIPE_SZ, DRAIN_BYTES)
    assert size == DRAIN_BYTES
    written = os.write(run.writers["a"], b"x\n" * (DRAIN_BYTES // 2))
    other = Endless(run, "a")
    run.multiplexer.drain(run.feeds["a"])
    drained = sum(len(block) for _, block in run.take())
    assert written <= drained <= DRAIN_BYTES + READ_BYTES
    assert other.written > 0


class Endless:
    """Fills the pipe again whenever something of it was passed on."""

    def __init__(self, run: Run, name: str) -> None:
        self.written = 0
        events, writer = run.events, run.writers[name]

        def emit(event: Event) -> None:
            events.append(event)
            try:
                self.written += os.write(writer, b"y\n" * (READ_BYTES // 2))
            except BlockingIOError:
                pass

        run.multiplexer._emit = emit


def test_pauses_when_full_and_resumes(run: Run) -> None:
    run.add("a", "b")
    run.is_full = True
    run.say("a", b"waits\n", turns=3)
    run.say("b", b"too\n", turns=3)
    assert run.take() == []
    run.is_full = False
    run.loop.settle(3)
    assert run.take() == []  # nobody looks without being told
    run.multiplexer.resume()
    run.loop.settle(3)
    assert sorted(run.take()) == [("a", b"waits\n"), ("b", b"too\n")]


def test_one_that_may_not_be_read_shows_no_prompt(run: Run) -> None:
    """It is we who do not read: the rest of its line may well be in the pipe."""
    run.add("a")
    run.say("a", b"half a ")
    run.is_full = True
    run.say("a", b"line\n", turns=3)
    run.loop.pass_time(PROMPT_S * 10)
    run.loop.settle(3)
    assert run.take() == []
    run.is_full = False
    run.multiplexer.resume()
    run.loop.settle(3)
    assert run.take() == [("a", b"half a line\n")]


def test_full_holds_the_child_back(run: Run) -> None:
    run.add("a")
    run.is_full = True
    os.write(run.writers["a"], b"x" * 65_535 + b"\n")
    run.loop.settle(3)
    with pytest.raises(BlockingIOError):
        os.write(run.writers["a"], b"more\n")
    assert run.take() == []


def test_feed_closed_while_paused_is_not_read_again(run: Run) -> None:
    run.add("a")
    run.is_full = True
    run.say("a", b"waits\n", turns=3)
    run.pipes.fds.discard(run.feeds["a"].fd)
    run.multiplexer.close(run.feeds["a"])
    run.is_full = False
    run.multiplexer.resume()
    run.loop.settle(3)
    assert run.take() == []


def test_drain_does_not_ask_whether_there_is_room(run: Run) -> None:
    """The end must not wait for a slow reader: it was asked for once and is bounded."""
    run.add("a")
    run.is_full = True
    run.say("a", b"last words", turns=3)
    run.multiplexer.drain(run.feeds["a"])
    assert b"".join(block for _, block in run.take()) == b"last words\n"


def test_end_of_a_pty_is_an_end(run: Run) -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    feed = run.multiplexer.add("a", master)
    os.write(slave, b"hello")
    run.loop.settle(3)
    os.close(slave)
    run.loop.settle(3)
    assert run.take() == [("a", b"hello\n")]
    assert feed.fd == -1


def test_closing_twice_is_harmless(run: Run) -> None:
    run.add("a")
    run.say("a", b"x")
    run.end("a")
    run.multiplexer.close(run.feeds["a"])
    run.multiplexer.drain(run.feeds["a"])
    assert run.take() == [("a", b"x\n")]


# --- whatever happens ---

LINE = st.sampled_from([b"", b"x", b"line", b"\r50%", b"y" * 300, b"\xff\xc3"])


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_feed_arrives_whole(data: st.DataObject) -> None:
    run = Run(redraws=data.draw(st.booleans()))
    try:
        names = [f"web.{number}" for number in range(1, data.draw(st.integers(2, 4)) + 1)]
        run.add(*names)
        left = {name: b"\n".join(data.draw(st.lists(LINE, max_size=8))) for name in names}
        expected = dict(left)
        while any(left.values()):
            name = data.draw(st.sampled_from([name for name in names if left[name]]))
            size = data.draw(st.integers(1, max(1, len(left[name]))))
            if data.draw(st.integers(0, 9)) == 0:
                run.is_full = not run.is_full
            run.say(name, left[name][:size], turns=data.draw(st.integers(0, 2)))
            left[name] = left[name][size:]
            if data.draw(st.integers(0, 5)) == 0:
                run.loop.pass_time(data.draw(st.sampled_from([0.01, PROMPT_S, 2.0])))
            if not run.is_full:
                run.multiplexer.resume()
        run.is_full = False
        run.multiplexer.resume()
        run.loop.settle()
        for name in names:
            run.end(name)
        _check_whole(run.events, expected)
    finally:
        run.close()


def _check_whole(events: list[Event], expected: dict[str, bytes]) -> None:
    arrived = dict.fromkeys(expected, b"")
    for event in events:
        assert isinstance(event, Output)
        arrived[event.name] += event.block
    for name, whole in expected.items():
        ended = whole if whole.endswith(b"\n") or not whole else whole + b"\n"
        assert arrived[name] == ended


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.booleans()), min_size=20, max_size=60))
def test_held_bytes_stay_in_bounds(steps: list[tuple[int, int, bool]]) -> None:
    """What was read and not passed on: the budget, and one read of each feed."""
    run = Run()
    try:
        names = [f"web.{number}" for number in range(4)]
        run.add(*names)
        written = passed = 0
        for number, blocks, ends in steps:
            data = bytes([97 + number]) * (blocks * READ_BYTES // 2) + (b"\n" if ends else b"")
            try:
                written += os.write(run.writers[names[number]], data)
            except BlockingIOError:
                pass
            run.loop.settle(3)
            passed += sum(len(block) for _, block in run.take())
            unread = sum(_unread(feed.fd) for feed in run.feeds.values())
            assert written - passed - unread <= BUDGET_BYTES + len(names) * READ_BYTES
    finally:
        run.close()


def _unread(fd: int) -> int:
    import array
    import fcntl
    import termios

    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]


@pytest.mark.parametrize("piece", [1, 7, READ_BYTES, READ_BYTES + 1])
def test_ten_megabyte_line_arrives_whole(run: Run, piece: int) -> None:
    run.add("long", "b")
    size = 10_000_000 if piece > 100 else 5_000
    whole = bytes(range(11, 250)) * (size // 239) + b"\n"
    for at in range(0, len(whole), max(piece, len(whole) // 200)):
        run.say("long", whole[at : at + max(piece, len(whole) // 200)])
    run.loop.settle(5)
    assert b"".join(block for _, block in run.take()) == whole
