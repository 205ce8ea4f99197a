"""What our planes have to reach beside other routers, and whether a run did.

A requirement is a case, one of our ways, and a figure of it: a ratio to another way of the same
round, or a difference in milliseconds. `must` is the least that is accepted, `goal` what is aimed
at. Nothing here ends a run: a machine with other work is no reason to fail.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import rivals
from benchmarks.report import Report, Row, median_spread, shown
from benchmarks.routers_cases import Case

COLUMNS = ("requirement", "case", "way", "figure", "rounds", "must", "goal", "verdict", "of")
BEST_RUST = "best Rust router"


@dataclass(frozen=True, slots=True)
class Measured:
    """A way in a case: what the load generator has reported, a report a round."""

    case: Case
    way: str
    rounds: Sequence[Mapping[str, Any]]

    @property
    def requests_per_second(self) -> list[float]:
        return [(f["requests"] - f["errors"]) / f["seconds"] for f in self.rounds]

    @property
    def errors(self) -> int:
        return sum(f["errors"] for f in self.rounds)

    def median(self, value: Callable[[Mapping[str, Any]], float]) -> float:
        return statistics.median(map(value, self.rounds))

    # A figure for each round.

    def of(self, other: Measured) -> list[float]:
        """Ratios of the rates; tokens of streams, requests of others."""
        return self._paired(other, lambda ours, theirs: ours / theirs if theirs else 0.0, _rate)

    def cpu_of(self, other: Measured) -> list[float]:
        """Ratios of the CPU time of a request, or of a chunk."""
        name = "cpu_request" if self.case.is_unary else "cpu_chunk"
        return self._paired(other, lambda o, t: o / t if t else 0.0, lambda _, f: float(f[name]))

    def first_later_than(self, other: Measured) -> list[float]:
        """Milliseconds between the medians of the first message."""
        return self._paired(other, lambda o, t: o - t, _first_milliseconds)

    def _paired(
        self,
        other: Measured,
        compare: Callable[[float, float], float],
        value: Callable[[Case, Mapping[str, Any]], float],
    ) -> list[float]:
        pairs = zip(self.rounds, other.rounds, strict=True)
        return [compare(value(self.case, ours), value(self.case, theirs)) for ours, theirs in pairs]


Results = Mapping[tuple[str, str], Measured]
"""By names of case and way."""


def _rate(case: Case, found: Mapping[str, Any]) -> float:
    count = found["requests"] - found["errors"] if case.is_unary else found["tokens"]
    return float(count / found["seconds"])


def _first_milliseconds(_: Case, found: Mapping[str, Any]) -> float:
    return float(found["time_to_first_message"]["p50"] * 1000)


@dataclass(frozen=True, slots=True)
class Requirement:
    """`against` is a way, or BEST_RUST: the one with the highest rate in the case."""

    what: str
    case: str
    way: str
    against: str
    must: float | None = None
    goal: float | None = None
    figure: Callable[[Measured, Measured], list[float]] = Measured.of
    is_at_most: bool = False

    def verdict(self, figure: float) -> str:
        if self.must is None and self.goal is None:
            return "–"
        if self.goal is not None and self._reaches(figure, self.goal):
            return "goal met"
        if self.must is not None and self._reaches(figure, self.must):
            return "met" if self.goal is None else "must met"
        return "missed" if self.must is not None else "goal missed"

    def _reaches(self, figure: float, bound: float) -> bool:
        return figure <= bound if self.is_at_most else figure >= bound


def requirements() -> Iterator[Requirement]:
    yield from _rest(
        "embedded-stock", ((None, None), (0.8, 1.0)), ((1.2, 1.5), (1.4, 1.5)), 2.2, 2.5
    )
    for case in (*_UNARY[1:], *_SHORT, *_LONG):
        yield Requirement("rate, of the sketch", case, "embedded-stock", "sketch", 0.8)
    yield Requirement(
        *("first token later, ms", "rest-64-x1", "embedded-stock", "direct", 0.3),
        figure=Measured.first_later_than,
        is_at_most=True,
    )
    for case in (*_UNARY[1:], _LONG[-1]):
        what = "CPU of a request" if case in _UNARY else "CPU of a chunk"
        for against in (BEST_RUST, "sketch"):
            named = f"{what}, of the {against}"
            yield Requirement(named, case, "embedded-stock", against, figure=Measured.cpu_of)
    for case in _UNARY[1:]:
        yield Requirement("rate, of LiteLLM", case, "embedded-stock", "litellm", goal=60)
    yield from _rest("envoy-stock", ((None, None), (0.4, 0.6)), ((None, None), (1.1, 1.3)), 2.5, 3)
    for case in ("grpc-64-x16", "grpc-64-x64", "grpc-512-x16", "grpc-512-x64"):
        yield Requirement("rate, of bare Envoy", case, "envoy", "bare-envoy", 0.5, 0.75)


_UNARY = ("rest-unary-x1", "rest-unary-x16", "rest-unary-x64")
_SHORT = ("rest-64-x1", "rest-64-x16", "rest-64-x64")
_LONG = ("rest-512-x16", "rest-512-x64")
_Bounds = tuple[float | None, float | None]


def _rest(
    way: str,
    unary: tuple[_Bounds, _Bounds],
    short: tuple[_Bounds, _Bounds],
    must: float,
    goal: float,
) -> Iterator[Requirement]:
    """Bounds of unary calls and of 64 tokens are for one client, and for more."""
    for names, (of_one, of_more) in ((_UNARY, unary), (_SHORT, short)):
        for name in names:
            bounds = of_one if name.endswith("-x1") else of_more
            yield Requirement(f"rate, of the {BEST_RUST}", name, way, BEST_RUST, *bounds)
    for name in _LONG:
        yield Requirement(f"rate, of the {BEST_RUST}", name, way, BEST_RUST, must, goal)


def report(results: Results, of: Report) -> Report:
    """The table of all requirements that this run has measured."""
    rows = [row for one in requirements() if (row := _row(one, results)) is not None]
    return Report("routers-verdict", "Requirements", COLUMNS, rows, conditions=of.conditions)


def _row(one: Requirement, results: Results) -> Row | None:
    ours = results.get((one.case, one.way))
    other = _other(one, results)
    if ours is None or other is None:
        return None
    figure, spread = median_spread(one.figure(ours, other))
    failed = f", {ours.errors} errors" if ours.errors else ""
    return {
        "requirement": one.what,
        "case": one.case,
        "way": one.way,
        "figure": figure,
        "rounds": spread,
        "must": _bound(one.must, one.is_at_most),
        "goal": _bound(one.goal, one.is_at_most),
        "verdict": one.verdict(figure) + failed,
        "of": other.way,
    }


def _bound(bound: float | None, is_at_most: bool) -> str:
    return "–" if bound is None else f"{'≤' if is_at_most else '≥'} {shown(float(bound))}"


def _other(one: Requirement, results: Results) -> Measured | None:
    if one.against != BEST_RUST:
        return results.get((one.case, one.against))
    peers = [m for name in rivals.RUST if (m := results.get((one.case, name))) is not None]
    return max(peers, key=lambda m: m.median(lambda f: _rate(m.case, f)), default=None)
