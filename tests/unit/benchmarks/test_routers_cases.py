"""Cases of `routers` are chosen by patterns of their names, ways by theirs."""

from __future__ import annotations

import click
import pytest
from benchmarks import ways
from benchmarks.__main__ import main
from benchmarks.routers_cases import Case, selected
from click.testing import CliRunner


def test_a_name_says_what_is_sent() -> None:
    assert Case("rest-unary", 4, 16, prompt=8_000).name == "rest-unary-x16-8kB"
    assert Case("grpc-stream", 512, 64, together=8).name == "grpc-512-x64-by8"
    assert Case("rest-stream", 64, 1000, pace=20).name == "rest-64-x1000-20ms"


def test_patterns_choose_cases() -> None:
    found = [case.name for case in selected(["rest-unary-x*", "grpc-64-x1"], quick=False)]
    assert found[:3] == ["rest-unary-x1", "rest-unary-x16", "rest-unary-x64"]
    assert found[-1] == "grpc-64-x1"


def test_a_pattern_without_a_case_is_an_error_that_names_the_cases() -> None:
    with pytest.raises(click.UsageError, match=r"--only rest-7: .* rest-64-x16"):
        selected(["rest-7"], quick=False)


@pytest.mark.parametrize(
    "arguments", [("--ways", "embedded,fastest"), ("--profile", "vllm-router")]
)
def test_an_option_that_names_no_way_is_an_error(arguments: tuple[str, str]) -> None:
    done = CliRunner().invoke(main, ["routers", *arguments])
    assert done.exit_code == 2 and "embedded-stock" in done.output


def test_direct_and_a_sketch_are_among_the_ways() -> None:
    assert {"direct", "sketch", "embedded-stock", "envoy-stock"} <= set(ways.NAMES)
