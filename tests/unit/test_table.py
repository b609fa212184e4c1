"""The table of `procman ps`: what it says, and that it fits."""

from __future__ import annotations

from typing import Any

import pytest

from procman.control.table import HEADINGS, duration_text, size_text, state_text, table


def instance(name: str = "web.1", **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "ready",
        "wanted": True,
        "pid": 4713,
        "port": 5000,
        "restarts": 0,
        "code": None,
        "command": "gunicorn app --bind 0.0.0.0:$PORT --workers 4",
        "uptime_s": 75.0,
        "cpu_percent": 12.34,
        "memory_bytes": 36_175_872,
        **fields,
    }


def headings(lines: list[str]) -> list[str]:
    return lines[0].split()


def test_as_wide_as_it_gets() -> None:
    assert table([instance(), instance("worker.12", port=None, restarts=3)], 0) == [
        "NAME       STATE   PID  PORT  UPTIME  RESTARTS  CPU%  MEMORY  COMMAND",
        "web.1      ready  4713  5000   1m15s         0  12.3   34.5M  gunicorn app --bind 0.0.0.0:$PORT --workers 4",
        "worker.12  ready  4713     -   1m15s         3  12.3   34.5M  gunicorn app --bind 0.0.0.0:$PORT --workers 4",
    ]


def test_command_gives_way_first() -> None:
    lines = table([instance()], 80)
    assert headings(lines) == list(HEADINGS.values())
    assert lines[1].endswith("…")
    assert len(lines[1]) == 80


@pytest.mark.parametrize("width", range(1, 150))
@pytest.mark.parametrize("name", ["web.1", "a-rather-long-process-type.12"])
def test_no_line_is_wider_than_the_terminal(width: int, name: str) -> None:
    lines = table([instance(name), instance("クロック.1", command="日本語のコマンド" * 9)], width)
    for line in lines:
        assert len(line) + sum(line.count(char) for char in "クロッ日本語のコマンド") <= width


def test_narrow_terminals_keep_what_tells_most() -> None:
    shown = {width: headings(table([instance()], width)) for width in (60, 50, 40, 30, 20, 10)}
    assert shown == {
        60: ["NAME", "STATE", "PID", "PORT", "UPTIME", "CPU%", "MEMORY", "COMMAND"],
        50: ["NAME", "STATE", "PID", "UPTIME", "CPU%", "MEMORY"],
        40: ["NAME", "STATE", "PID", "UPTIME", "CPU%", "MEMORY"],
        30: ["NAME", "STATE", "PID", "UPTIME"],
        20: ["NAME", "STATE", "PID"],
        10: ["NAME"],
    }


def test_without_a_process_there_are_dashes() -> None:
    down = instance(state="exited", code=3, pid=None, uptime_s=None, cpu_percent=None, memory_bytes=None)
    assert table([down], 60)[1].split()[:6] == ["web.1", "exited", "3", "-", "-", "-"]


def test_no_instances_are_a_heading() -> None:
    assert len(table([], 80)) == 1


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"state": "ready"}, "ready"),
        ({"state": "exited", "code": 0}, "exited 0"),
        ({"state": "exited", "code": 143, "wanted": False}, "stopped"),
        ({"state": "exited", "wanted": False}, "stopped"),
        ({"state": "failed", "code": 1}, "failed 1"),
        ({"state": "failed"}, "failed"),
        ({"state": "backoff", "code": 1}, "backoff 1"),
        ({"state": "ready", "code": 1}, "ready"),
        ({"state": "lost", "code": 1}, "lost"),
        ({"state": "pending", "waits_for": []}, "pending"),
        ({"state": "pending", "waits_for": ["db", "REDIS_URL"]}, "pending db,REDIS_URL"),
    ],
)
def test_state_for_people(fields: dict[str, Any], text: str) -> None:
    assert state_text(instance(**fields)) == text


@pytest.mark.parametrize(
    ("fields", "colour"),
    [
        ({}, "\x1b[32mready\x1b[0m"),
        ({"state": "starting"}, "\x1b[33mstarting\x1b[0m"),
        ({"state": "backoff", "code": 1}, "\x1b[33mbackoff 1\x1b[0m"),
        ({"state": "exited", "code": 1}, "\x1b[31mexited 1\x1b[0m"),
        ({"state": "exited", "code": 0}, "\x1b[2mexited 0\x1b[0m"),
        ({"state": "exited", "wanted": False, "code": 143}, "\x1b[2mstopped\x1b[0m"),
        ({"state": "failed"}, "\x1b[31mfailed\x1b[0m"),
        ({"state": "lost"}, "\x1b[31mlost\x1b[0m"),
    ],
)
def test_colour_of_states(fields: dict[str, Any], colour: str) -> None:
    plain, coloured = (table([instance(**fields)], 100, has_colour)[1] for has_colour in (False, True))
    assert colour in coloured
    assert coloured.replace(colour, colour.partition("m")[2].partition("\x1b")[0]) == plain


def test_command_cannot_speak_to_the_terminal() -> None:
    line = table([instance(command="a\tb\x1b[2J\nc")], 0)[1]
    assert line.endswith("a b [2J c")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86_399, "23h59m"),
        (86_400, "1d00h"),
        (360_000, "4d04h"),
        (-5.0, "0s"),
    ],
)
def test_uptime(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0K"),
        (1_536_000, "1.5M"),
        (999 * 1024, "999K"),
        (1000 * 1024, "1.0M"),
        (104_857_600, "100M"),
        (1023 * 1024**2, "1.0G"),
        (5 * 1024**4, "5.0T"),
    ],
)
def test_memory(size: int | None, text: str) -> None:
    assert size_text(size) == text
