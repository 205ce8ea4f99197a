"""Curves of cost over size, fitted and drawn with logarithmic axes, as SVG. No plotting library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

Points = tuple[tuple[int, float], ...]
WIDTH, HEIGHT, MARGIN, LEGEND = 420, 300, 50, 18
COLOURS = (
    *("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2"),
    *("#7f7f7f", "#bcbd22", "#17becf"),
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
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    along = sum((x - x_mean) ** 2 for x in xs)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / along


def svg(panels: Sequence[Panel], columns: int = 2) -> str:
    """All panels, so many beside each other."""
    parts, top = [], 0.0
    for first in range(0, len(panels), columns):
        row = panels[first : first + columns]
        for number, panel in enumerate(row):
            place = f"translate({number * WIDTH},{top:.0f})"
            parts.append(f'<g transform="{place}">{"".join(_drawn(panel))}</g>')
        top += HEIGHT + LEGEND * max(len(panel.curves) for panel in row)
    width = WIDTH * min(columns, len(panels))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top:.0f}" '
    style = 'font-family="sans-serif" font-size="11">'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f"{head}{style}{paper}{''.join(parts)}</svg>\n"


def _drawn(panel: Panel) -> Iterator[str]:
    across = _Axis([x for c in panel.curves for x, _ in c.points], MARGIN, WIDTH - 20)
    up = _Axis([y for c in panel.curves for _, y in c.points], HEIGHT - MARGIN, 30)
    yield f'<text x="{MARGIN}" y="18" font-weight="bold">{escape(panel.unit)}</text>'
    yield f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 15}">{escape(panel.title)}</text>'
    for decade in across.decades:
        x = across.at(decade)
        yield _line(x, up.begin, x, up.end) + _text(x - 8, up.begin + 15, f"{decade:,g}")
    for decade in up.decades:
        y = up.at(decade)
        yield _line(across.begin, y, across.end, y) + _text(5, y + 4, f"{decade:,g}")
    for number, curve in enumerate(panel.curves):
        colour = curve.colour or COLOURS[number % len(COLOURS)]
        places = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in curve.points)
        yield f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'
        fitted = f" (exponent {exponent(curve.points):.2f})" if panel.exponents else ""
        words = f"{curve.name}{fitted}"
        below = HEIGHT + LEGEND * number
        yield f'<text x="{MARGIN}" y="{below}" fill="{colour}">{escape(words)}</text>'


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


def _text(x: float, y: float, words: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'
