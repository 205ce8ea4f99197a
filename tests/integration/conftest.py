"""What tests against real engines share: warnings of theirs that say nothing about us."""

import pytest

# Of names that torch, vLLM and what they build on have deprecated and still use themselves.
VLLM_WARNINGS = tuple(
    rf"ignore::{category}:(torch|vllm|transformers|huggingface_hub|tokenizers|xgrammar)\."
    for category in ("DeprecationWarning", "FutureWarning")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("vllm"):
            for warning in VLLM_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))
