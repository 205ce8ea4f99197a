"""A real API server: every condition with every reason that the operator can give.

Scheduler, quotas, autoscaler and API server speak for themselves. States of containers are written
as kubelet would, into pods that wait for it (`HOLD`). KEDA's reasons are in test_foreign, those of
profiles in test_profiles.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.kube.controlplane import HOLD, ControlPlane
from tests.support.operating import Cluster, until

from autoglm import operator
from autoglm.inference.diagnosis import engine_dead
from autoglm.kube.kinds import CHILDREN, ENDPOINT_SLICE, EVENT, POD, Kind
from autoglm.kube.transport import MERGE
from autoglm.operator import gateways
from autoglm.operator.gateways import Endpoint, Page

CONFIG, HPA, BUDGET = CHILDREN[3:6]
QUOTA = Kind("v1", "ResourceQuota", "resourcequotas")
LIMITS = Kind("v1", "LimitRange", "limitranges")
HELD = {"metadata": {"annotations": {HOLD: "true"}}}
SIDECAR = HELD | {"spec": {"containers": [{"name": "logs", "image": "logs:1"}]}}
HPA_CPU = {"maxReplicas": 3}
HPA_QUEUE = {"maxReplicas": 3, "metrics": [{"type": "QueueDepth", "target": 4}]}
# Of a resource without scaling, where no gateway is.
ALONE = {
    "Routable": "Unknown NoGateway",
    "ScalingActive": "False Fixed",
    "MonitoringActive": "False NotInstalled",
}


def failing(reason: str) -> dict[str, str]:
    """No replica serves, and it is the revision's own fault."""
    false = ("Ready", "Available", "Progressing", "ModelLoaded", "RolloutHealthy")
    return ALONE | {"Degraded": f"True {reason}"} | dict.fromkeys(false, f"False {reason}")


def wanting(reason: str, state: str) -> dict[str, str]:
    """No replica serves, for lack of resources in the cluster."""
    whole = failing(reason)
    return whole | {"Progressing": f"True {state}", "RolloutHealthy": "True Updating"}


SERVING = ALONE | {
    "Ready": "True Ready",
    "Available": "True Serving",
    "Progressing": "False Complete",
    "Degraded": "False AsExpected",
    "ModelLoaded": "True Loaded",
    "RolloutHealthy": "True Complete",
}
LOADING = SERVING | {
    "Ready": "False Loading",
    "Available": "False NoReplicaServes",
    "Progressing": "True Loading",
    "ModelLoaded": "False Loading",
    "RolloutHealthy": "True Updating",
}
PENDING = LOADING | {
    "Ready": "False Pending",
    "Progressing": "True Pending",
    "ModelLoaded": "False Pending",
}


# Of a resource whose spec never was valid.
INVALID = {"Degraded": "True InvalidSpec"} | dict.fromkeys(
    ("Ready", "Available", "Progressing"), "False InvalidSpec"
)


def at_rest(reason: str) -> dict[str, str]:
    return SERVING | dict.fromkeys(("Ready", "Available", "ModelLoaded"), f"False {reason}")


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    conditions: Mapping[str, str]
    phase: str
    spec: Mapping[str, Any] = field(default_factory=dict)


LIVES = (
    Case("serving", SERVING, "Ready"),
    Case("idle", at_rest("Idle"), "Idle", {"replicas": 0}),
    Case("suspended", at_rest("Suspended"), "Suspended", {"suspend": True}),
    Case(
        "suspended-scaling",
        at_rest("Suspended") | {"ScalingActive": "False Suspended"},
        "Suspended",
        {"suspend": True, "scaling": HPA_CPU},
    ),
    Case("loading", LOADING, "Loading", {"template": HELD}),
    Case("hpa-cpu", SERVING | {"ScalingActive": "False FailedGetResourceMetric"}, "Ready",
         {"scaling": HPA_CPU}),
    Case("hpa-queue", SERVING | {"ScalingActive": "False FailedGetPodsMetric"}, "Ready",
         {"scaling": HPA_QUEUE}),
    Case("keda", SERVING | {"ScalingActive": "False KedaMissing"}, "Ready",
         {"scaling": HPA_QUEUE | {"actuator": "keda"}}),
    Case("invalid", INVALID, "Failed",
         {"template": {"spec": {"hostNetwork": True}}}),
    Case("no-node", wanting("Unschedulable", "Loading"), "Pending",
         {"template": {"spec": {"nodeSelector": {"gpu": "none"}}}}),
)  # fmt: skip


def waits(reason: str, message: str = "a message") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    terminated = {"exitCode": code, "message": message, "reason": reason}
    return waits("CrashLoopBackOff") | {"lastState": {"terminated": terminated}}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A state of a container as kubelet reports it, and the reason that follows."""

    reason: str
    status: Mapping[str, Any]
    container: str = "engine"

    def __repr__(self) -> str:
        state = self.status["state"]["waiting"]["reason"]
        return self.reason if state == "CrashLoopBackOff" else f"{state} is {self.reason}"


DEAD = engine_dead("CUDA error")
CONTAINERS = (
    Trouble("ImagePullBackOff", waits("ErrImagePull")),
    Trouble("ImagePullBackOff", waits("ImagePullBackOff", 'Back-off pulling image "x"')),
    Trouble("ImagePullBackOff", waits("ErrImageNeverPull")),
    Trouble("ImagePullBackOff", waits("ImageInspectError")),
    Trouble("InvalidImageName", waits("InvalidImageName")),
    Trouble("CreateContainerConfigError", waits("CreateContainerConfigError")),
    Trouble("CreateContainerError", waits("CreateContainerError")),
    Trouble("RunContainerError", waits("RunContainerError")),
    Trouble("OOMKilled", ended(137, reason="OOMKilled")),
    Trouble("EngineDead", ended(DEAD.exit_code, str(DEAD))),
    Trouble("ContainerFailed", ended(1, "the last line of a log")),
    Trouble("SidecarFailed", ended(2), "logs"),
)
POD_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
REFUSING = (
    Case("pods-quota", wanting("FailedCreate", "Pending"), "Pending",
         {"kind": QUOTA, "spec": {"hard": {"pods": "0"}}}),
    Case("memory-limit", failing("FailedCreate"), "Failed",
         {"kind": LIMITS, "spec": {"limits": [{"type": "Container", "max": {"memory": "1Mi"}}]}}),
    Case("replica-sets-quota", wanting("ReplicaSetCreateError", "Pending"), "Pending",
         {"kind": QUOTA, "spec": {"hard": {"count/replicasets.apps": "0"}}}),
)  # fmt: skip
AUTOSCALERS: dict[str, tuple[Mapping[str, str], ...]] = {
    "True Active": ({"type": "ScalingActive", "status": "True"},),
    "True AtMaximum": (
        {"type": "ScalingActive", "status": "True"},
        {"type": "ScalingLimited", "status": "True", "reason": "TooManyReplicas"},
    ),
    "False MissingRequest": (
        {
            "type": "ScalingActive",
            "status": "False",
            "reason": "FailedGetResourceMetric",
            "message": "failed to get cpu utilization: missing request for cpu in container engine",
        },
    ),
}


async def status(cluster: Cluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (await cluster.resource(name)).get("status") or {}
    return found


async def conditions_of(cluster: Cluster, name: str) -> dict[str, str]:
    conditions = (await status(cluster, name)).get("conditions", ())
    return {c["type"]: f"{c['status']} {c['reason']}" for c in conditions}


async def reports(
    cluster: Cluster, name: str, wanted: Mapping[str, str], limit: float = 30
) -> float:
    """Wait until the conditions are exactly these; return the seconds."""
    last: dict[str, str] = {}

    async def is_reported() -> bool:
        last.clear()
        last.update(await conditions_of(cluster, name))
        return last == wanted

    try:
        return await until(is_reported, "conditions", limit)
    except AssertionError:
        assert last == wanted
        raise


async def the_pod(cluster: Cluster) -> dict[str, Any]:
    """The only one, on its node."""
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        found[:] = (await cluster.send("GET", POD.path(cluster.namespace)))["items"]
        return len(found) == 1 and "nodeName" in found[0]["spec"]

    await until(is_there, "a pod on a node")
    return found[0]


async def patched(cluster: Cluster, kind: Kind, name: str, body: Mapping[str, Any]) -> None:
    path = kind.path(cluster.namespace, name, "status")
    await cluster.send("PATCH", path, {"status": dict(body)}, content_type=MERGE)


async def announced(cluster: Cluster, name: str) -> set[str]:
    """The reasons of the events that `kubectl describe` shows of the resource."""
    listed = (await cluster.send("GET", EVENT.path(cluster.namespace)))["items"]
    return {e["reason"] for e in listed if e["regarding"].get("name") == name}


@pytest.mark.parametrize("case", LIVES, ids=lambda case: case.name)
async def test_what_a_resource_does_is_reported(cluster: Cluster, case: Case) -> None:
    await cluster.start()
    await cluster.create("glm", **case.spec)
    await reports(cluster, "glm", case.conditions)

    async def is_in_phase() -> bool:
        return await cluster.phase("glm") == case.phase

    await until(is_in_phase, f"the phase is {case.phase}")


@pytest.mark.parametrize("trouble", CONTAINERS, ids=repr)
async def test_what_is_wrong_with_a_pod_is_reported_within_seconds(
    cluster: Cluster, trouble: Trouble
) -> None:
    await cluster.start()
    is_engine = trouble.container == "engine"
    await cluster.create("glm", template=HELD if is_engine else SIDECAR)
    name = (await the_pod(cluster))["metadata"]["name"]
    container = {"image": "x", "imageID": "", "ready": False, "restartCount": 1}
    state = [{**container, "name": trouble.container, **trouble.status}]
    await patched(cluster, POD, name, {"containerStatuses": state})
    assert await reports(cluster, "glm", failing(trouble.reason)) < 10
    now = await status(cluster, "glm")
    failure = now["model"]["lastFailure"]
    ended = trouble.status.get("lastState", {}).get("terminated", {})
    assert (failure["reason"], failure["pod"]) == (trouble.reason, name)
    assert failure.get("exitCode") == ended.get("exitCode")
    assert (now["phase"], now["model"]["state"]) == ("Failed", "Failed")
    assert trouble.reason in await announced(cluster, "glm")


@pytest.mark.parametrize("reason", POD_EVENTS)
async def test_what_kubelet_only_warns_of_is_reported(cluster: Cluster, reason: str) -> None:
    await cluster.start()
    await cluster.create("glm", template=HELD)
    pod = (await the_pod(cluster))["metadata"]
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": cluster.namespace}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{pod['name']}.1"},
        "involvedObject": about | {"name": pod["name"], "uid": pod["uid"]},
        "type": "Warning",
        "reason": reason,
        "message": "not to be had",
    }
    await cluster.send("POST", f"/api/v1/namespaces/{cluster.namespace}/events", event)
    assert await reports(cluster, "glm", failing(reason)) < 10


@pytest.mark.parametrize("case", REFUSING, ids=lambda case: case.name)
async def test_why_pods_cannot_be_created_is_reported(cluster: Cluster, case: Case) -> None:
    kind, spec = case.spec["kind"], case.spec["spec"]
    body = {"apiVersion": "v1", "kind": kind.kind, "metadata": {"name": "q"}, "spec": spec}
    await cluster.send("POST", kind.path(cluster.namespace), body)
    if kind is QUOTA:
        # Enforced from when its controller has counted.
        await until(lambda: is_counted(cluster), "quota counted")
    await cluster.start()
    resources = {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}
    await cluster.create("glm", resources=resources)
    await reports(cluster, "glm", case.conditions)
    assert await cluster.phase("glm") == case.phase


async def is_counted(cluster: Cluster) -> bool:
    quota = await cluster.get(QUOTA, "q")
    return bool(quota and quota.get("status", {}).get("hard"))


async def test_an_update_is_reported_and_whether_it_works(cluster: Cluster) -> None:
    await cluster.start()
    await cluster.create("glm")
    await reports(cluster, "glm", SERVING)
    old = (await the_pod(cluster))["metadata"]["name"]
    await cluster.change("glm", {"template": HELD})
    updating = {
        "Ready": "False Updating",
        "Progressing": "True Updating",
        "ModelLoaded": "False Loading",
        "RolloutHealthy": "True Updating",
    }
    await reports(cluster, "glm", SERVING | updating)

    pods = (await cluster.send("GET", POD.path(cluster.namespace)))["items"]
    (new,) = {pod["metadata"]["name"] for pod in pods} - {old}
    container = {"name": "engine", "image": "x", "imageID": "", "ready": False, "restartCount": 1}
    await patched(cluster, POD, new, {"containerStatuses": [container | waits("ImagePullBackOff")]})
    broken = failing("ImagePullBackOff") | {"Available": "True Serving"}
    await reports(cluster, "glm", broken)
    assert await cluster.phase("glm") == "Degraded"


async def test_conflicts_and_objects_of_others_are_reported(cluster: Cluster) -> None:
    strange = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "glm"}}
    await cluster.send("POST", CONFIG.path(cluster.namespace), strange)
    await cluster.start()
    await cluster.create("glm")
    await cluster.create("held")
    await reports(cluster, "glm", failing("Rejected") | {"RolloutHealthy": "True Updating"})

    await reports(cluster, "held", SERVING)
    theirs = {
        "apiVersion": BUDGET.api_version,
        "kind": BUDGET.kind,
        "metadata": {"name": "held"},
        "spec": {"maxUnavailable": 3},
    }
    path, query = BUDGET.path(cluster.namespace, "held"), (("fieldManager", "x"), ("force", "true"))
    await cluster.send(
        "PATCH", path, theirs, content_type="application/apply-patch+yaml", query=query
    )
    await reports(cluster, "held", SERVING | {"Degraded": "True Conflict"})
    assert await cluster.phase("held") == "Degraded"


async def test_the_pools_of_gateways_are_reported(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's page is made up: an EndpointSlice can't name loopback."""
    pool: list[Endpoint] = []

    async def fetch(session: object, url: str) -> Page:
        return Page(pool)

    monkeypatch.setattr(gateways, "_fetch", fetch)
    metadata = {
        "name": "gateway",
        "labels": {"kubernetes.io/service-name": "open-autoglm-gateway"},
    }
    body = {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.kind,
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.9.9.9"]}],
        "ports": [{"name": "metrics", "port": 9090}],
    }
    await cluster.send("POST", ENDPOINT_SLICE.path(cluster.namespace), body)
    await cluster.start()
    await cluster.create("held", template=HELD)
    await reports(cluster, "held", LOADING | {"Routable": "False NoReplicaReady"})
    await cluster.send("DELETE", f"{CHILDREN[0].path(cluster.namespace)}")

    await cluster.create("glm")
    unseen = {
        "Ready": "False NotRoutable",
        "Progressing": "True NotRoutable",
        "ModelLoaded": "True Loaded",
        "Routable": "False NotInEveryGateway",
    }
    await reports(cluster, "glm", LOADING | unseen)
    pods = (await cluster.send("GET", POD.path(cluster.namespace)))["items"]
    names = [p["metadata"]["name"] for p in pods if p["metadata"]["name"].startswith("glm-")]
    pool += [Endpoint(cluster.namespace, "glm", name) for name in names]
    await reports(cluster, "glm", SERVING | {"Routable": "True InEveryGateway"})


async def test_what_waits_for_controllers_is_reported(
    cluster: Cluster, control_plane: ControlPlane
) -> None:
    await cluster.start()
    await cluster.create("two", replicas=2)
    await reports(cluster, "two", SERVING)
    await cluster.create("scaled", scaling=HPA_CPU)
    await reports(cluster, "scaled", SERVING | {"ScalingActive": "False FailedGetResourceMetric"})
    with control_plane.paused("kube-controller-manager"):
        await cluster.create("new", scaling=HPA_CPU)
        await reports(cluster, "new", PENDING | {"ScalingActive": "Unknown Starting"})
        await cluster.change("two", {"replicas": 1})
        less = {"Ready": "False ScalingDown", "Progressing": "True ScalingDown"}
        await reports(cluster, "two", SERVING | less | {"RolloutHealthy": "True Updating"})
        for word, conditions in AUTOSCALERS.items():
            await patched(cluster, HPA, "scaled", {"conditions": conditions})
            await reports(cluster, "scaled", SERVING | {"ScalingActive": word})
    await reports(cluster, "two", SERVING)


def reasons(tree: ast.Module) -> Iterator[str]:
    """Yield the constants in the reason of a Condition, a Failure or a table."""
    places = {"Condition": 1, "Failure": 0}
    tables = {"_WAITING": "values", "_WARNINGS": "keys", "_ADVICE": "keys"}
    for node in ast.walk(tree):
        found: list[ast.AST] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            index = places.get(node.func.id)
            found = [] if index is None else list(node.args[index : index + 1])
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            values = getattr(node.value, tables.get(node.target.id, ""), ())
            found = [v.elts[0] if isinstance(v, ast.Tuple) else v for v in values]
        yield from (str(c.value) for c in found if isinstance(c, ast.Constant))


def test_no_reason_that_the_operator_knows_is_left_out() -> None:
    paths = sorted(Path(operator.__file__).parent.rglob("*.py"))
    known = {reason for path in paths for reason in reasons(ast.parse(path.read_text()))}
    here = Path(__file__)
    beside = ("test_optional.py", "test_profiles.py", "test_remedies.py", "test_weights.py")
    others = (*map(here.with_name, beside), here.parents[1] / "test_foreign.py")
    tested = "".join(path.read_text() for path in (here, *others))
    assert [reason for reason in sorted(known) if reason not in tested] == []
    assert len(known) > 30
