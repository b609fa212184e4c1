"""Results as text, JSON and Markdown with plots."""

from __future__ import annotations

import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.install import Tools
from benchmarks.run import Result
from benchmarks.tests import Column

OURS = "procman"


def machine(repetitions: int, seconds: float) -> dict[str, str]:
    model = re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": f"{len(os.sched_getaffinity(0))} cores, {model[1].strip() if model else platform.machine()}",
        "memory": f"{int(memory[1]) >> 20} GB" if memory else "",
        "system": f"{system}, Linux {platform.release()}, Python {platform.python_version()}",
        "repetitions": str(repetitions),
        "duration": f"{seconds / 60:.0f} min",
    }


def values(result: Result, name: str, column: Column) -> list[float]:
    return [sample[column.key] for sample in result.samples[name] if column.key in sample]


def number(value: float) -> str:
    """Three digits are all that a measurement is worth."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def spread(found: list[float]) -> str:
    if not found:
        return ""
    figures = [number(value) for value in (min(found), statistics.median(found), max(found))]
    return figures[0] if len(set(figures)) == 1 else "/".join(figures)


def ratio(result: Result, name: str) -> str:
    """Return the tool's median as a multiple of procman's, for the column that the test is about."""
    ours, theirs = (values(result, which, result.test.columns[0]) if which in result.samples else [] for which in (OURS, name))
    if not ours or not theirs or not statistics.median(ours):
        return ""
    return f"{statistics.median(theirs) / statistics.median(ours):.2f}"


def rows(result: Result) -> list[list[str]]:
    """Return the table of a test, heading first."""
    columns = result.test.columns
    table = [["tool", f"{columns[0].title} min/median/max", "of procman", *(column.title for column in columns[1:]), "remark"]]
    for name in result.samples:
        cells = [spread(values(result, name, column)) for column in columns]
        table.append([name, cells[0], ratio(result, name), *cells[1:], result.remarks.get(name, "")])
    table += [[name, "", "", *[""] * (len(columns) - 1), why] for name, why in result.remarks.items() if name not in result.samples]
    return table


def text(results: list[Result], tools: Tools, about: dict[str, str]) -> str:
    parts = [", ".join(f"{key}: {value}" for key, value in about.items()), ""]
    parts += [f"{name} {version}" for name, version in tools.versions.items()]
    parts += [f"missing: {name} ({reason})" for name, reason in tools.missing.items()]
    for result in results:
        table = rows(result)
        widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
        parts += ["", f"{result.test.title} ({result.test.name})"]
        parts += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join(parts)


def data(results: list[Result], tools: Tools, about: dict[str, str]) -> dict[str, Any]:
    tests = {
        result.test.name: {"title": result.test.title, "samples": result.samples, "remarks": result.remarks}
        for result in results
    }
    return {"machine": about, "versions": tools.versions, "missing": tools.missing, "tests": tests}
