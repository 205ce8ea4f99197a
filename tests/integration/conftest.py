"""What tests against real engines share: warnings of theirs that say nothing about us."""

import gc
import warnings
from collections.abc import Iterator

import pytest

# Of names that torch, vLLM and what they build on have deprecated and still use themselves.
VLLM_WARNINGS = tuple(
    rf"ignore::{category}:(torch|vllm|transformers|huggingface_hub|tokenizers|xgrammar)\."
    for category in ("DeprecationWarning", "FutureWarning")
)
# A failed start leaves one behind, which may be collected in the middle of a later test.
_OPEN_CONTEXT = "ignore:Unclosed context:ResourceWarning"


@pytest.fixture(scope="module", autouse=True)
def vllm_is_forgotten() -> Iterator[None]:
    """vLLM leaves a ZeroMQ context open where it failed to start; it ends when it is collected."""
    yield
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unclosed context", ResourceWarning)
        gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("vllm"):
            for warning in (*VLLM_WARNINGS, _OPEN_CONTEXT):
                item.add_marker(pytest.mark.filterwarnings(warning))
