"""Two real nodes for the ring. Needs Linux and root; in CI a missing prerequisite fails."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm.testing import node as nodes
from autoglm.testing.node import Node

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Images and rollouts take their time."""
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def prerequisites() -> None:
    if reason := nodes.lacking():
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="session")
def node(prerequisites: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node") / "cluster", nodes=2) as node:
        yield node
