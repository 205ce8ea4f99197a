"""The plot of what routers cost is drawn from rows, of this run or of an earlier one's JSON."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from benchmarks import routers_plot
from benchmarks.report import Row
from click.testing import CliRunner


def row(way: str, clients: int, rate: float, **other: str | int) -> Row:
    plain: Row = {"kind": "rest-stream", "prompt": 200, "tokens": "64"}
    return {**plain, "way": way, "clients": clients, "tokens/s": rate, **other}


ROWS = (
    *(row("direct", 1, 100.0), row("ours", 1, 50.0), row("slow", 1, 0.0)),
    *(row("ours", 16, 90.0), row("direct", 16, 400.0), row("slow", 16, 3.0)),
    *(row("direct", 1, 8.0, kind="grpc-unary", tokens="4"),),
    *(row("ours", 64, 70.0, kind="grpc-stream", tokens="512"),),
    *(row("ours", 1, 20.0, kind="grpc-stream", tokens="512"),),
)


def test_a_panel_for_each_kind_and_response_that_has_a_curve() -> None:
    streams, grpc = routers_plot.panels(ROWS)
    assert (streams.unit, grpc.unit) == (
        "tokens/s: rest-stream, 64 tokens streamed",
        "tokens/s: grpc-stream, 512 tokens streamed",
    )
    assert [(c.name, c.points) for c in streams.curves] == [
        ("direct", ((1, 100.0), (16, 400.0))),
        ("ours", ((1, 50.0), (16, 90.0))),
    ]


def test_a_way_has_one_colour_in_all_panels_and_no_other_way_has_it() -> None:
    streams, grpc = routers_plot.panels(ROWS)
    colours = {curve.name: curve.colour for curve in streams.curves}
    assert grpc.curves[0].colour == colours["ours"] != colours["direct"]


def test_other_prompts_and_paced_tokens_are_no_points_of_a_curve() -> None:
    others = (row("ours", 256, 7.0, prompt=8000), row("ours", 1000, 7.0, tokens="64, 20 ms apart"))
    assert routers_plot.panels((*ROWS, *others)) == routers_plot.panels(ROWS)


def test_the_json_of_a_run_is_drawn_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "routers.json"
    file.write_text(json.dumps({"rows": ROWS, "conditions": "a run"}))

    done = CliRunner().invoke(routers_plot.main, [str(file)], catch_exceptions=False)

    assert done.exit_code == 0
    drawn = ElementTree.fromstring((tmp_path / "routers.svg").read_text())
    texts = [element.text for element in drawn.iter() if element.text]
    assert {"direct", "ours", "clients", "a run"} <= set(texts) and "slow" not in texts


def test_a_run_too_quick_for_curves_leaves_no_plot(tmp_path: Path) -> None:
    routers_plot.draw(ROWS[:3], tmp_path / "routers.svg", "a run")
    assert not list(tmp_path.iterdir())
