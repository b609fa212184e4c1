"""Instances as a table: what each column says, and which of them fit. For commands and for `procman top`."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

GAP = "  "
MIN_COMMAND = 12  # a column of commands narrower than this tells nothing
HEADINGS = {
    "name": "NAME",
    "state": "STATE",
    "pid": "PID",
    "port": "PORT",
    "uptime": "UPTIME",
    "restarts": "RESTARTS",
    "cpu": "CPU%",
    "memory": "MEMORY",
    "command": "COMMAND",
}
TO_THE_RIGHT = frozenset({"pid", "port", "uptime", "restarts", "cpu", "memory"})
DROPPED_FIRST = ("restarts", "port", "command", "cpu", "memory", "uptime", "pid", "state")

GREEN, YELLOW, RED, DIM, RESET = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[2m", "\x1b[0m"
COLOURS = {"ready": GREEN, "stopped": DIM, "exited": DIM, "failed": RED, "lost": RED}


def table(instances: Sequence[Mapping[str, Any]], width: int, has_colour: bool = False) -> list[str]:
    """Return the lines of the table, a heading first. `width` 0 means as wide as it gets."""
    rows = [HEADINGS, *map(cells_of, instances)]
    widths = {column: max(width_of(row[column]) for row in rows) for column in HEADINGS}
    widths = _fitting(widths, width) if width else widths
    lines = []
    for at, row in enumerate(rows):
        colour = colour_of(instances[at - 1], row["state"]) if has_colour and at else ""
        lines.append(_line(row, widths, colour))
    return lines


def columns(
    rows: Sequence[Sequence[str]],
    to_the_right: Collection[int] = (),
    colours: Mapping[tuple[int, int], str] | None = None,
) -> list[str]:
    """Return the lines of a table as wide as it gets. `colours` are by row and column."""
    widths = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    lines = []
    for at, row in enumerate(rows):
        cells = []
        for column, text in enumerate(row):
            padding = " " * (widths[column] - width_of(text))
            colour = colours.get((at, column)) if colours else ""
            shown = f"{colour}{text}{RESET}" if colour else text
            cells.append(padding + shown if column in to_the_right else shown + padding)
        lines.append(GAP.join(cells).rstrip())
    return lines


def _fitting(widths: Mapping[str, int], width: int) -> dict[str, int]:
    """Return the widths of the columns that stay: first the command gives way, then whole columns, last the name."""
    kept = dict(widths)
    for column in ("", *DROPPED_FIRST):
        kept.pop(column, None)
        needed = sum(kept.values()) + len(GAP) * (len(kept) - 1)
        spare = width - needed
        if spare >= 0:
            return kept
        if "command" in kept and kept["command"] + spare >= MIN_COMMAND:
            return {**kept, "command": kept["command"] + spare}
    return {"name": max(1, width)}


def _line(row: Mapping[str, str], widths: Mapping[str, int], colour: str) -> str:
    cells = []
    for column, width in widths.items():
        text = cut(row[column], width)
        padding = " " * (width - width_of(text))
        if colour and column == "state":
            text = f"{colour}{text}{RESET}"
        cells.append(padding + text if column in TO_THE_RIGHT else text + padding)
    return GAP.join(cells).rstrip()


def cells_of(instance: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": str(instance["name"]),
        "state": state_text(instance),
        "pid": _text(instance["pid"]),
        "port": _text(instance["port"]),
        "uptime": duration_text(instance["uptime_s"]),
        "restarts": _text(instance["restarts"]),
        "cpu": "-" if instance["cpu_percent"] is None else f"{instance['cpu_percent']:.1f}",
        "memory": size_text(instance["memory_bytes"]),
        # One line, and nothing that could speak to the terminal.
        "command": printable(str(instance["command"])),
    }


def printable(text: str) -> str:
    """Return a text that is one line and does nothing to a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def state_text(instance: Mapping[str, Any]) -> str:
    """Return the state for people: "stopped" on request, the code of an end, what one that has not begun waits for."""
    state, code = str(instance["state"]), instance["code"]
    if state == "exited" and not instance["wanted"]:
        return "stopped"
    if state == "pending" and instance.get("waits_for"):
        return f"pending {','.join(instance['waits_for'])}"
    return f"{state} {code}" if code is not None and state in ("exited", "failed", "backoff") else state


def duration_text(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if minutes < 60:
        return f"{minutes}m{whole % 60:02}s"
    return f"{hours}h{minutes % 60:02}m" if hours < 24 else f"{days}d{hours % 24:02}h"


def size_text(size: int | None) -> str:
    if size is None:
        return "-"
    value = size / 1024
    for unit in "KMG":
        if value < 999.5:  # so that three digits are enough
            return f"{value:.1f}{unit}" if value < 99.95 and unit != "K" else f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def colour_of(instance: Mapping[str, Any], shown: str) -> str:
    if shown.startswith("exited") and instance["code"]:
        return RED
    return COLOURS.get(shown.partition(" ")[0], YELLOW)


def width_of(text: str) -> int:
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    if width_of(text) <= width:
        return text
    taken = 0
    for at, char in enumerate(text):
        taken += _char_width(char)
        if taken > width - 1:
            return text[:at] + "…"
    return text
