"""One message <-> bytes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procman.control.protocol import (
    PIECE_INSTANCES,
    decode,
    decoded_bytes,
    encode,
    encoded_bytes,
    encoded_in_pieces,
    event_of,
    message_of,
)
from procman.errors import ControlError
from procman.events import Event, Exited, GaveUp, Notice, Output, Ready, Restarting, Started, Stopping

EXAMPLES = int(os.environ.get("PROCMAN_FUZZ_EXAMPLES", "200"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, print_blob=True, database=None)

EVENTS: list[Event] = [
    Started("web.1", 1.5, 10, 5000),
    Started("web.1", 1.5, 10, None),
    Output("web.1", 1.5, "zwölf\nline\n".encode()),
    Output("web.1", 1.5, b"\xff\xfe\0\n"),
    Ready("web.1", 1.5),
    Stopping("web.1", 1.5, 15),
    Exited("web.1", 1.5, 143, 15),
    Restarting("web.1", 1.5, 2.0),
    GaveUp("web.1", 1.5, "why"),
    Notice("system", 1.5, "a\u2028b\nc"),
]


@pytest.mark.parametrize("count", [0, 1, PIECE_INSTANCES, PIECE_INSTANCES + 1, 3 * PIECE_INSTANCES])
def test_many_instances_go_out_in_pieces(count: int) -> None:
    instances = [{"name": f"web.{number}", "waits_for": ["db"]} for number in range(count)]
    message = {"done": True, "instances": instances, "notes": ["x"]}
    pieces = list(encoded_in_pieces(message))
    assert decode(b"".join(pieces)) == message
    assert b"".join(pieces).count(b"\n") == 1
    assert max(map(len, pieces)) <= PIECE_INSTANCES * 50 + 100


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_come_back(event: Event) -> None:
    line = encode(message_of(event))
    assert line.count(b"\n") == 1
    assert event_of(decode(line)) == event


def test_text_is_told_as_text() -> None:
    assert message_of(Output("a.1", 1.0, b"x\n")) == {"event": "output", "name": "a.1", "at": 1.0, "text": "x\n"}
    assert message_of(Output("a.1", 1.0, b"\xff")) == {"event": "output", "name": "a.1", "at": 1.0, "bytes": "/w=="}


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 100_000, b'{"a": 1}x'])
def test_what_is_no_message(line: bytes) -> None:
    with pytest.raises(ControlError):
        decode(line)


@fuzzed
@given(st.binary() | st.text().map(str.encode))
def test_any_line(line: bytes) -> None:
    try:
        message = decode(line)
    except ControlError:
        return
    event_of(message)


@fuzzed
@given(st.dictionaries(st.sampled_from(["event", "name", "at", "text", "bytes", "pid", "code"]), st.text() | st.none()))
def test_any_event(message: dict[str, object]) -> None:
    try:
        event_of(message)
    except ControlError:
        assert "bytes" in message


@fuzzed
@given(st.binary())
def test_any_bytes(block: bytes) -> None:
    assert decoded_bytes(encoded_bytes(block)) == block
    event = Output("a.1", 1.0, block)
    assert event_of(decode(encode(message_of(event)))) == event
