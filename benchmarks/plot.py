"""Plots as SVG, drawn by hand: a few dozen lines, where a plotting library is 100 MB."""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise
from typing import NamedTuple

OURS, PEER, FLOOR = "#c2410c", "#334155", "#94a3b8"
PALETTE = ("#2563eb", "#15803d", "#7c3aed", "#be185d", "#0e7490", "#a16207", "#4d7c0f", "#475569")
WIDTH = 760
LEFT, RIGHT = 190, 90  # beside the axis: names, figures
ROW = 24
LOG_FROM = 20  # the largest is so many times the smallest: else the small ones are all alike


class Mark(NamedTuple):
    """One tool in one test."""

    name: str
    low: float
    middle: float
    high: float
    colour: str


class Axis(NamedTuple):
    """Maps values to the pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    def at(self, value: float) -> float:
        if self.is_log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [10.0**power for power in powers if self.low <= 10.0**power <= self.high]
        step = 10.0 ** math.floor(math.log10(self.high))
        while self.high / step < 4:
            step /= 2
        return [step * count for count in range(int(self.high / step) + 1)]


def axis(values: list[float], start: float, end: float) -> Axis:
    most = max(values) or 1.0
    least = min((value for value in values if value > 0), default=most)
    if most / least < LOG_FROM:
        return Axis(0.0, most * 1.05, start, end, is_log=False)
    return Axis(least / 1.5, most * 1.2, start, end, is_log=True)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def text(x: float, y: float, said: str, colour: str = PEER, anchor: str = "start", weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" fill="{colour}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(said)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def dot(x: float, y: float, colour: str, radius: float = 4.5) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'


def picture(height: float, title: str, below: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif"'
    frame = [
        f'{head} font-size="13">',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>',
        text(12, 24, title, "#0f172a", weight="bold"),
        text(12, height - 10, below, FLOOR),
    ]
    return "\n".join([*frame, *parts, "</svg>"]) + "\n"


def comparison(title: str, marks: list[Mark], below: str) -> str:
    """One row a tool: the median as a dot, minimum to maximum as a line."""
    across = axis([value for mark in marks for value in mark[1:4]], LEFT, WIDTH - RIGHT)
    bottom = 48 + ROW * len(marks)
    parts = []
    for tick in across.ticks():
        x = across.at(tick)
        parts += [line(x, 40, x, bottom, "#e2e8f0"), text(x, bottom + 16, number(tick), FLOOR, "middle")]
    if across.is_log:
        parts.append(text(WIDTH - 12, bottom + 16, "log scale", FLOOR, "end"))
    for row, mark in enumerate(marks):
        y = 56 + ROW * row
        weight = "bold" if mark.colour == OURS else "normal"
        parts += [
            text(LEFT - 12, y + 4, mark.name, mark.colour, "end", weight),
            line(across.at(mark.low), y, across.at(mark.high), y, mark.colour, 2),
            dot(across.at(mark.middle), y, mark.colour),
            text(WIDTH - 12, y + 4, number(mark.middle), mark.colour, "end", weight),
        ]
    return picture(bottom + 48, title, below, parts)


def curves(title: str, unit: str, series: dict[str, dict[int, float]], below: str) -> str:
    """One line a tool, over the number of children."""
    height, bottom = 420, 360
    across = axis([float(count) for points in series.values() for count in points], 60, WIDTH - 150)
    up = axis([value for points in series.values() for value in points.values()], bottom, 48)
    parts = [text(12, 42, unit + (", log" if up.is_log else ""), FLOOR)]
    for tick in up.ticks():
        parts += [line(60, up.at(tick), WIDTH - 150, up.at(tick), "#e2e8f0")]
        parts += [text(54, up.at(tick) + 4, number(tick), FLOOR, "end")]
    for count in sorted({count for points in series.values() for count in points}):
        parts.append(text(across.at(count), bottom + 18, number(count), FLOOR, "middle"))
    parts.append(text(WIDTH - 12, bottom + 18, "children", FLOOR, "end"))
    last_y = math.inf
    # From below upwards, each label at least a line above the one before.
    ordered = sorted(
        (name for name in series if series[name]), key=lambda name: -up.at(series[name][max(series[name])])
    )
    for order, name in enumerate(ordered):
        colour = OURS if name == "procman" else PALETTE[order % len(PALETTE)]
        at = [(across.at(count), up.at(value)) for count, value in sorted(series[name].items())]
        parts += [line(*before, *after, colour, 2) for before, after in pairwise(at)]
        parts += [dot(x, y, colour, 3) for x, y in at]
        last_y = min(last_y - 15, at[-1][1])
        weight = "bold" if name == "procman" else "normal"
        parts.append(text(max(at[-1][0], 0) + 9, last_y + 4, name, colour, weight=weight))
    return picture(height, title, below, parts)
