"""One real control plane for the ring; a namespace of its own for each test."""

import json
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def api(cluster: ControlPlane, method: str, path: str, body: object = None) -> Any:
    """Sends it as the administrator. kubectl takes a tenth of a second of CPU to start.

    Raises urllib.error.HTTPError.
    """
    headers = {"authorization": f"Bearer {cluster.token}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    sent = urllib.request.Request(f"{cluster.server}{path}", data, headers, method=method)
    context = ssl.create_default_context(cafile=str(cluster.ca))
    with urllib.request.urlopen(sent, context=context, timeout=30) as response:
        return json.load(response)


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """Made for this test, ready for pods, and deleted without waiting."""
    namespaces = "/api/v1/namespaces"
    body = {"metadata": {"generateName": "test-"}}
    name = api(control_plane, "POST", namespaces, body)["metadata"]["name"]

    def has_account() -> bool:
        listed = api(control_plane, "GET", f"{namespaces}/{name}/serviceaccounts")
        return any(account["metadata"]["name"] == "default" for account in listed["items"])

    eventually(has_account, what=f"accounts in {name}")
    yield name
    api(control_plane, "DELETE", f"{namespaces}/{name}")
