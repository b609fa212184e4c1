"""Results as text, JSON, and Markdown with plots."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import plot
from benchmarks.install import Tools
from benchmarks.peers import PEERS
from benchmarks.plan import Column, Test
from benchmarks.run import Result

OURS = "procman"
LATER = "from a later run"
FLOORS = {peer.name for peer in PEERS if peer.is_floor}
About = dict[str, str]


def machine(seconds: float) -> About:
    model = re.search(r"^model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    kernel = ".".join(platform.release().split(".")[:2])
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{len(os.sched_getaffinity(0))} cores, {model[1].strip() if model else platform.machine()}",
        "memory": f"{round(int(memory[1]) / 1e6)} GB" if memory else "unknown",
        "system": f"{system}, Linux {kernel}, Python {platform.python_version()}",
        "duration": f"{seconds / 60:.0f} min",
    }


# --- one test as a table ---


def values(result: Result, name: str, column: Column) -> list[float]:
    return [sample[column.key] for sample in result.samples.get(name, []) if column.key in sample]


def number(value: float) -> str:
    """Three digits are all that a measurement is worth."""
    return f"{value:.0f}" if value == 0 or abs(value) >= 100 else f"{value:.3g}"


def spread(found: list[float]) -> str:
    """Return min/median/max, or one figure if these are alike."""
    if not found:
        return ""
    figures = [number(value) for value in (min(found), statistics.median(found), max(found))]
    return figures[0] if len(set(figures)) == 1 else "/".join(figures)


def ratio(result: Result, name: str, column: Column) -> str:
    """Return how many times procman's median the tool's is; that of the first kind of procman that has taken part."""
    kinds = (values(result, kind, column) for kind in result.samples if kind.startswith(OURS))
    ours, theirs = next(filter(None, kinds), []), values(result, name, column)
    if not ours or not theirs or not statistics.median(ours):
        return ""
    return f"{statistics.median(theirs) / statistics.median(ours):.2f}"


def table(result: Result) -> list[list[str]]:
    """Return the rows, heading first. Columns that have a better side have the ratio to procman behind them."""
    columns = [column for column in result.test.columns if any(values(result, name, column) for name in result.samples)]
    rows = [["tool"]]
    for column in columns:
        rows[0] += [column.title, "of procman"] if column.is_compared else [column.title]
    for name in (*result.samples, *(name for name in result.remarks if name not in result.samples)):
        row = [name]
        for column in columns:
            row.append(spread(values(result, name, column)))
            if column.is_compared:
                row.append(ratio(result, name, column))
        rows.append([*row, result.remarks.get(name, "")])
    rows[0].append("remark" if result.remarks else "")
    return [row if result.remarks else row[:-1] for row in rows]


# --- all of it ---


def text(results: list[Result], tools: Tools, about: About) -> str:
    parts = [", ".join(f"{key}: {value}" for key, value in about.items()), *tool_lines(tools), "min/median/max"]
    for result in results:
        rows = table(result)
        widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
        parts += ["", f"{result.test.title} ({result.test.name})"]
        for row in rows:
            parts.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(parts)


def tool_lines(tools: Tools) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in tools.versions.items())
    lines = [versions] + [f"missing: {name} ({reason})" for name, reason in tools.missing.items()]
    for peer in tools.present:
        lacks = [
            what
            for what, has in (
                ("the name of the process", peer.prefixes),
                ("the time", peer.stamps),
                ("whole lines (it passes blocks on)", peer.keeps_lines),
                ("a terminal for its processes", peer.gives_pty),
            )
            if not has
        ]
        if lacks and not peer.is_floor and peer.only == ("",):
            lines.append(f"{peer.name} does without: {', '.join(lacks)}")
    return lines


def data(results: list[Result], tools: Tools, about: About) -> dict[str, Any]:
    tests = {
        result.test.name: {"title": result.test.title, "samples": result.samples, "remarks": result.remarks}
        for result in results
    }
    return {"machine": about, "versions": tools.versions, "missing": tools.missing, "tests": tests}


def load(files: list[str], tests: list[Test]) -> tuple[list[Result], Tools, About]:
    """Return what `data` wrote, of one run or of parts of it."""
    parts = [json.loads(Path(file).read_text()) for file in files]
    samples = {name: found for part in parts for name, found in part["tests"].items()}
    results = [
        Result(test, samples[test.name]["samples"], samples[test.name]["remarks"])
        for test in tests
        if test.name in samples
    ]
    versions = {name: version for part in parts for name, version in part["versions"].items()}
    missing = {name: why for part in parts for name, why in part["missing"].items()}
    tools = Tools([peer for peer in PEERS if peer.name in versions], missing, versions)
    about = parts[0]["machine"]
    before = about.get(LATER, "").split(", ") if LATER in about else []
    again = ", ".join(dict.fromkeys([*before, *(name for part in parts[1:] for name in part["tests"])]))
    return results, tools, about | ({LATER: again} if again else {})


def write_docs(folder: Path, results: list[Result], tools: Tools, about: About) -> None:
    """Replace what is there: README.md with the tables, a plot a test, and all samples as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    below = f"{about['date']}, {about['machine']}; dot: median, line: minimum to maximum"
    parts = [
        "# Figures\n",
        "Written by `sh .ci/dev bench --docs`; [what is measured, and how](../../benchmarks/README.md). Each figure is",
        "minimum/median/maximum of the samples, `of procman` the ratio of the medians. All samples are in",
        "[results.json](results.json).\n",
        *(f"- {key}: {value}" for key, value in about.items()),
        *(f"- {line}" for line in tool_lines(tools)),
        "",
    ]
    parts += [f"![{title}]({file})\n" for title, file in write_curves(folder, results, below)]
    for result in results:
        parts.append(f"## {result.test.title}\n")
        for column in result.test.columns[: result.test.plots]:
            if marks := plot_marks(result, column):
                title = f"{result.test.title}: {column.title}"
                file = f"{result.test.name}-{column.key}.svg".replace(":", "-").replace("_", "-")
                (folder / file).write_text(plot.comparison(title, marks, below))
                parts.append(f"![{title}]({file})\n")
        rows = table(result)
        rows.insert(1, ["---"] * len(rows[0]))
        parts += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    (folder / "README.md").write_text("\n".join(parts))
    (folder / "results.json").write_text(json.dumps(data(results, tools, about)) + "\n")


def plot_marks(result: Result, column: Column) -> list[plot.Mark]:
    marks = []
    for name in result.samples:
        if found := values(result, name, column):
            colour = plot.OURS if name.startswith(OURS) else plot.FLOOR if name in FLOORS else plot.PEER
            marks.append(plot.Mark(name, min(found), statistics.median(found), max(found), colour))
    best_first = -1 if column.is_better == "more" else 1
    return sorted(marks, key=lambda mark: best_first * mark.middle)


FEW = 50
CURVES = (
    ("memory", "pss_mb", "Memory of the manager, by number of idle children", "PSS MB"),
    ("scale", "start_each_ms", "Start: time for each child, by number of children", "ms a child"),
    (
        "scale",
        "start_cpu_each_ms",
        "Start: CPU time of the manager for each child, by number of children",
        "ms a child",
    ),
    ("scale", "stop_each_ms", "Stop: time for each child, by number of children", "ms a child"),
)


def write_curves(folder: Path, results: list[Result], below: str) -> list[tuple[str, str]]:
    """Draw what depends on the number of children; return title and file of each."""
    written = []
    for family, key, title, unit in CURVES:
        series: dict[str, dict[int, float]] = {}
        for result in results:
            kind, _, children = result.test.name.partition(":")
            # With few children, the start of the manager itself is the most of it.
            is_shown = kind == family and (family == "memory" or int(children) >= FEW)
            for name in result.samples if is_shown else ():
                if found := values(result, name, Column(key, "")):
                    series.setdefault(name, {})[int(children)] = statistics.median(found)
        if any(len(points) > 1 for points in series.values()):
            file = f"curve-{key.removesuffix('_mb').replace('_', '-')}.svg"
            (folder / file).write_text(plot.curves(title, unit, series, below.partition(";")[0] + "; medians"))
            written.append((title, file))
    return written
