"""Two real nodes and the images. Needs Linux and root; in CI a missing prerequisite fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kube import node as nodes
from tests.support.kube import product
from tests.support.kube.images import ARCHIVES, dockerfile_image, read_image
from tests.support.kube.node import Node
from tests.support.kube.product import CPU_IMAGE, IMAGE
from tests.support.prerequisites import lacking

HERE = Path(__file__).parent
IMAGES = HERE.parents[1] / "deploy/images"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Images and rollouts take their time."""
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def prerequisites() -> None:
    if reason := nodes.lacking():
        lacking(reason)


@pytest.fixture(scope="session")
def node(prerequisites: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node") / "cluster", nodes=2) as node:
        yield node


@pytest.fixture(scope="session")
def archive(prerequisites: None) -> Path:
    """Of gateway, operator and echo engine."""
    return dockerfile_image(
        IMAGE, IMAGES / "open-autoglm/Dockerfile", ARCHIVES / "open-autoglm.tar"
    )


@pytest.fixture(scope="session")
def cpu_archive(prerequisites: None) -> Iterator[Path]:
    """Of vLLM on CPUs. It has gigabytes, so the test that imports it removes it."""
    path = ARCHIVES / "inference-cpu.tar"
    dockerfile_image(CPU_IMAGE, IMAGES / "inference-cpu/Dockerfile", path)
    read_image(path)
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def cpu_node(node: Node, cpu_archive: Path) -> str:
    """Return the name of the node that has the image of vLLM. Its archive is removed."""
    node.import_image(cpu_archive, 1)
    cpu_archive.unlink()
    return "node-1"


@pytest.fixture(scope="session")
def nodes_with_image(node: Node, archive: Path) -> Node:
    node.import_image(archive)
    return node


@pytest.fixture(scope="module")
def cluster(nodes_with_image: Node) -> Iterator[Node]:
    """Open-AutoGLM installed, and this thread on the nodes' network."""
    with product.installed(nodes_with_image) as node:
        yield node


@pytest.fixture(scope="module")
def address(cluster: Node) -> str:
    """Of the gateway's Service."""
    return product.gateway_address(cluster)
