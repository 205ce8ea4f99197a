"""Curves of cost over size, fitted and drawn with logarithmic axes, as SVG. No plotting library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from statistics import linear_regression

Points = tuple[tuple[int, float], ...]
WIDTH, HEIGHT, LEFT, BELOW, LEGEND = 420, 300, 76, 50, 18
COLOURS = (
    *("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2"),
    *("#7f7f7f", "#bcbd22", "#17becf", "#000000", "#aec7e8"),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """Sizes go up."""

    name: str
    points: Points
    colour: str = ""
    """Of COLOURS, where it is to be the same in all panels; else by the place in its panel."""

    @property
    def upper(self) -> Points:
        """The larger half of the sizes, on the logarithmic axis; two at least."""
        middle = math.sqrt(self.points[0][0] * self.points[-1][0])
        large = tuple(point for point in self.points if point[0] >= middle)
        return large if len(large) > 1 else self.points[-2:]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over one thing."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    exponents: bool = True
    """Shown beside the curves' names."""


def exponent(points: Points) -> float:
    """The slope of the best straight line through the logarithms (least squares)."""
    logarithms = ([math.log(part) for part in parts] for parts in zip(*points, strict=True))
    return linear_regression(*logarithms).slope


def svg(panels: Sequence[Panel], columns: int = 2, caption: str = "") -> str:
    """All panels, so many beside each other, over a line about the run."""
    parts, top = [], 0.0
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        for number, panel in enumerate(row):
            place = f"translate({number * WIDTH},{top:.0f})"
            parts.append(f'<g transform="{place}">{"".join(_drawn(panel))}</g>')
        top += HEIGHT + LEGEND * max(len(panel.curves) for panel in row)
    if caption:
        parts.append(_text(LEFT, top + LEGEND / 2, caption, "start"))
        top += LEGEND
    width = WIDTH * min(columns, len(panels))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top:.0f}" '
    style = 'font-family="sans-serif" font-size="11">'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f"{head}{style}{paper}{''.join(parts)}</svg>\n"


def _drawn(panel: Panel) -> Iterator[str]:
    across = _Axis([x for c in panel.curves for x, _ in c.points], LEFT, WIDTH - 20)
    up = _Axis([y for c in panel.curves for _, y in c.points], HEIGHT - BELOW, 30)
    yield f'<text x="{LEFT}" y="18" font-weight="bold">{escape(panel.unit)}</text>'
    yield _text((across.begin + across.end) / 2, HEIGHT - 15, panel.title, "middle")
    for decade in across.decades:
        x = across.at(decade)
        yield _line(x, up.begin, x, up.end) + _text(x, up.begin + 15, _number(decade), "middle")
    for decade in up.decades:
        y = up.at(decade)
        yield _line(across.begin, y, across.end, y) + _text(LEFT - 5, y + 4, _number(decade), "end")
    for number, curve in enumerate(panel.curves):
        colour = curve.colour or COLOURS[number % len(COLOURS)]
        places = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in curve.points)
        yield f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'
        fitted = f" (exponent {exponent(curve.points):z.2f})" if panel.exponents else ""
        words = f"{curve.name}{fitted}"
        below = HEIGHT + LEGEND * number
        yield f'<text x="{LEFT}" y="{below}" fill="{colour}">{escape(words)}</text>'


class _Axis:
    """From whole decade to whole decade."""

    def __init__(self, values: Iterable[float], begin: float, end: float) -> None:
        found = list(values)
        self.begin, self.end = begin, end
        self._low = math.floor(math.log10(min(found)))
        self._high = max(self._low + 1, math.ceil(math.log10(max(found))))

    @property
    def decades(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self.begin + share * (self.end - self.begin)


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _number(decade: float) -> str:
    """Digits rather than an exponent, also for a million."""
    return f"{decade:,.0f}" if decade >= 1 else f"{decade:g}"
