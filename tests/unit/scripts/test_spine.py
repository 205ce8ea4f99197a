"""The spine of a request, from lines that were traced."""

from __future__ import annotations

from scripts.measure.spine import Spine, Step, steps
from scripts.measure.tables import spine_text

SEVEN = [1, 2, 3, 4, 5, 6, 7]


def test_lines_that_execute_at_rest_are_not_on_the_spine() -> None:
    traced = {"gateway/relay.py": SEVEN, "gateway/watch.py": SEVEN}
    rest = {"gateway/relay.py": [1], "gateway/watch.py": [1, 2]}
    counts = {"gateway/relay.py": 100, "gateway/watch.py": 50}
    assert steps(traced, rest, counts) == (Step("gateway/relay.py", 6, 100),)


def test_common_errors_metrics_and_generated_code_are_left_out() -> None:
    files = ["common/rpc.py", "gateway/metrics.py", "gateway/errors.py", "v1/chat_pb2_grpc.py"]
    assert not steps(dict.fromkeys(files, SEVEN), {}, dict.fromkeys(files, 9))


def test_a_spine_adds_up_its_files() -> None:
    spine = Spine("unary REST, gateway", (Step("a.py", 7, 100), Step("b.py", 6, 1900)))
    assert list(spine_text([spine])) == [
        "",
        "unary REST, gateway: 2 files of 2,000 lines, 13 lines executed",
        "  goal: 10 files of 2,500 lines",
        "  a.py                                                 7 of   100",
        "  b.py                                                 6 of  1900",
    ]
