"""What the Dockerfiles of deploy/images make. A stand-in takes the place of vLLM's GPU image."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from tests.support.kube.images import ARCHIVES, Image, dockerfile_image, read_image
from tests.support.kube.node import Node

GPU_IMAGE = "open-autoglm-inference:0.1.0"
GPU_DOCKERFILE = Path(__file__).parents[2] / "deploy/images/inference/Dockerfile"
BUILT = ["archive", "cpu_archive", "gpu_archive"]
BUILD_TOOLS = {"gcc", "g++", "cc", "c++", "ld", "make", "cmake", "git", "pip", "pip3", "hatchling"}
SPACE = "images"
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": SPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "echo", "namespace": SPACE},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "engine",
                "image": GPU_IMAGE,
                "args": ["inference", "--engine=echo", "--grpc-address=0.0.0.0:50051"],
                "readinessProbe": {"grpc": {"port": 50051}, "periodSeconds": 1},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    },
}


@pytest.fixture(scope="session")
def gpu_archive(prerequisites: None) -> Path:
    return dockerfile_image(GPU_IMAGE, GPU_DOCKERFILE, ARCHIVES / "inference.tar")


@pytest.fixture(params=BUILT)
def image(request: pytest.FixtureRequest) -> Image:
    return read_image(request.getfixturevalue(request.param))


@pytest.fixture
def pod(node: Node, gpu_archive: Path) -> Iterator[Node]:
    node.import_image(gpu_archive)
    node.apply(NAMESPACE, POD)
    yield node
    node.kubectl("delete", "namespace", SPACE)


def test_images_say_what_they_are_and_run_as_an_unprivileged_user(image: Image) -> None:
    labels = image.config["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"].startswith("open-autoglm")
    assert labels[f"{prefix}licenses"] == "Apache-2.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels[f"{prefix}version"])
    assert image.config["User"] == "10001:10001"
    assert image.config["Entrypoint"] == ["autoglm"]


@pytest.mark.parametrize("name", ["archive", "cpu_archive"])
def test_images_hold_nothing_that_builds(name: str, request: pytest.FixtureRequest) -> None:
    """The base of the third is a third party's."""
    files = map(PurePosixPath, read_image(request.getfixturevalue(name)).files)
    places = {"bin", "sbin", "site-packages", "dist-packages"}
    assert {f.name for f in files if f.parent.name in places} & BUILD_TOOLS == set()


@pytest.mark.parametrize("name", ["archive", "cpu_archive"])
def test_a_new_version_of_ours_is_a_small_layer(name: str, request: pytest.FixtureRequest) -> None:
    assert read_image(request.getfixturevalue(name)).layers[-1] < 20_000_000


def test_what_is_added_to_vllms_image_runs_under_the_restricted_standard(pod: Node) -> None:
    pod.kubectl("wait", "-n", SPACE, "pod/echo", "--for=condition=Ready", "--timeout=60s")
