"""One real control plane for the ring; a namespace of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kube import programs
from tests.support.kube.controlplane import ControlPlane
from tests.support.prerequisites import lacking
from tests.support.processes import eventually

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starting takes seconds, and a rollout too: the ring's limit is not the unit ring's."""
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    if reason := programs.lacking():
        lacking(reason)
    directory = tmp_path_factory.mktemp("control-plane") / "cluster"
    with ControlPlane(directory, fake_nodes=3) as cluster:
        yield cluster


@pytest.fixture
def namespace(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """Made for this test, ready for pods, and deleted without waiting."""
    listed = control_plane.kubectl(
        *("create", "-o", "name", "-f", "-"),
        text='{"apiVersion":"v1","kind":"Namespace","metadata":{"generateName":"test-"}}',
    )
    name = listed.strip().removeprefix("namespace/")
    account = ("serviceaccount", "default", "-n", name, "--ignore-not-found", "-o", "name")
    eventually(lambda: bool(control_plane.kubectl("get", *account)), what=f"accounts in {name}")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")
