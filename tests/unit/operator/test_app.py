"""An operator process, over an API server in memory: from a resource to its children and back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry
from tests.support.fake_cluster import resource
from tests.support.kube.fake_api_server import FakeApiServer
from tests.support.operating import until

from autoglm.kube.kinds import RESOURCE, child_kind
from autoglm.operator.app import Operator
from autoglm.operator.settings import OperatorSettings

PATH = RESOURCE.path("ns", "glm")
LEASE = "/apis/coordination.k8s.io/v1/namespaces/autoglm-system/leases/autoglm-operator"
CONFIG_MAP = child_kind("v1", "ConfigMap").path("ns", "glm")


@pytest.mark.timeout(150)
async def test_the_leader_creates_children_repairs_them_and_releases_the_lease() -> None:
    server = FakeApiServer()
    server.put(PATH, resource("glm"))
    operator = Operator(
        OperatorSettings(metrics_address="127.0.0.1:0", identity="op"),
        Configuration(),
        wrap=lambda _: server,
        registry=CollectorRegistry(),
    )
    assert operator.is_ready() == (False, {"synced": False, "leading": False, "waiting": {}})
    running = asyncio.create_task(operator.run())

    await until(lambda: "status" in server.objects[PATH], "a status")
    assert operator.is_ready() == (True, {"synced": True, "leading": True})
    assert server.objects[LEASE]["spec"]["holderIdentity"].startswith("op_")

    server.remove(CONFIG_MAP)
    await until(lambda: CONFIG_MAP in server.objects, "the ConfigMap")

    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert "holderIdentity" not in server.objects[LEASE]["spec"]


@pytest.mark.parametrize(
    ("address", "hosts"), [("[::1]:0", ["::1"]), ("[::]:0", ["::1", "127.0.0.1"])]
)
@pytest.mark.timeout(150)
async def test_the_operator_serves_probes_over_ipv6(address: str, hosts: list[str]) -> None:
    operator = Operator(
        OperatorSettings(metrics_address=address, identity="op"),
        Configuration(),
        wrap=lambda _: FakeApiServer(),
        registry=CollectorRegistry(),
    )
    running = asyncio.create_task(operator.run())
    await until(lambda: operator.is_ready()[0], "readiness")
    for host in hosts:
        reader, writer = await asyncio.open_connection(host, operator.admin_port)
        writer.write(b"GET /health/ready HTTP/1.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
