"""The trailer with which a pod says what it has counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.common.usage import TokenUsage, read_usage, write_usage

COUNTS = st.integers(0, 10**12 - 1)
REASONS = st.lists(st.sampled_from(["stop", "length", "tool_calls"]), max_size=8)


@given(prompt=COUNTS, completion=COUNTS, reasons=REASONS)
def test_what_is_written_is_read(prompt: int, completion: int, reasons: list[str]) -> None:
    assert read_usage(write_usage(prompt, completion, reasons)) == TokenUsage(
        prompt, completion, tuple(reasons)
    )


def test_the_usage_of_several_requests_adds_up() -> None:
    first, last = TokenUsage(1, 2, ("stop",)), TokenUsage(30, 40, ("length",))
    assert first.after(None) == first
    assert last.after(first) == TokenUsage(31, 42, ("length",))


@pytest.mark.parametrize(
    "text", ["", "prompt=1", "prompt=-1 completion=2", "prompt=1 completion=2 x"]
)
def test_all_else_is_nothing(text: str) -> None:
    assert read_usage(text) is None
