"""The stream for people, byte for byte."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procman.events import SYSTEM, Event, Exited, GaveUp, Notice, Output, Ready, Restarting, Started, Stopping
from procman.output import Feed, Multiplexer
from procman.sinks.console import Console, Style, signal_name
from tests.support.turns import Pipes, Turns

TYPES = ["web", "worker", "clock", "redis", "mail", "queue", "assets", "cron"]
NOON = time.mktime((2024, 5, 1, 12, 0, 0, 0, 0, -1))


class Paper:
    """Stands where a Stream would, and keeps what is written."""

    is_idle = True

    def __init__(self) -> None:
        self.text = b""

    def write(self, *buffers: bytes | memoryview) -> None:
        for buffer in buffers:
            self.text += buffer

    def flush(self) -> None:
        self.text += b"<flushed>"


class Shown:
    def __init__(self, **style: Any) -> None:
        self.paper = Paper()
        self.console = Console(self.paper, Style(**{"width": 6, **style}), TYPES.index)  # type: ignore[arg-type]

    def __call__(self, *events: Event) -> bytes:
        """Write `events`; return what came of them."""
        self.paper.text = b""
        for event in events:
            self.console.write(event)
        return self.paper.text


def out(block: bytes, name: str = "web.1", at: float = NOON) -> Output:
    return Output(name, at, block)


# --- the shape ---


def test_shape_is_foremans() -> None:
    shown = Shown(width=8)
    assert shown(out(b"hello\n")) == b"12:00:00 web.1    | hello\n"
    assert shown(out(b"x\n", "worker.1", NOON + 61.9)) == b"12:01:01 worker.1 | x\n"
    assert shown(Notice(SYSTEM, NOON, "sending SIGTERM to all processes")) == (
        b"12:00:00 system   | sending SIGTERM to all processes\n"
    )


def test_every_line_has_its_prefix() -> None:
    shown = Shown(has_timestamp=False)
    assert shown(out(b"one\n\ntwo\n")) == b"web.1  | one\nweb.1  | \nweb.1  | two\n"
    assert shown(out(b"\n")) == b"web.1  | \n"


def test_a_name_longer_than_the_column_is_whole() -> None:
    assert Shown(has_timestamp=False)(out(b"x\n", "worker.10")) == b"worker.10 | x\n"


def test_every_byte_passes() -> None:
    every = bytes(byte for byte in range(256) if byte != 10)
    assert Shown(has_timestamp=False)(out(every + b"\n")) == b"web.1  | " + every + b"\n"


def test_no_timestamp_and_no_prefix() -> None:
    assert Shown(has_timestamp=False)(out(b"x\n")) == b"web.1  | x\n"
    bare = Shown(has_prefix=False)
    assert bare(out(b"x\n\ny\n")) == b"x\n\ny\n"
    assert bare(Notice(SYSTEM, NOON, "text")) == b"text\n"
    assert Shown(has_prefix=False, has_colour=True)(out(b"x\n")) == b"x\n"


def test_clock_follows_the_event_not_the_reader() -> None:
    shown = Shown()
    assert shown(out(b"a\n", at=NOON + 0.99), out(b"b\n", at=NOON + 1.0), out(b"c\n", at=NOON + 0.5)) == (
        b"12:00:00 web.1  | a\n12:00:01 web.1  | b\n12:00:00 web.1  | c\n"
    )


def test_prefixes_of_a_second_are_each_their_own() -> None:
    shown = Shown()
    for second in range(3):
        for name in ("web.1", "web.2", "worker.1"):
            found = shown(out(b"x\n", name, NOON + second))
            assert found == f"12:00:0{second} {name:<6} | x\n".encode()


# --- procman's own lines ---


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Started("web.1", NOON, 123, 5000), b"web.1  | started with pid 123\n"),
        (Exited("web.1", NOON, 3, 0), b"web.1  | exited with code 3\n"),
        (Exited("web.1", NOON, 143, 15), b"web.1  | terminated by SIGTERM\n"),
        (Exited("web.1", NOON, 128 + 40, 40), b"web.1  | terminated by signal 40\n"),
        (Restarting("web.1", NOON, 1.0), b"web.1  | restarting in 1 s\n"),
        (Restarting("web.1", NOON, 0.5), b"web.1  | restarting in 0.5 s\n"),
        (GaveUp("web.1", NOON, "failed 5 times in 60 s, giving up"), b"web.1  | failed 5 times in 60 s, giving up\n"),
        (Notice("web.1", NOON, "told"), b"web.1  | told\n"),
        (Notice(SYSTEM, NOON, "näme \udcff"), "system | näme ".encode() + b"\xff\n"),
        (Ready("web.1", NOON), b""),
        (Stopping("web.1", NOON, 15), b""),
    ],
)
def test_own_lines(event: Event, text: bytes) -> None:
    assert Shown(has_timestamp=False)(event) == text


def test_signal_names() -> None:
    assert [signal_name(signum) for signum in (9, 15, 40)] == ["SIGKILL", "SIGTERM", "signal 40"]


# --- muted ---


def test_muted_types_have_no_output_but_their_events() -> None:
    shown = Shown(has_timestamp=False, muted=frozenset({"worker"}))
    assert shown(out(b"x\n", "worker.1"), out(b"y\n", "worker.12"), out(b"half", "worker.1")) == b""
    assert shown(out(b"z\n")) == b"web.1  | z\n"
    assert shown(Exited("worker.1", NOON, 1, 0)) == b"worker.1 | exited with code 1\n"


# --- colours ---

CODES = ["36", "33", "32", "35", "31", "34"]


@pytest.mark.parametrize("index", range(8))
def test_colour_is_the_types_and_its_second_six_are_bright(index: int) -> None:
    name = TYPES[index]
    bright = "\x1b[1m" if index >= 6 else ""
    colour = f"\x1b[{CODES[index % 6]}m{bright}"
    for instance in (1, 2):
        found = Shown(has_colour=True)(out(b"x\ny\n", f"{name}.{instance}"))
        line = f"{colour}12:00:00 {f'{name}.{instance}':<6} | \x1b[0m"
        assert found == f"{line}x\n{line}y\n".encode()


def test_system_has_colour_37() -> None:
    assert Shown(has_colour=True)(Notice(SYSTEM, NOON, "x")) == b"\x1b[37m12:00:00 system | \x1b[0mx\n"


# --- unfinished lines ---


@pytest.fixture
def shown() -> Shown:
    return Shown(has_timestamp=False)


def test_prompt_is_shown_and_goes_on(shown: Shown) -> None:
    assert shown(out(b"name? ")) == b"web.1  | name? "
    assert shown(out(b"Bob")) == b"Bob"
    assert shown(out(b"\n")) == b"\n"
    assert shown(out(b"hello\n")) == b"web.1  | hello\n"


def test_lines_before_a_prompt(shown: Shown) -> None:
    assert shown(out(b"one\ntwo\n> ")) == b"web.1  | one\nweb.1  | two\nweb.1  | > "
    assert shown(out(b"x\nthree\n> ")) == b"x\nweb.1  | three\nweb.1  | > "
    assert shown(out(b"y\nfour\n")) == b"y\nweb.1  | four\n"


def test_another_closes_the_prompt_first(shown: Shown) -> None:
    shown(out(b"> "))
    assert shown(out(b"line\n", "web.2")) == b"\nweb.2  | line\n"
    assert shown(out(b"line\n", "web.2")) == b"web.2  | line\n"


def test_rest_of_a_cut_line_has_a_prefix_of_its_own(shown: Shown) -> None:
    shown(out(b"> "), out(b"line\n", "web.2"))
    assert shown(out(b"rest\n")) == b"web.1  | rest\n"
    assert shown(out(b"\n")) == b"web.1  | \n"


def test_newline_of_a_cut_line_is_not_shown_twice(shown: Shown) -> None:
    shown(out(b"> "), out(b"line\n", "web.2"))
    assert shown(out(b"\n")) == b""
    assert shown(out(b"\n")) == b"web.1  | \n"


def test_newline_of_a_cut_line_with_more_behind_it(shown: Shown) -> None:
    shown(out(b"> "), out(b"line\n", "web.2"))
    assert shown(out(b"\nnext\n")) == b"web.1  | next\n"


def test_two_prompts_cut_each_other(shown: Shown) -> None:
    assert shown(out(b"a> ")) == b"web.1  | a> "
    assert shown(out(b"b> ", "web.2")) == b"\nweb.2  | b> "
    assert shown(out(b"x")) == b"\nweb.1  | x"
    assert shown(out(b"\n", "web.2")) == b"\n"
    assert shown(out(b"\n")) == b""


def test_system_line_closes_the_prompt(shown: Shown) -> None:
    shown(out(b"> "))
    assert shown(Notice(SYSTEM, NOON, "text")) == b"\nsystem | text\n"
    assert shown(out(b"\n")) == b""


@pytest.mark.parametrize(
    "event",
    [
        Notice("web.1", NOON, "did not stop in time, sending SIGKILL"),
        Restarting("web.1", NOON, 1.0),
        Started("web.1", NOON, 7, None),
    ],
)
def test_own_line_about_the_prompting_instance_closes_its_prompt(shown: Shown, event: Event) -> None:
    shown(out(b"> "))
    found = shown(event)
    assert found.startswith(b"\nweb.1  | ")
    assert found.endswith(b"\n")
    assert shown(out(b"\n")) == b""
    assert shown(out(b"next\n")) == b"web.1  | next\n"


def test_silent_event_leaves_the_prompt_open(shown: Shown) -> None:
    shown(out(b"> "))
    assert shown(Ready("web.2", NOON), Stopping("web.2", NOON, 15)) == b""
    assert shown(out(b"x\n")) == b"x\n"


def test_muted_output_leaves_the_prompt_open() -> None:
    shown = Shown(has_timestamp=False, muted=frozenset({"worker"}))
    shown(out(b"> "))
    assert shown(out(b"noise\n", "worker.1")) == b""
    assert shown(out(b"x\n")) == b"x\n"


def test_prompt_keeps_the_clock_it_began_with() -> None:
    shown = Shown()
    assert shown(out(b"> "), out(b"x\ny\n", at=NOON + 5)) == b"12:00:00 web.1  | > x\n12:00:05 web.1  | y\n"


def test_prompts_without_a_prefix() -> None:
    shown = Shown(has_prefix=False)
    assert shown(out(b"> "), out(b"line\n", "web.2"), out(b"\n"), out(b"x\n")) == b"> \nline\nx\n"


# --- on a terminal ---


def test_only_a_shared_terminal_is_filtered() -> None:
    block = b"\x1b[2Ja\x1b[31mb\n"
    assert Shown(has_timestamp=False)(out(block)) == b"web.1  | " + block
    assert Shown(has_timestamp=False, is_filtered=True)(out(block)) == b"web.1  | a\x1b[31mb\x1b[0m\n"


def test_styles_of_instances_are_apart() -> None:
    shown = Shown(has_timestamp=False, is_filtered=True)
    shown(out(b"\x1b[31mred\n"))
    assert shown(out(b"plain\n", "web.2")) == b"web.2  | plain\n"
    assert shown(out(b"red\n")) == b"web.1  | \x1b[31mred\x1b[0m\n"


def test_redraw_has_the_prefix_with_its_colour() -> None:
    shown = Shown(has_timestamp=False, is_filtered=True, has_colour=True)
    prefix = b"\x1b[36mweb.1  | \x1b[0m"
    assert shown(out(b"10%\r20%\n")) == prefix + b"10%\r\x1b[K" + prefix + b"20%\n"


def test_piece_that_is_all_dropped_writes_nothing() -> None:
    shown = Shown(has_timestamp=False, is_filtered=True)
    assert shown(out(b"\x1b[2J\x1b[H")) == b""
    assert shown(out(b"x\n", "web.2")) == b"web.2  | x\n"
    assert shown(out(b"y\n")) == b"web.1  | y\n"


def test_progress_bar_in_pieces_redraws_its_line() -> None:
    shown = Shown(has_timestamp=False, is_filtered=True)
    assert shown(out(b"10%")) == b"web.1  | 10%"
    assert shown(out(b"\r20%")) == b"\r\x1b[Kweb.1  | 20%"
    assert shown(out(b"x\n", "web.2")) == b"\nweb.2  | x\n"
    assert b"30%" in shown(out(b"\r30%\n"))


# --- and its stream ---


def test_close_flushes() -> None:
    shown = Shown()
    shown.console.close()
    assert shown.paper.text == b"<flushed>"


def test_idle_is_the_streams() -> None:
    shown = Shown()
    assert shown.console.is_idle
    shown.paper.is_idle = False
    assert not shown.console.is_idle


# --- with the multiplexer: whatever happens, no line is mixed ---


@pytest.fixture(scope="module")
def merged() -> Iterator[Callable[[list[tuple[int, bytes, float]]], bytes]]:
    loop = Turns()

    def merge(steps: list[tuple[int, bytes, float]]) -> bytes:
        shown = Shown(has_timestamp=False)
        pipes = Pipes()
        multiplexer = Multiplexer(loop, shown.console.write, lambda: False, 0.15)
        ends: list[tuple[Feed, int]] = []
        for number in (1, 2, 3):
            reader, writer = pipes.pipe()
            pipes.fds.discard(reader)  # the multiplexer closes it
            ends.append((multiplexer.add(f"web.{number}", reader), writer))
        for number, piece, pause_s in steps:
            os.write(ends[number][1], piece)
            loop.turn()
            if pause_s:
                loop.pass_time(pause_s)
        for feed, writer in ends:
            multiplexer.drain(feed)
            multiplexer.close(feed)
            pipes.close(writer)
        pipes.close_all()
        return shown.paper.text

    yield merge
    loop.close()


PIECE = st.lists(st.sampled_from([b"\n", b"a", b"bc", b"d\n"]), min_size=1, max_size=4).map(b"".join)
STEPS = st.lists(st.tuples(st.integers(0, 2), PIECE, st.sampled_from([0.0, 0.0, 0.2])), max_size=15)


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_no_line_is_mixed_and_no_byte_lost(merged: Any, steps: list[tuple[int, bytes, float]]) -> None:
    shown = merged(steps)
    assert not shown or shown.endswith(b"\n")
    lines: dict[bytes, list[bytes]] = {b"web.1  | ": [], b"web.2  | ": [], b"web.3  | ": []}
    for line in shown.splitlines():
        lines[line[:9]].append(line[9:])
    has_prompts = any(pause_s for _, _, pause_s in steps)
    for number, prefix in enumerate(lines):
        written = b"".join(piece for index, piece, _ in steps if index == number)
        if has_prompts:
            assert b"".join(lines[prefix]) == written.replace(b"\n", b"")
            assert len(lines[prefix]) >= len(written.splitlines())
        else:
            assert lines[prefix] == written.splitlines()
