"""What of an instance's output a shared terminal is shown: by table, by property, and as a terminal draws it."""

from __future__ import annotations

import re
from itertools import pairwise

import pyte
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from procman.sinks.terminal import ERASE_LINE, RESET, Screen

PREFIX = b"web.1 | "
SGR_OR_REDRAW = re.compile(rb"\x1b\[[0-9;:]*m|\r\x1b\[K")


def cleaned(block: bytes, prefix: bytes = PREFIX) -> bytes:
    return Screen().cleaned(block, prefix)


# --- one piece: what passes ---

PASSES = [
    b"plain\n",
    b"a\tb\n",
    "naïve – “UTF-8” é 漢字 🎉 \N{NO-BREAK SPACE}§\n".encode(),
    b"\xff\xfe broken UTF-8 \x80\x9b[2J\n",  # no C1 control for a terminal in UTF-8
    b"\n\n\n",
    b"no newline",
    b"",
]


@pytest.mark.parametrize("block", PASSES)
def test_text_passes(block: bytes) -> None:
    assert cleaned(block) == block


STYLES = [
    b"\x1b[0m",
    b"\x1b[m",
    b"\x1b[1m",
    b"\x1b[1;31m",
    b"\x1b[;31m",
    b"\x1b[38;5;208m",
    b"\x1b[38;2;1;2;3m",
    b"\x1b[38:2::1:2:3m",
    b"\x1b[48:5:20m",
    b"\x1b[4:3m",
    b"\x1b[58;5;1m",
    b"\x1b[97;100m",
    b"\x1b[38m",
    b"\x1b[38;5m",
    b"\x1b[38;2;1m",
    b"\x1b[38;7;1m",
    b"\x1b[;;;m",
    b"\x1b[:m",
]


@pytest.mark.parametrize("style", STYLES)
def test_styles_pass(style: bytes) -> None:
    found = cleaned(b"a" + style + b"b\n")
    assert found.startswith(b"a" + style + b"b")
    assert found[len(style) + 2 :] in (b"\n", RESET + b"\n")


DROPPED = [
    b"\x1b[2J",  # clear
    b"\x1b[H",
    b"\x1b[3;4H",  # move
    b"\x1b[10A",
    b"\x1b[K",
    b"\x1b[2K",
    b"\x1b[?25l",  # hide the cursor
    b"\x1b[?1049h",  # the other screen
    b"\x1b[6n",  # query
    b"\x1b[>c",
    b"\x1b[?1m",
    b"\x1b[>4;2m",  # xterm's modifyOtherKeys: no style
    b"\x1b[<1m",
    b"\x1b[=1m",
    b"\x1b[1 q",  # the cursor's shape
    b"\x1b[!p",
    b"\x1b[4$p",
    b"\x1b]0;title\x07",
    b"\x1b]0;title\x1b\\",
    b"\x1b]8;;http://example.com\x1b\\",
    b"\x1b]52;c;aGk=\x07",
    b"\x1bPq#0;2;0;0;0\x1b\\",  # a picture
    b"\x1bP+q544e\x1b\\",
    b"\x1bXstring\x1b\\",
    b"\x1b^private\x1b\\",
    b"\x1b_command\x1b\\",
    b"\x1bc",  # reset
    b"\x1b7",
    b"\x1bM",
    b"\x1b(B",
    b"\x1b#8",
    b"\x1b%G",
    b"\xc2\x9b",  # C1 as UTF-8
    b"\xc2\x90",
    b"\xc2\x85",
    b"\x00",
    b"\x07",
    b"\x08",
    b"\x0b",
    b"\x0c",
    b"\x0e",
    b"\x1a",
    b"\x7f",
]


@pytest.mark.parametrize("sequence", DROPPED)
def test_what_would_disturb_others_is_dropped(sequence: bytes) -> None:
    assert cleaned(b"a" + sequence + b"b\n") == b"ab\n"
    assert cleaned(sequence + sequence + b"b\n") == b"b\n"


@pytest.mark.parametrize("at", range(1, 18))
@pytest.mark.parametrize("sequence", [one for one in DROPPED if len(one) > 1])
def test_dropped_sequence_cut_anywhere(sequence: bytes, at: int) -> None:
    screen = Screen()
    cut = min(at, len(sequence) - 1)
    first = screen.cleaned(b"a" + sequence[:cut], PREFIX)
    assert first + screen.cleaned(sequence[cut:] + b"b\n", PREFIX) == b"ab\n"


MALFORMED = [
    b"\x1b[1;?m",
    b"\x1b[3>m",
    b"\x1b[1<2m",
    b"\x1b[38;5;?m",
    b"\x1b[38;?;1m",
    b"\x1b[38:?m",
    b"\x1b[" + b"9" * 5000 + b"m",
    b"\x1b[" + b"1;" * 3000 + b"m",
    b"\x1b[99999999999999999999m",
    b"\x1b[1 m",
]


@pytest.mark.parametrize("sequence", MALFORMED, ids=lambda sequence: repr(sequence[:12]))
def test_malformed_style_does_no_harm(sequence: bytes) -> None:
    found = cleaned(b"a" + sequence + b"b\n")
    assert SGR_OR_REDRAW.sub(b"", found) == b"ab\n"


# What is left when a control is dropped must not join what stood around it to a new one.
JOINED = [
    b"\x1b\x07[2J",
    b"\x1b\x00]0;title\x07",
    b"\x1b\x1b[1A[2J",
    b"\x1b\x1b\x1b[2J",
    b"\x1b\x7fc",
    b"\x1b\xc2\x85[2J",
    b"\xc2\x00\x9b2J",
    b"\xc2\x1b[1m\x9b2J",
    b"\xc2\x1b[2K\x9b2J",
    b"\x1b[\x002J",
    b"\x1b\xc3\xa9[2J",
]


@pytest.mark.parametrize("block", JOINED)
def test_no_new_sequence_out_of_the_rests(block: bytes) -> None:
    assert _has_only_styles(cleaned(b"a" + block + b"\n"))


def _has_only_styles(shown: bytes) -> bool:
    text = SGR_OR_REDRAW.sub(b"", shown)
    return not re.search(rb"\x1b|\xc2[\x80-\x9f]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]", text)


PIECES = st.sampled_from(
    [
        *(bytes([byte]) for byte in b"\x1b\x1b\x1b[]P\\;:?mJ0138\x07\x00\r\n\x08\xc2\x9b\xc3\xa9a "),
        *STYLES,
        *DROPPED[:20],
        b"\x1b[31",
        b"text",
    ]
)
STREAM = st.lists(PIECES, max_size=30).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(STREAM, st.lists(st.integers(0, 200), max_size=5))
def test_nothing_but_styles_ever_reaches_the_terminal(stream: bytes, cuts: list[int]) -> None:
    screen = Screen()
    shown = b"".join(screen.cleaned(chunk, PREFIX) for chunk in _cut(stream, cuts))
    assert _has_only_styles(shown)


def _cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(places) if start < end]


# --- styles that are left open ---


@pytest.mark.parametrize("edit", [b"\b", b"\x1b[C", b"\x1b[12D", b"\x1b[K", b"\x1b[2P", b"\x1b[@", b"\x1b[4h+\x1b[4l"])
def test_edits_of_a_line_pass_for_who_is_typed_at(edit: bytes) -> None:
    assert Screen(is_edited=True).cleaned(b"a" + edit + b"b", PREFIX) == b"a" + edit + b"b"
    assert Screen().cleaned(b"a" + edit + b"b", PREFIX) in (b"ab", b"a+b")


def test_who_is_typed_at_goes_to_its_prefix_and_leaves_the_line() -> None:
    screen = Screen(is_edited=True)
    assert screen.cleaned(b"(Pdb) next\r\x1b[6C", PREFIX) == b"(Pdb) next\r" + PREFIX + b"\x1b[6C"
    assert screen.cleaned(b"a\x1b[2J\x1b[H\x1b[1K\x1b[5A\x1b[4hb", PREFIX) == b"a\x1b[4hb\x1b[4l"


def test_style_ends_with_its_line_and_opens_again() -> None:
    screen = Screen()
    assert screen.cleaned(b"\x1b[31mred\n", PREFIX) == b"\x1b[31mred" + RESET + b"\n"
    assert screen.cleaned(b"still\nand\n", PREFIX) == (
        b"\x1b[31mstill" + RESET + b"\n" + b"\x1b[31mand" + RESET + b"\n"
    )
    assert screen.cleaned(b"now \x1b[0mplain\nplain\n", PREFIX) == b"\x1b[31mnow \x1b[0mplain\nplain\n"


def test_empty_lines_carry_no_style() -> None:
    screen = Screen()
    screen.cleaned(b"\x1b[44mblue\n", PREFIX)
    assert screen.cleaned(b"\n\n", PREFIX) == b"\n\n"


def test_styles_of_instances_are_apart() -> None:
    one, other = Screen(), Screen()
    one.cleaned(b"\x1b[31mred\n", PREFIX)
    assert other.cleaned(b"plain\n", PREFIX) == b"plain\n"


@pytest.mark.parametrize(
    ("given_styles", "reopened"),
    [
        (b"\x1b[1m", b"1"),
        (b"\x1b[1;31m", b"1;31"),
        (b"\x1b[31m\x1b[32m", b"32"),
        (b"\x1b[31m\x1b[92m", b"92"),
        (b"\x1b[41m\x1b[102m", b"102"),
        (b"\x1b[31;42m", b"31;42"),
        (b"\x1b[38;5;208m", b"38;5;208"),
        (b"\x1b[38;5;208;1m", b"38;5;208;1"),
        (b"\x1b[1;38;2;1;2;3;4m", b"1;38;2;1;2;3;4"),
        (b"\x1b[38:2::1:2:3m", b"38:2::1:2:3"),
        (b"\x1b[38:5:1;1m", b"38:5:1;1"),
        (b"\x1b[38;5;1m\x1b[31m", b"31"),
        (b"\x1b[48;5;1;38;5;2m", b"48;5;1;38;5;2"),
        (b"\x1b[58;5;9m", b"58;5;9"),
        (b"\x1b[4m\x1b[21m", b"21"),
        (b"\x1b[4:3m", b"4:3"),
        (b"\x1b[5m\x1b[6m", b"6"),
        (b"\x1b[1;2m\x1b[22m", b""),
        (b"\x1b[1;3m\x1b[22m", b"3"),
        (b"\x1b[3m\x1b[23m", b""),
        (b"\x1b[4m\x1b[24m", b""),
        (b"\x1b[21m\x1b[24m", b""),
        (b"\x1b[5m\x1b[25m", b""),
        (b"\x1b[7m\x1b[27m", b""),
        (b"\x1b[8m\x1b[28m", b""),
        (b"\x1b[9m\x1b[29m", b""),
        (b"\x1b[53m\x1b[55m", b""),
        (b"\x1b[51m\x1b[54m", b""),
        (b"\x1b[58;5;1m\x1b[59m", b""),
        (b"\x1b[38;5;1m\x1b[39m", b""),
        (b"\x1b[91m\x1b[39m", b""),
        (b"\x1b[48;2;1;2;3m\x1b[49m", b""),
        (b"\x1b[1;31;44m\x1b[m", b""),
        (b"\x1b[1;31;44m\x1b[0m", b""),
        (b"\x1b[1;31;0;4m", b"4"),
        (b"\x1b[1;;4m", b"4"),  # nothing is 0
        (b"\x1b[22;23m", b""),
    ],
)
def test_what_is_opened_again(given_styles: bytes, reopened: bytes) -> None:
    screen = Screen()
    screen.cleaned(given_styles + b"x\n", PREFIX)
    opening = b"\x1b[" + reopened + b"m" if reopened else b""
    assert screen.cleaned(b"y\n", PREFIX) == opening + b"y" + (RESET if reopened else b"") + b"\n"


def test_unknown_styles_are_not_piled_up() -> None:
    screen = Screen()
    for code in range(10, 5000):
        screen.cleaned(b"\x1b[%dmx\n" % code, PREFIX)
    assert len(screen.cleaned(b"y\n", PREFIX)) < 300


# --- carriage returns ---


@pytest.mark.parametrize(
    ("block", "shown"),
    [
        (b"a\r\n", b"a\n"),
        (b"a\r\nb\r\n", b"a\nb\n"),
        (b"a\r\r\n", b"a\n"),
        (b"10%\r20%\n", b"10%" + ERASE_LINE + PREFIX + b"20%\n"),
        (b"10%\r20%\r30%\n", b"10%" + ERASE_LINE + PREFIX + b"20%" + ERASE_LINE + PREFIX + b"30%\n"),
        (b"\r20%\n", ERASE_LINE + PREFIX + b"20%\n"),
        (b"10%\r\x1b[K20%\n", b"10%" + ERASE_LINE + PREFIX + b"20%\n"),
        (b"10%\r\r20%\n", b"10%" + ERASE_LINE + PREFIX + b"20%\n"),
        (b"done\r\nnext\r20%\n", b"done\nnext" + ERASE_LINE + PREFIX + b"20%\n"),
    ],
)
def test_carriage_return(block: bytes, shown: bytes) -> None:
    assert cleaned(block) == shown


@pytest.mark.parametrize("at", range(1, 6))
def test_carriage_return_at_the_end_of_a_chunk(at: int) -> None:
    screen = Screen()
    stream = b"10%\r\nb"
    assert screen.cleaned(stream[:at], PREFIX) + screen.cleaned(stream[at:], PREFIX) == b"10%\nb"


def test_style_across_a_redraw() -> None:
    found = cleaned(b"\x1b[31m10%\r20%\n")
    assert found == b"\x1b[31m10%" + RESET + ERASE_LINE + PREFIX + b"\x1b[31m20%" + RESET + b"\n"


def test_redrawn_prefix_and_erased_rest_have_no_style() -> None:
    drawn = _drawn([b"\x1b[41mlong line\rab\x1b[0m\n"], PREFIX)
    line = drawn.screen.buffer[0]
    assert [line[column].bg for column in range(20)] == ["default"] * 8 + ["red"] * 2 + ["default"] * 10


# --- cut anywhere, the same is shown ---


class Drawn:
    """A terminal that shows one instance behind its prefix."""

    def __init__(self, prefix: bytes = b"") -> None:
        self.screen = pyte.Screen(60, 12)
        self._stream = pyte.ByteStream(self.screen)
        self._prefix = prefix

    def draw(self, shown: bytes) -> list[str]:
        with_prefix = b"".join(
            self._prefix + line + (b"\r\n" if index < shown.count(b"\n") else b"")
            for index, line in enumerate(shown.split(b"\n"))
            if line or index < shown.count(b"\n")
        )
        self._stream.feed(with_prefix)
        return [line.rstrip() for line in self.screen.display]

    def cells(self) -> list[object]:
        return [self.screen.buffer[row][column] for row in range(12) for column in range(60)]


def _drawn(chunks: list[bytes], prefix: bytes = b"") -> Drawn:
    screen = Screen()
    drawn = Drawn(prefix)
    drawn.draw(b"".join(screen.cleaned(chunk, prefix) for chunk in chunks))
    return drawn


# Styles that pyte knows, so that it sees a difference.
DRAWABLE = st.lists(
    st.sampled_from(
        [
            b"text",
            "é漢".encode(),
            b"\n",
            b"\r",
            b"\r\n",
            b"\x1b[31m",
            b"\x1b[1m",
            b"\x1b[0m",
            b"\x1b[38;5;20m",
            b"\x1b[22;39m",
            b"\x1b[4;48;2;1;2;3m",
            *DROPPED[:12],
            *DROPPED[17:27],
        ]
    ),
    max_size=14,
).map(b"".join)


@settings(max_examples=25, deadline=None)
@given(DRAWABLE)
@example(b"a\x1b[38;5;208mb\x1b]0;t\x1b\\c\r\nd\re\x1b[0m\n")
def test_every_cut_shows_the_same(stream: bytes) -> None:
    whole = _drawn([stream + b"\n"], PREFIX).cells()
    step = max(1, len(stream) // 6)
    for at in range(1, len(stream), step):
        assert _drawn([stream[:at], stream[at:] + b"\n"], PREFIX).cells() == whole, at
    assert _drawn([stream[at : at + 1] for at in range(len(stream))] + [b"\n"], PREFIX).cells() == whole


PLAIN = st.lists(
    st.sampled_from([b"text", "é".encode(), b"\n", b"\r\n", *DROPPED]), max_size=20
).map(b"".join)


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_every_cut_gives_the_same_bytes_without_styles(stream: bytes) -> None:
    whole = cleaned(stream + b"\n")
    for at in range(1, len(stream)):
        screen = Screen()
        assert screen.cleaned(stream[:at], PREFIX) + screen.cleaned(stream[at:] + b"\n", PREFIX) == whole, at


# --- endless sequences ---


@pytest.mark.parametrize("start", [b"\x1b]52;c;", b"\x1bPq", b"\x1b_G", b"\x1b^", b"\x1bX"])
@pytest.mark.parametrize("end", [b"\x07", b"\x1b\\"])
def test_long_string_cut_into_chunks_is_dropped_whole(start: bytes, end: bytes) -> None:
    """A picture is longer than a read; none of it may be shown as text."""
    stream = b"a" + start + b"QUJD" * 50_000 + end + b"b\n"
    screen = Screen()
    chunks = [stream[at : at + 65_536] for at in range(0, len(stream), 65_536)]
    assert b"".join(screen.cleaned(chunk, PREFIX) for chunk in chunks) == b"ab\n"


@pytest.mark.parametrize("start", [b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b(", b"\x1b[1;"])
@pytest.mark.parametrize("filler", [b"1", b";", b" ", b"\x1b", b"x"])
def test_endless_sequence_is_not_kept(start: bytes, filler: bytes) -> None:
    """Held bytes are those that neither went out nor were dropped: a later byte must not bring them all back."""
    screen = Screen()
    screen.cleaned(start, PREFIX)
    for _ in range(50):
        screen.cleaned(filler * 1000, PREFIX)
    assert len(screen.cleaned(b"m", PREFIX)) < 10_000
    assert screen.cleaned(b"\nplain\n", PREFIX).rpartition(b"\n")[0].endswith(b"plain")


def test_newline_ends_a_string_that_never_ends() -> None:
    assert cleaned(b"a\x1b]0;title\nb\n") == b"a\nb\n"


# --- as a terminal draws it ---

BARS = {
    "tqdm": (b"\r  0%|          | 0/3\r 33%|###       | 1/3\r100%|##########| 3/3\n", "100%|##########| 3/3"),
    "pip": (b"\x1b[?25l\r\x1b[K   \x1b[32m---\x1b[0m 1/3 kB\r\x1b[K   \x1b[32m------\x1b[0m 3/3 kB\x1b[?25h\n",
            "   ------ 3/3 kB"),
    "curl": (b"  0\r 50\r100\r\n", "100"),
    "wget": (b"f  10%[=>   ]\rf 100%[====>]\r\n", "f 100%[====>]"),
    "npm": (b"\x1b[1G\x1b[0K- waiting\r\x1b[0Kdone\n", "done"),
    "shorter": (b"downloading the file\rok\n", "ok"),
    "end first": (b"10%\r20%\r30%\r\x1b[2Kdone\r\n", "done"),
}  # fmt: skip


@pytest.mark.parametrize("name", BARS)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_progress_bar_is_drawn_behind_its_prefix(name: str, size: int) -> None:
    stream, last = BARS[name]
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    drawn = _drawn([*chunks, b"next\n"], PREFIX)
    shown = [line.rstrip() for line in drawn.screen.display if line.strip()]
    assert shown == [f"web.1 | {last}", "web.1 | next"]


def test_clearing_the_screen_leaves_other_lines() -> None:
    drawn = Drawn(PREFIX)
    drawn.draw(b"one\n")
    assert drawn.draw(Screen().cleaned(b"\x1b[2J\x1b[Htwo\x1bc\x1b[10Athree\n", PREFIX))[:2] == [
        "web.1 | one",
        "web.1 | twothree",
    ]


def test_colour_does_not_run_into_the_next_prefix() -> None:
    drawn = _drawn([b"\x1b[31mred\nstill\n"], PREFIX)
    for row in (0, 1):
        assert {drawn.screen.buffer[row][column].fg for column in range(8)} == {"default"}
        assert drawn.screen.buffer[row][8].fg == "red"
