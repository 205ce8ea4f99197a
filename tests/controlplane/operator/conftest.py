"""The CRD on the ring's control plane, and the test's own view of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.kube.controlplane import ControlPlane
from tests.support.operating import Cluster

from autoglm.kube.client import Client, configure
from autoglm.kube.kinds import PROFILE, RESOURCE

CRDS = Path(__file__).parents[3] / "deploy/crds"


@pytest.fixture(scope="session")
def crd(control_plane: ControlPlane) -> ControlPlane:
    control_plane.kubectl("apply", "--server-side", "-k", str(CRDS))
    served = (RESOURCE.path(), PROFILE.path())
    control_plane.wait(
        "the CRDs", lambda: all(control_plane.kubectl("get", "--raw", path) for path in served)
    )
    return control_plane


@pytest.fixture
async def cluster(crd: ControlPlane, namespace: str) -> AsyncIterator[Cluster]:
    configuration = await configure(str(crd.kubeconfig), "")
    client = Client(configuration, "tests")
    cluster = Cluster(configuration, client, namespace)
    yield cluster
    await cluster.stop_all()
    await client.close()
