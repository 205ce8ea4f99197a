"""A real API server: claims of caches are created and grow, and a Job fills them before pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.operating import Cluster, until

from autoglm.kube.kinds import CHILDREN, POD, RESOURCE, Kind
from autoglm.kube.transport import MERGE, Refused

CLAIM = CHILDREN[7]
STORAGE_CLASS = Kind("storage.k8s.io/v1", "StorageClass", "storageclasses")
FAKE = {"spec": {"nodeSelector": {"type": "fake"}}}
NOWHERE = {"spec": {"nodeSelector": {"type": "none"}}}


@pytest.fixture
async def storage_class(cluster: Cluster) -> AsyncIterator[str]:
    """Volumes in directories of this machine, by the controller manager."""
    name = f"{cluster.namespace}-class"
    body = {
        "apiVersion": STORAGE_CLASS.api_version,
        "kind": STORAGE_CLASS.kind,
        "metadata": {"name": name},
        "provisioner": "kubernetes.io/host-path",
        "allowVolumeExpansion": True,
    }
    await cluster.send("POST", STORAGE_CLASS.path(), body)
    yield name
    await cluster.send("DELETE", STORAGE_CLASS.path("", name))


def model(storage_class: str, uri: str = "org/model", **cache: Any) -> dict[str, Any]:
    own = {"type": "pvc", "size": "1Mi", "storageClassName": storage_class}
    return {"uri": uri, "cache": own | {"accessMode": "ReadWriteOnce"} | cache}


async def create(cluster: Cluster, model: dict[str, Any], template: dict[str, Any]) -> None:
    engine = {"type": "vllm", "image": "fake"}
    resources = {"requests": {"cpu": "1m"}}
    await cluster.create("glm", model=model, engine=engine, template=template, resources=resources)


async def condition(cluster: Cluster, type_: str = "WeightsLoaded") -> tuple[str, str]:
    status = (await cluster.resource("glm")).get("status") or {}
    found = (c for c in status.get("conditions", ()) if c["type"] == type_)
    return next(((c["reason"], c["message"]) for c in found), ("", ""))


async def has_reason(cluster: Cluster, reason: str) -> bool:
    return (await condition(cluster))[0] == reason


async def kinds(cluster: Cluster, kind: str) -> list[str]:
    return [name for name in await cluster.children("glm") if name.startswith(f"{kind}/")]


async def report(cluster: Cluster, phase: str, state: dict[str, Any]) -> None:
    """Set the state of the loader's container, as a kubelet does."""
    pods = await cluster.send("GET", POD.path(cluster.namespace))
    (pod,) = [p["metadata"]["name"] for p in pods["items"] if "-load-" in p["metadata"]["name"]]
    loader = {"name": "loader", "ready": False, "restartCount": 0, "image": "", "imageID": ""}
    placed = {"type": "PodScheduled", "status": "True"}
    status = {
        **{"phase": phase, "conditions": [placed]},
        "containerStatuses": [loader | {"state": state}],
    }
    path = POD.path(cluster.namespace, pod, "status")
    await cluster.send("PATCH", path, {"status": status}, content_type=MERGE)


async def test_a_job_fills_the_claim_before_any_pod_is_created(
    cluster: Cluster, storage_class: str
) -> None:
    await cluster.start()
    await create(cluster, model(storage_class), NOWHERE)
    await until(lambda: has_reason(cluster, "Unschedulable"), "the loader has no node")
    assert await kinds(cluster, "Deployment") == []
    assert await kinds(cluster, "PersistentVolumeClaim") == ["PersistentVolumeClaim/glm-weights"]

    await cluster.change("glm", {"template": FAKE})
    await until(lambda: has_reason(cluster, "Loaded"), "the Job has succeeded")
    await cluster.settled("glm")
    assert len(await kinds(cluster, "Deployment")) == 1
    assert len(await kinds(cluster, "Job")) == 1


async def test_a_changed_model_is_loaded_before_the_rollout(
    cluster: Cluster, storage_class: str
) -> None:
    await cluster.start()
    await create(cluster, model(storage_class), FAKE)
    await cluster.settled("glm")
    before = await kinds(cluster, "Deployment")

    await cluster.change("glm", {"model": {"uri": "org/other"}, "template": NOWHERE})
    await until(lambda: has_reason(cluster, "Unschedulable"), "the loader has no node")
    assert await kinds(cluster, "Deployment") == before
    assert (await condition(cluster, "Available"))[0] == "Serving"

    await cluster.change("glm", {"template": FAKE})

    async def has_replaced() -> bool:
        now = await kinds(cluster, "Deployment")
        return len(now) == 1 and now != before

    await until(has_replaced, "the new model has replaced the old one")


async def test_why_a_load_fails_is_in_the_status(cluster: Cluster, storage_class: str) -> None:
    await cluster.start()
    await create(cluster, model(storage_class), NOWHERE)
    await until(lambda: has_reason(cluster, "Unschedulable"), "the loader has no node")
    message = "GatedModel: org/model is gated: accept its terms"
    await report(cluster, "Failed", {"terminated": {"exitCode": 76, "message": message}})

    async def has_failed() -> bool:
        status = (await cluster.resource("glm"))["status"]
        weights = status.get("weights") or {}
        return await has_reason(cluster, "GatedModel") and weights.get("state") == "Failed"

    await until(has_failed, "the Job has failed at once, and the status says why")
    assert "accept its terms" in (await condition(cluster))[1]


async def test_what_a_loader_does_is_reported(cluster: Cluster, storage_class: str) -> None:
    await cluster.start()
    await create(cluster, model(storage_class), NOWHERE)
    await until(lambda: has_reason(cluster, "Unschedulable"), "the loader has no node")
    assert (await condition(cluster, "Progressing"))[0] == "LoadingWeights"

    await report(cluster, "Running", {"running": {}})
    await until(lambda: has_reason(cluster, "Downloading"), "the loader downloads")

    await report(cluster, "Failed", {"terminated": {"exitCode": 1, "message": ""}})
    await until(lambda: has_reason(cluster, "LoaderFailed"), "the loader has failed")


async def test_a_class_that_does_not_exist_is_reported(cluster: Cluster) -> None:
    await cluster.start()
    await create(cluster, model("no-such-class"), FAKE)
    await until(lambda: has_reason(cluster, "ProvisioningFailed"), "the claim gets no volume")
    assert "storageClassName must exist" in (await condition(cluster))[1]


async def test_the_claim_grows_and_goes_with_the_resource(
    cluster: Cluster, storage_class: str
) -> None:
    await cluster.start()
    await create(cluster, model(storage_class), FAKE)
    await cluster.settled("glm")
    await cluster.change("glm", {"model": {"cache": {"size": "2Mi"}}})

    async def has_grown() -> bool:
        claim = await cluster.get(CLAIM, "glm-weights")
        assert claim is not None
        return bool(claim["spec"]["resources"]["requests"]["storage"] == "2Mi")

    await until(has_grown, "the claim has grown")
    await cluster.send("DELETE", RESOURCE.path(cluster.namespace, "glm"))

    async def is_gone() -> bool:
        return await cluster.get(CLAIM, "glm-weights") is None and not await kinds(cluster, "Job")

    await until(is_gone, "claim and Job gone", 120)


@pytest.mark.parametrize(
    ("cache", "sentence"),
    [
        ({"size": "1Ki"}, "size can't shrink"),
        ({"storageClassName": "other"}, "storageClassName can't change"),
        ({"accessMode": "ReadWriteMany"}, "accessMode can't change"),
    ],
)
async def test_what_a_claim_cannot_change_is_rejected_at_apply(
    cluster: Cluster, cache: dict[str, Any], sentence: str
) -> None:
    await create(cluster, model("any"), FAKE)
    with pytest.raises(Refused) as raised:
        await cluster.change("glm", {"model": {"cache": cache}})
    assert sentence in str(raised.value)


async def test_an_image_as_the_source_is_a_volume_of_the_pod(cluster: Cluster) -> None:
    await cluster.start()
    await create(cluster, {"uri": "oci://registry.example/team/glm:1"}, FAKE)
    children = await cluster.settled("glm")
    (deployment,) = [c for name, c in children.items() if name.startswith("Deployment/")]
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    references = [v["image"]["reference"] for v in volumes if "image" in v]
    assert references == ["registry.example/team/glm:1"]
