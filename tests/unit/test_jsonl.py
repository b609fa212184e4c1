"""Events for machines: the names are those of the records."""

from __future__ import annotations

import json
from typing import Any

import pytest

from procman.events import Event, Exited, GaveUp, Notice, Output, Ready, Restarting, Started, Stopping
from procman.sinks.jsonl import JsonLines


class Paper:
    is_idle = True

    def __init__(self) -> None:
        self.text = b""
        self.flushes = 0

    def write(self, *buffers: bytes) -> None:
        self.text += b"".join(buffers)

    def flush(self) -> None:
        self.flushes += 1


def written(*events: Event) -> list[dict[str, Any]]:
    paper = Paper()
    sink = JsonLines(paper)  # type: ignore[arg-type]
    for event in events:
        sink.write(event)
    assert not paper.text or paper.text.endswith(b"\n")
    return [json.loads(line) for line in paper.text.splitlines()]


@pytest.mark.parametrize(
    ("event", "record"),
    [
        (Started("web.1", 1.5, 7, 5000), {"event": "started", "pid": 7, "port": 5000}),
        (Started("web.1", 1.5, 7, None), {"event": "started", "pid": 7, "port": None}),
        (Ready("web.1", 1.5), {"event": "ready"}),
        (Stopping("web.1", 1.5, 15), {"event": "stopping", "signum": 15}),
        (Exited("web.1", 1.5, 143, 15), {"event": "exited", "code": 143, "signum": 15}),
        (Restarting("web.1", 1.5, 2.0), {"event": "restarting", "delay_s": 2.0}),
        (GaveUp("web.1", 1.5, "why"), {"event": "gaveup", "reason": "why"}),
        (Notice("web.1", 1.5, "näme"), {"event": "notice", "text": "näme"}),
    ],
)
def test_record(event: Event, record: dict[str, Any]) -> None:
    assert written(event) == [{"name": "web.1", "at": 1.5, **record}]


def _lines(block: bytes) -> list[tuple[str, bool]]:
    records = written(Output("web.1", 1.5, block))
    for record in records:
        assert (record["event"], record["name"], record["at"]) == ("output", "web.1", 1.5)
    return [(record["line"], record.get("partial", False)) for record in records]


@pytest.mark.parametrize(
    ("block", "lines"),
    [
        (b"one\n", [("one", False)]),
        (b"one\n\ntwo\n", [("one", False), ("", False), ("two", False)]),
        (b"\n", [("", False)]),
        (b"prompt> ", [("prompt> ", True)]),
        (b"one\nprompt> ", [("one", False), ("prompt> ", True)]),
        (b"a\rb\r\n", [("a\rb\r", False)]),
        (b"\x1b[31m\x00\"\\\t\n", [("\x1b[31m\x00\"\\\t", False)]),
        ("naïve 漢 🎉\n".encode(), [("naïve 漢 🎉", False)]),
        (b"\xff\xc3(\n", [("\ufffd\ufffd(", False)]),
        ("one\u2028two\x85three\n".encode(), [("one\u2028two\x85three", False)]),
    ],
)
def test_output(block: bytes, lines: list[tuple[str, bool]]) -> None:
    assert _lines(block) == lines


def test_one_object_stands_on_one_line() -> None:
    paper = Paper()
    JsonLines(paper).write(Notice("system", 1.0, "one\ntwo\r\u2028three"))  # type: ignore[arg-type]
    assert paper.text.count(b"\n") == 1
    assert paper.text.isascii()


def test_character_cut_between_two_pieces_of_a_line() -> None:
    whole = "é漢🎉".encode()
    for at in range(1, len(whole)):
        records = written(Output("web.1", 1.0, whole[:at]), Output("web.1", 1.0, whole[at:] + b"\n"))
        assert "".join(record["line"] for record in records) == "é漢🎉", at


def test_odd_name_of_a_file_does_no_harm() -> None:
    assert written(Notice("web.1", 1.0, "no file \udcff"))[0]["text"] == "no file \udcff"


def test_idle_and_close_are_the_streams() -> None:
    paper = Paper()
    sink = JsonLines(paper)  # type: ignore[arg-type]
    assert sink.is_idle
    paper.is_idle = False
    assert not sink.is_idle
    sink.close()
    assert paper.flushes == 1
