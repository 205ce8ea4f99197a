"""Fits and plots of costs over sizes."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from benchmarks.loglog import HEIGHT, WIDTH, Curve, Panel, exponent, svg

SIZES = (1, 10, 100, 1000)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_is_that_power(power: float) -> None:
    assert exponent(tuple((n, 3.0 * n**power) for n in SIZES)) == pytest.approx(power)


def test_a_logarithm_shows_as_less_than_a_quarter_from_a_hundred_on() -> None:
    assert exponent(tuple((n, math.log(n)) for n in (100, 1000, 10_000))) < 0.25


def test_the_upper_half_begins_in_the_middle_of_the_logarithms() -> None:
    points = tuple((n, float(n)) for n in SIZES)
    assert Curve("c", points).upper == points[2:]
    assert Curve("c", points[:2]).upper == points[:2]


def test_a_plot_has_every_curve_with_its_exponent() -> None:
    curve = Curve("pick <fast>", tuple((n, 2.0 * n) for n in SIZES))
    drawn = ElementTree.fromstring(svg([Panel("endpoints", "microseconds", (curve,))]))
    texts = [element.text for element in drawn.iter() if element.text]
    assert "pick <fast> (exponent 1.00)" in texts and "endpoints" in texts


def test_numbers_of_the_axes_are_written_in_digits_and_end_at_their_lines() -> None:
    curve = Curve("c", ((1, 2e6), (1000, 9e6)))
    drawn = ElementTree.fromstring(svg([Panel("p", "u", (curve,))]))
    anchors = {e.text: e.attrib.get("text-anchor") for e in drawn.iter() if e.text}
    assert anchors["10,000,000"] == "end" and anchors["1,000"] == "middle"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_no_panel_of_a_plot_lies_on_another_or_outside(count: int) -> None:
    curve = Curve("c", tuple((n, 2.0 * n) for n in SIZES))
    panels = [Panel(f"p{n}", "u", (curve,) * (1 + n % 3)) for n in range(count)]
    drawn = ElementTree.fromstring(svg(panels))
    places = [g.attrib["transform"] for g in drawn.iter() if "transform" in g.attrib]
    corners = [tuple(float(x) for x in p[len("translate(") : -1].split(",")) for p in places]
    assert len(set(corners)) == count
    width, height = float(drawn.attrib["width"]), float(drawn.attrib["height"])
    assert all(x + WIDTH <= width and y + HEIGHT < height for x, y in corners)
    # Beside each other, or a whole panel further down.
    assert all(
        left == right or abs(left[0] - right[0]) >= WIDTH or abs(left[1] - right[1]) >= HEIGHT
        for left in corners
        for right in corners
    )
