"""Tokens a second over clients, one curve for each way: a plot of what `routers` has measured.

Drawn from a report's rows; `python -m benchmarks.routers_plot FILE.json` draws an earlier run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

import click

from benchmarks.loglog import COLOURS, Curve, Panel, svg
from benchmarks.report import Row

# Of prompts as short as most rows have, tokens as fast as they go.
_SHORT = 200
_RESPONSES = {"4": "4 tokens in one", "64": "64 tokens streamed", "512": "512 tokens streamed"}


def panels(rows: Sequence[Row]) -> list[Panel]:
    """One for each kind and length of response with a curve: two numbers of clients at least."""
    return list(_panels(rows))


def draw(rows: Sequence[Row], file: Path, conditions: str) -> None:
    """Nothing where there is no curve to draw, as of a quick run."""
    if found := panels(rows):
        file.write_text(svg(found, caption=conditions))
        print(f"written to {file}")


def _panels(rows: Sequence[Row]) -> Iterator[Panel]:
    plain = [row for row in rows if row["prompt"] == _SHORT and row["tokens"] in _RESPONSES]
    ways = dict(zip(dict.fromkeys(str(row["way"]) for row in plain), cycle(COLOURS), strict=False))
    for kind, response in dict.fromkeys((str(row["kind"]), str(row["tokens"])) for row in plain):
        same = [row for row in plain if (row["kind"], row["tokens"]) == (kind, response)]
        every = tuple(_curve(way, colour, same) for way, colour in ways.items())
        if curves := tuple(curve for curve in every if len(curve.points) > 1):
            what = f"tokens/s: {kind}, {_RESPONSES[response]}"
            yield Panel("clients", what, curves, exponents=False)


def _curve(way: str, colour: str, rows: Sequence[Row]) -> Curve:
    """Without what came to nothing: it has no logarithm."""
    rates = {int(row["clients"]): float(row["tokens/s"]) for row in rows if row["way"] == way}
    return Curve(way, tuple(sorted(p for p in rates.items() if p[1] > 0)), colour)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(file: Path) -> None:
    """Redraw FILE, the JSON of a run of `routers`, beside it."""
    run = json.loads(file.read_text())
    draw(run["rows"], file.with_suffix(".svg"), run.get("conditions", ""))


if __name__ == "__main__":
    main()
