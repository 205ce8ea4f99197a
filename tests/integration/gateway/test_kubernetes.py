"""A gateway over a small API server: pods come and go under requests."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import grpc
import pytest
from prometheus_client import CollectorRegistry
from tests.support.kube.fake_api_server import FakeApiServer, served
from tests.support.kube.objects import Object, agd, endpoint_slice

from autoglm import v1
from autoglm.gateway.app import Gateway
from autoglm.gateway.settings import GatewaySettings
from autoglm.kube.client import reading
from autoglm.testing.fake_pod import FakePod

FREE = "127.0.0.1:0"
GOING = {"ready": False, "serving": True, "terminating": True}


class Cluster:
    """A fake API server, and a gateway that follows it."""

    def __init__(self, kube: FakeApiServer, gateway: Gateway) -> None:
        self.kube = kube
        self.gateway = gateway

    async def pods(self, name: str, *pods: FakePod, **conditions: Any) -> None:
        """One slice a pod, since each fake listens on a port of its own."""
        for number, pod in enumerate(pods):
            self.kube.add(slice_of(name, number, pod, **conditions))

    async def page(self, path: str) -> tuple[int, Any]:
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{self.gateway.admin_port}{path}")


def slice_of(name: str, number: int, pod: FakePod, **conditions: Any) -> Object:
    called = f"{name}-{number}"
    return endpoint_slice(
        name,
        {called: "127.0.0.1"},
        name=called,
        port=pod.port,
        conditions={called: conditions},
    )


def _get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@asynccontextmanager
async def following(**more: Any) -> AsyncIterator[Cluster]:
    settings = GatewaySettings(
        grpc_address=FREE,
        http_address=FREE,
        metrics_address=FREE,
        kubernetes=True,
        shutdown_grace_seconds=0.5,
        drain_delay_seconds=0,
        **more,
    )
    kube = FakeApiServer()
    async with served(kube) as configuration:
        connect = partial(reading, configuration, "gateway")
        gateway = Gateway(settings, CollectorRegistry(), connect)
        await gateway.start()
        yield Cluster(kube, gateway)
        await gateway.close()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with following() as made:
        yield made


async def test_a_gateway_without_models_is_ready(cluster: Cluster, fleet: Any) -> None:
    await fleet.until(lambda: cluster.gateway.is_ready()[0])
    assert await cluster.page("/health/ready") == (
        200,
        {"draining": False, "routable_endpoints": 0},
    )


async def test_a_model_comes_without_a_restart_and_is_reported(
    cluster: Cluster, fleet: Any
) -> None:
    (pod,) = await fleet.pods(FakePod(model="glm"))
    stub = await fleet.stub(cluster.gateway)
    cluster.kube.add(agd("glm"))
    await cluster.pods("glm", pod)
    await fleet.until(lambda: fleet.routable(cluster.gateway) == 1)
    answer = await stub.Generate(v1.GenerateRequest(model="glm", text="hi"))
    assert answer.completions[0].text == pod.text
    assert await cluster.page("/routable") == (
        200,
        {
            "endpoints": [
                {
                    "namespace": "default",
                    "deployment": "glm",
                    "pod": "glm-0",
                    "address": f"127.0.0.1:{pod.port}",
                    "ready": True,
                }
            ]
        },
    )
    cluster.kube.delete(agd("glm"))
    await fleet.until(lambda: not cluster.gateway.core.snapshot().models)


async def test_a_pod_that_begins_to_end_gets_nothing_new_and_finishes_what_runs(
    cluster: Cluster, fleet: Any
) -> None:
    (leaving,) = await fleet.pods(FakePod(model="glm", text="a long answer"))
    stub = await fleet.stub(cluster.gateway)
    cluster.kube.add(agd("glm"))
    await cluster.pods("glm", leaving)
    await fleet.until(lambda: fleet.routable(cluster.gateway) == 1)
    leaving.open_gate.clear()
    stream = stub.GenerateStream(v1.GenerateRequest(model="glm", text="hi"))
    chunks = aiter(stream)
    first = await anext(chunks)
    (staying,) = await fleet.pods(FakePod(model="glm"))
    cluster.kube.add(slice_of("glm", 1, staying))
    cluster.kube.add(slice_of("glm", 0, leaving, **GOING))
    await fleet.until(
        lambda: [v.endpoint.pod for v in cluster.gateway.core.pool.views] == ["glm-1"]
    )
    await fleet.until(lambda: fleet.routable(cluster.gateway) == 1)
    for _ in range(10):
        await stub.Generate(v1.GenerateRequest(model="glm", text="hi"))
    assert (len(leaving.received), len(staying.received)) == (1, 10)
    leaving.open_gate.set()
    rest = [chunk.text async for chunk in chunks]
    assert "".join([first.text, *rest]) == "a long answer"


async def test_a_known_model_without_pods_says_why_and_when_to_come_back(
    cluster: Cluster, fleet: Any
) -> None:
    failure = {"reason": "OOMKilled", "message": "needs more memory"}
    status = {"phase": "Failed", "model": {"lastFailure": failure}}
    cluster.kube.add(agd("glm", status=status))
    await fleet.until(lambda: "glm" in cluster.gateway.core.snapshot().models)
    stub = await fleet.stub(cluster.gateway)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Generate(v1.GenerateRequest(model="glm", text="hi"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Failed: OOMKilled: needs more memory" in (refused.value.details() or "")
    body = {"model": "glm", "prompt": "hi"}
    url = f"http://127.0.0.1:{cluster.gateway.http_port}/v1/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "15")


async def test_the_older_resource_serves_a_name_even_while_it_has_no_pod(
    cluster: Cluster, fleet: Any
) -> None:
    (pod,) = await fleet.pods(FakePod(model="glm", aliases=("mine",)))
    young = {"servedName": "glm", "aliases": ["mine"]}
    cluster.kube.add(agd("young", created="2026-02-01T00:00:00Z", spec={"model": young}))
    cluster.kube.add(agd("glm", created="2026-01-01T00:00:00Z"))
    await cluster.pods("young", pod)
    await fleet.until(lambda: fleet.routable(cluster.gateway) == 1)
    stub = await fleet.stub(cluster.gateway)
    await stub.Generate(v1.GenerateRequest(model="mine", text="hi"))
    with pytest.raises(grpc.aio.AioRpcError, match="default/glm"):
        await stub.Generate(v1.GenerateRequest(model="glm", text="hi"))
    _, page = await cluster.page("/admin/resources")
    assert [r["served_by_others"] for r in page["resources"]] == [{}, {"glm": "default/glm"}]


async def test_a_name_is_never_routed_to_a_resource_that_may_not_claim_it(fleet: Any) -> None:
    """Not even while no other resource declares it, and the pods themselves list it."""
    (pod, other) = await fleet.pods(
        FakePod(model="glm", aliases=("gpt-4o",)), FakePod(model="gpt-4o")
    )
    rules = '[{"names": ["gpt-*"], "namespaces": ["platform"]}]'
    async with following(model_name_rules=rules) as cluster:
        cluster.kube.add(agd("glm", spec={"model": {"aliases": ["gpt-4o"]}}))
        await cluster.pods("glm", pod)
        await fleet.until(lambda: fleet.routable(cluster.gateway) == 1)
        stub = await fleet.stub(cluster.gateway)
        await stub.Generate(v1.GenerateRequest(model="glm", text="hi"))
        with pytest.raises(grpc.aio.AioRpcError) as rejected:
            await stub.Generate(v1.GenerateRequest(model="gpt-4o", text="hi"))
        assert rejected.value.code() is grpc.StatusCode.NOT_FOUND
        _, page = await cluster.page("/admin/resources")
        assert [r["not_allowed"] for r in page["resources"]] == [["gpt-4o"]]

        young = agd("x", "platform", created="2026-02-01T00:00:00Z")
        young["spec"]["model"]["servedName"] = "gpt-4o"
        cluster.kube.add(young)
        found = endpoint_slice(
            "x", {"x-0": "127.0.0.1"}, namespace="platform", name="x-0", port=other.port
        )
        cluster.kube.add(found)
        await fleet.until(lambda: fleet.routable(cluster.gateway) == 2)
        await stub.Generate(v1.GenerateRequest(model="gpt-4o", text="hi"))
        assert (len(pod.received), len(other.received)) == (1, 1)


@pytest.mark.parametrize(
    ("timeouts", "sentence"),
    [
        ({"chunkSeconds": 0.2}, "no chunk"),
        ({"totalSeconds": 1.5}, "deadline|Deadline|DEADLINE"),
    ],
)
async def test_a_resource_bounds_its_requests_by_its_own_timeouts(
    cluster: Cluster, fleet: Any, timeouts: dict[str, float], sentence: str
) -> None:
    (pod,) = await fleet.pods(FakePod(model="glm"))
    cluster.kube.add(agd("glm", spec={"model": {}, "routing": {"timeouts": timeouts}}))
    await cluster.pods("glm", pod)
    await fleet.until(lambda: fleet.routable(cluster.gateway) == 1)
    pod.open_gate.clear()
    stub = await fleet.stub(cluster.gateway)
    with pytest.raises(grpc.aio.AioRpcError, match=sentence) as late:
        async for _ in stub.GenerateStream(v1.GenerateRequest(model="glm", text="hi")):
            pass
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await fleet.until(lambda: pod.cancelled == 1)


async def test_requests_are_served_while_the_api_server_is_away(
    cluster: Cluster, fleet: Any
) -> None:
    pods = await fleet.pods(FakePod(model="glm"), FakePod(model="glm"))
    cluster.kube.add(agd("glm"))
    await cluster.pods("glm", *pods)
    await fleet.until(lambda: fleet.routable(cluster.gateway) == 2)
    stub = await fleet.stub(cluster.gateway)
    cluster.kube.stop()
    for _ in range(20):
        await stub.Generate(v1.GenerateRequest(model="glm", text="hi"))
    assert cluster.gateway.is_ready()[0]
    cluster.kube.add(slice_of("glm", 0, pods[0], **GOING))
    cluster.kube.start()
    await fleet.until(lambda: fleet.routable(cluster.gateway) == 1)
