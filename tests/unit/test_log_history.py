"""What `procman logs` shows of the histories of several supervisors."""

from __future__ import annotations

import re
from typing import Any

import pytest

from procman.cli.history import Choice, Following, chosen, kept, merged
from procman.events import Event, Exited, Notice, Output, Ready, Started


def out(name: str, at: float, text: str) -> Output:
    return Output(name, at, text.encode())


def shown(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.name, event.block.decode() if type(event) is Output else type(event).__name__) for event in events]


def grep(pattern: str, **fields: Any) -> Choice:
    return Choice(pattern=re.compile(pattern), **fields)


# --- merging ---


def test_supervisors_are_merged_by_time() -> None:
    one = [Started("web.1", 1, 10, None), out("web.1", 3, "c\n"), out("web.1", 5, "e\n")]
    two = [Started("worker.1", 2, 11, None), out("worker.1", 4, "d\n"), out("worker.1", 6, "f\n")]
    assert [event.at for event in merged([one, two])] == [1, 2, 3, 4, 5, 6]


def test_order_of_a_supervisor_is_kept() -> None:
    """A first notice is told before the processes that were started before it."""
    events: list[Event] = [Notice("system", 2, "formation"), Started("web.1", 1, 10, None), out("web.1", 3, "a\n")]
    assert merged([events]) == events
    assert merged([events, [out("worker.1", 2.5, "b\n")]]) == [*events[:2], out("worker.1", 2.5, "b\n"), events[2]]


def test_same_time_keeps_the_order_told() -> None:
    events: list[Event] = [out("b.1", 1, "first\n"), out("a.1", 1, "second\n"), out("b.1", 1, "third\n")]
    assert merged([events]) == events


def test_clock_set_back_turns_nothing_round() -> None:
    events = [out("web.1", 100, "a\n"), out("web.1", 50, "b\n"), out("worker.1", 101, "c\n")]
    assert [text for _, text in shown(merged([events]))] == ["a\n", "b\n", "c\n"]


def test_line_in_pieces_is_one_line_where_it_began() -> None:
    events = [out("a.1", 1, "x\nname: "), out("b.1", 2, "other\n"), out("a.1", 3, "Ann"), out("a.1", 4, "\ny\nz")]
    assert shown(merged([events])) == [
        ("a.1", "x\n"),
        ("a.1", "name: Ann\n"),
        ("b.1", "other\n"),
        ("a.1", "y\n"),
        ("a.1", "z"),
    ]


def test_end_of_an_instance_ends_its_line() -> None:
    events: list[Event] = [out("a.1", 1, "half"), Exited("a.1", 2, 0, 0), out("a.1", 3, "new\n")]
    assert shown(merged([events])) == [("a.1", "half"), ("a.1", "Exited"), ("a.1", "new\n")]


def test_gap_stands_before_what_follows_of_its_instance() -> None:
    messages = [
        {"event": "lost", "name": "b.1", "lost_bytes": 70},
        {"event": "output", "name": "a.1", "at": 1.0, "text": "a\n"},
        {"event": "output", "name": "b.1", "at": 2.0, "text": "b\n"},
    ]
    assert merged([kept(messages)]) == [
        out("a.1", 1, "a\n"),
        Notice("system", 2, "b.1: 70 bytes of its output are missing here"),
        out("b.1", 2, "b\n"),
    ]


def test_gap_at_the_end() -> None:
    messages = [
        {"event": "output", "name": "a.1", "at": 1.0, "text": "a\n"},
        {"event": "lost", "name": "a.1", "lost_bytes": 5},
    ]
    assert kept(messages)[1:] == [Notice("system", 1, "a.1: 5 bytes of its output are missing here")]


def test_messages_of_a_later_version_are_left_out() -> None:
    messages = [{"event": "danced", "name": "a.1", "at": 1.0}, {"odd": 1}, {"event": "ready", "name": "a.1", "at": 2.0}]
    assert kept(messages) == [Ready("a.1", 2.0)]


# --- choosing ---

HISTORY: list[Event] = [
    Started("web.1", 1, 10, None),
    Ready("web.1", 1),
    out("web.1", 2, "one\ntwo\nthree\n"),
    out("worker.1", 3, "four\nfive\n"),
    Exited("worker.1", 4, 3, 0),
]


def test_all() -> None:
    assert chosen(HISTORY, Choice()) == [event for event in HISTORY if type(event) is not Ready]


@pytest.mark.parametrize(
    ("last", "texts"),
    [
        (0, []),
        (1, ["Exited"]),
        (2, ["five\n", "Exited"]),
        (3, ["four\nfive\n", "Exited"]),
        (5, ["two\nthree\n", "four\nfive\n", "Exited"]),
        (100, ["Started", "one\ntwo\nthree\n", "four\nfive\n", "Exited"]),
    ],
)
def test_last_lines_over_all_instances(last: int, texts: list[str]) -> None:
    assert [text for _, text in shown(chosen(HISTORY, Choice(last)))] == texts


def test_unfinished_line_counts_as_one() -> None:
    assert shown(chosen([out("a.1", 1, "x\ny\n? ")], Choice(2))) == [("a.1", "y\n? ")]


def test_since() -> None:
    assert [event.at for event in chosen(HISTORY, Choice(since=3))] == [3, 4]


def test_pattern_comes_before_the_count() -> None:
    assert shown(chosen(HISTORY, grep("^[tf]", last=3))) == [("web.1", "three\n"), ("worker.1", "four\nfive\n")]


def test_pattern_finds_procmans_own_lines() -> None:
    assert shown(chosen(HISTORY, grep("code 3"))) == [("worker.1", "Exited")]


def test_pattern_does_not_see_colours() -> None:
    events = [out("a.1", 1, "\x1b[31mERR\x1b[1mOR\x1b[0m x\r\nfine\n")]
    assert shown(chosen(events, grep("^ERROR x$"))) == [("a.1", "\x1b[31mERR\x1b[1mOR\x1b[0m x\r\n")]


def test_carriage_return_ends_no_line() -> None:
    events = [out("a.1", 1, "10%\r20%\r30%\nend\n")]
    assert shown(chosen(events, Choice(2))) == [("a.1", "10%\r20%\r30%\nend\n")]


def test_odd_bytes_pass() -> None:
    event = Output("a.1", 1, b"\xff one\n\xfe two\n")
    assert chosen([event], grep("two")) == [event._replace(block=b"\xfe two\n")]


# --- following ---


def test_without_pattern_everything_passes_at_once() -> None:
    following = Following(Choice(last=1))
    assert following.take(out("a.1", 1, "pro")) == [out("a.1", 1, "pro")]


def test_pattern_waits_for_the_end_of_a_line() -> None:
    following = Following(grep("needle"))
    assert following.take(out("a.1", 1, "no\na nee")) == []
    assert following.take(out("b.1", 2, "dle\n")) == []
    assert following.take(out("a.1", 3, "dle!\nno\n")) == [out("a.1", 3, "a needle!\n")]


def test_end_shows_what_was_held() -> None:
    following = Following(grep("needle|code"))
    assert following.take(out("a.1", 1, "needle")) == []
    assert following.take(Exited("a.1", 2, 0, 0)) == [out("a.1", 2, "needle"), Exited("a.1", 2, 0, 0)]


def test_endless_line_is_not_held_for_ever() -> None:
    following = Following(grep("x"))
    piece = "x" * 300_000
    taken = [event for at in range(4) for event in following.take(out("a.1", at, piece))]
    assert sum(len(event.block) for event in taken if type(event) is Output) == 1_200_000
