"""The gateway against a real API server. Pods are fakes on loopback, which slices may not name: the
reader puts loopback in the place of the documentation address that the slices have.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from tests.support.kube.controlplane import ControlPlane
from tests.support.kube.objects import Object, agd, endpoint_slice

from autoglm import v1
from autoglm.api.deployment import API_VERSION
from autoglm.api.labels import PLURAL
from autoglm.common import rpc
from autoglm.gateway.app import Gateway
from autoglm.gateway.endpoints import kubernetes_discovery
from autoglm.gateway.settings import GatewaySettings
from autoglm.kube.reflector import Reader
from autoglm.kube.transport import Query
from autoglm.testing.fake_pod import FakePod
from autoglm.v1.inference_pb2_grpc import InferenceStub

FREE = "127.0.0.1:0"
# RFC 5737: never anybody's address.
NOWHERE = "192.0.2.1"
GOING = {"ready": False, "serving": True, "terminating": True}
PATIENCE_SECONDS = 30.0
# The API server ends with the thread that started it, so that thread outlives the test.
STARTER = ThreadPoolExecutor(max_workers=1)
CRDS = Path(__file__).parents[3] / "deploy" / "crds"


class OnLoopback:
    """Reads the real API; its responses name loopback in place of `NOWHERE`."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def page(self, path: str, query: Query) -> bytes:
        return _moved(await self._reader.page(path, query))

    async def lines(self, path: str, query: Query) -> AsyncIterator[bytes]:
        lines = self._reader.lines(path, query)
        async with aclosing(lines):  # type: ignore[type-var]  # a generator in fact
            async for line in lines:
                yield _moved(line)


def _moved(text: bytes) -> bytes:
    return text.replace(NOWHERE.encode(), b"127.0.0.1")


@asynccontextmanager
async def connect(kubeconfig: str) -> AsyncIterator[OnLoopback]:
    async with kubernetes_discovery.connect(kubeconfig) as reader:
        yield OnLoopback(reader)


@pytest.fixture
def cluster(control_plane: ControlPlane) -> ControlPlane:
    for file in sorted(CRDS.glob("autoglm.io_*.yaml")):
        control_plane.apply(*(d for d in yaml.safe_load_all(file.read_text()) if d))
    control_plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return control_plane


@asynccontextmanager
async def started(cluster: ControlPlane, namespace: str) -> AsyncIterator[Gateway]:
    settings = GatewaySettings(
        grpc_address=FREE,
        http_address=FREE,
        metrics_address=FREE,
        kubernetes=True,
        namespace=(namespace,),
        shutdown_grace_seconds=0.5,
        drain_delay_seconds=0,
    )
    made = Gateway(settings, CollectorRegistry(), partial(connect, str(cluster.kubeconfig)))
    await made.start()
    await until(lambda: made.is_ready()[0])
    yield made
    await made.close()


@pytest.fixture
async def gateway(cluster: ControlPlane, namespace: str) -> AsyncIterator[Gateway]:
    async with started(cluster, namespace) as made:
        yield made


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        # Facts of other processes, which share no event to wait for.
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def document(name: str, namespace: str) -> Object:
    spec = {"model": {}, "engine": {"type": "echo"}}
    found = agd(name, namespace, spec=spec)
    del found["metadata"]["creationTimestamp"]
    assert found["apiVersion"] == API_VERSION
    return found


def slice_of(pod: FakePod, number: int, namespace: str, **conditions: bool) -> Object:
    name = f"glm-{number}"
    given = {name: conditions} if conditions else {}
    found = endpoint_slice(
        "glm", {name: NOWHERE}, namespace=namespace, name=name, port=pod.port, conditions=given
    )
    return found


def routable(gateway: Gateway) -> set[str]:
    return {view.endpoint.pod for view in gateway.core.pool.views if view.is_routable}


async def put(cluster: ControlPlane, *documents: Object) -> float:
    """When the API server had taken it, as far as kubectl shows."""
    await asyncio.to_thread(cluster.apply, *documents)
    return time.monotonic()


async def test_a_ready_pod_is_used_and_an_ending_one_dropped_within_a_second(
    cluster: ControlPlane,
    namespace: str,
    gateway: Gateway,
    record_property: Callable[[str, object], None],
) -> None:
    async with FakePod(model="glm") as pod:
        await put(cluster, document("glm", namespace))
        await put(cluster, slice_of(pod, 1, namespace, ready=False))
        assert routable(gateway) == set()
        taken = await put(cluster, slice_of(pod, 1, namespace, ready=True))
        await until(lambda: routable(gateway) == {"glm-1"})
        used = time.monotonic() - taken
        taken = await put(cluster, slice_of(pod, 1, namespace, **GOING))
        await until(lambda: routable(gateway) == set())
        dropped = time.monotonic() - taken
    record_property("ready_to_used_seconds", round(used, 3))
    record_property("ending_to_dropped_seconds", round(dropped, 3))
    print(f"ready to used {used:.3f} s, ending to dropped {dropped:.3f} s after kubectl's return")
    assert used < 1.0 and dropped < 1.0


async def test_models_appear_and_vanish_with_their_resources(
    cluster: ControlPlane, namespace: str, gateway: Gateway
) -> None:
    await put(cluster, document("glm", namespace))
    await until(lambda: "glm" in gateway.core.snapshot().models)
    await asyncio.to_thread(cluster.kubectl, "delete", "agd", "glm", "-n", namespace)
    await until(lambda: not gateway.core.snapshot().models)


async def test_a_bottomless_resource_hides_no_other_from_watches_and_lists(
    cluster: ControlPlane, namespace: str, gateway: Gateway
) -> None:
    deep = '{"a":' * 9_000 + "1" + "}" * 9_000
    body = json.dumps(document("deep", namespace) | {"spec": "deep"})
    text = body.replace('"spec": "deep"', f'"spec":{{"model":{{"uri":"a/b"}},"template":{deep}}}')
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
    create = partial(cluster.kubectl, "create", f"--raw={path}", "-f", "-", text=text)
    await asyncio.to_thread(create)
    await put(cluster, document("glm", namespace))
    await until(lambda: {"deep", "glm"} <= gateway.core.snapshot().models.keys())
    # One that starts reads a list.
    async with started(cluster, namespace) as second:
        await until(lambda: {"deep", "glm"} <= second.core.snapshot().models.keys())


async def test_an_api_server_that_goes_and_comes_back_fails_no_request(
    cluster: ControlPlane, namespace: str, gateway: Gateway
) -> None:
    async with FakePod(model="glm") as one, FakePod(model="glm") as two:
        await put(cluster, document("glm", namespace), slice_of(one, 1, namespace))
        await until(lambda: routable(gateway) == {"glm-1"})
        async with rpc.channel(f"127.0.0.1:{gateway.grpc_port}") as channel:
            stop, served = asyncio.Event(), 0

            async def traffic() -> None:
                nonlocal served
                stub = InferenceStub(channel)
                while not stop.is_set():
                    await stub.Generate(v1.GenerateRequest(model="glm", text="hi"), timeout=10)
                    served += 1

            task = asyncio.create_task(traffic())
            await asyncio.to_thread(cluster.stop_api_server)
            await until(lambda: served > 50)
            assert gateway.is_ready()[0] and routable(gateway) == {"glm-1"}
            await asyncio.get_running_loop().run_in_executor(STARTER, cluster.start_api_server)
            await put(cluster, slice_of(two, 2, namespace))
            await until(lambda: routable(gateway) == {"glm-1", "glm-2"})
            await put(cluster, slice_of(one, 1, namespace, **GOING))
            await until(lambda: routable(gateway) == {"glm-2"})
            before = served
            await until(lambda: served > before + 10)
            stop.set()
            await task


async def test_the_documented_role_is_enough_and_grants_nothing_else(
    cluster: ControlPlane, namespace: str
) -> None:
    text = (Path(__file__).parents[3] / "docs/gateway-on-kubernetes.md").read_text()
    rules = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])["rules"]
    role = f"gateway-{namespace}"
    account = f"system:serviceaccount:{namespace}:default"
    group = "rbac.authorization.k8s.io"
    await put(
        cluster,
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": {"name": role, "namespace": namespace},
            "rules": rules,
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        },
    )
    can_i = partial(cluster.kubectl, "auth", "can-i", "--list", "-n", namespace, f"--as={account}")
    allowed = {line.split()[0]: line for line in (await asyncio.to_thread(can_i)).splitlines()}
    for resource in ("autoglmdeployments.autoglm.io", "endpointslices.discovery.k8s.io"):
        assert "[get list watch]" in allowed[resource]
    assert not any(verb in line for line in allowed.values() for verb in ("update", "patch"))
