"""How much longer tests run with `make soak`, which sets TEST_SOAK. Never in CI."""

from __future__ import annotations

import os

IS_SOAK = os.environ.get("TEST_SOAK") == "1"
EXAMPLES = 20
"""Times as many random examples."""
REPETITIONS = 5
"""Of each chaos test."""
TEST_SECONDS = 3600
"""The limit of one test, in place of its own."""


def examples(count: int) -> int:
    """`max_examples` of a test that sets it."""
    return count * EXAMPLES if IS_SOAK else count
