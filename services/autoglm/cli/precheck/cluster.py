"""Checks whether a cluster can run a deployment. Pure: from facts and resources to checks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from autoglm.api import AutoGLMDeployment
from autoglm.api.crd.definition import crd
from autoglm.api.deployment import VERSION
from autoglm.api.labels import COMPONENT, GATEWAY, GPU, OPERATOR
from autoglm.api.quantities import amount
from autoglm.cli.kube import Raw, is_ready
from autoglm.cli.precheck.facts import DEPLOY_PERMISSIONS, INSPECT_PERMISSIONS, Facts, NotAccessible
from autoglm.cli.precheck.view import Check
from autoglm.operator.children.deployment import resources
from autoglm.operator.status.pods import condition

OLDEST_KUBERNETES = (1, 30)
_ENFORCE = "pod-security.kubernetes.io/enforce"
_INSTALL = "helm install open-autoglm, or kubectl apply -k deploy/kustomize"
_RESOURCE_METRICS = {"CPU", "Memory"}


def checks(facts: Facts, wanted: Sequence[AutoGLMDeployment]) -> tuple[Check, ...]:
    """Return all checks of a cluster for the resources of a manifest."""
    match = re.match(r"v(\d+)\.(\d+)", facts.version)
    is_supported = match is not None and (int(match[1]), int(match[2])) >= OLDEST_KUBERNETES
    version = f"Kubernetes {facts.version}"
    return (
        Check("cluster", "ok", version)
        if is_supported
        else Check("cluster", "fail", version, "use Kubernetes 1.30 or newer"),
        _crd(facts),
        _component("operator", OPERATOR, facts.operators),
        _component("gateway", GATEWAY, facts.gateways),
        _namespace(facts, wanted),
        *_permissions(facts),
        *_manifest(facts, wanted),
        *_gpus(facts, wanted),
        *_storage(facts, wanted),
        *_optional_apis(facts, wanted),
    )


def _crd(facts: Facts) -> Check:
    name = "CRD"
    if facts.crd is None or not facts.has_api:
        found = "AutoGLMDeployment is not installed"
        return Check(name, "fail", found, f"install Open-AutoGLM: {_INSTALL}")
    if isinstance(facts.crd, NotAccessible):
        found = f"{VERSION} is served; forbidden to read the CRD"
        return Check(name, "warn", found, "have an administrator run this")
    live, own = _fields_of(facts.crd), _fields_of(crd())
    if missing := sorted(own - live):
        found = f"older than this command: {_some(missing)} missing"
        return Check(name, "fail", found, "kubectl apply --server-side -f deploy/crds")
    if more := sorted(live - own):
        found = f"newer than this command: {_some(more)} unknown"
        return Check(name, "warn", found, "upgrade open-autoglm on this machine")
    return Check(name, "ok", f"{VERSION}, up to date")


def _fields_of(definition: Raw) -> set[str]:
    versions = definition["spec"]["versions"]
    served: Raw = next((v for v in versions if v["name"] == VERSION), {})
    return set(_fields(served.get("schema", {}).get("openAPIV3Schema", {}), ""))


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, inner in (schema.get("properties") or {}).items():
        yield f"{path}{name}"
        yield from _fields(inner, f"{path}{name}.")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from _fields(schema[key], path)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _component(name: str, component: str, pods: tuple[Raw, ...] | NotAccessible) -> Check:
    if isinstance(pods, NotAccessible):
        found = "forbidden to list its pods"
        return Check(name, "warn", found, "have an administrator run this")
    ready = sum(map(is_ready, pods))
    if ready:
        return Check(name, "ok", f"{ready} of {len(pods)} pods ready")
    command = f"kubectl get pods -A -l {COMPONENT}={component}"
    found = f"none of {len(pods)} pods is ready" if pods else "not installed"
    remedy = f"check its pods: {command}" if pods else f"install it: {_INSTALL}"
    return Check(name, "fail", found, remedy)


def _namespace(facts: Facts, wanted: Sequence[AutoGLMDeployment]) -> Check:
    name = f"namespace {facts.namespace_name}"
    if facts.namespace is None:
        remedy = f"kubectl create namespace {facts.namespace_name}"
        return Check(name, "fail", "does not exist", remedy)
    if isinstance(facts.namespace, NotAccessible):
        return Check(name, "warn", "forbidden to read it", "check that it exists")
    level = (facts.namespace["metadata"].get("labels") or {}).get(_ENFORCE, "")
    hosted = [r.name for r in wanted if r.spec.model.cache.type == "hostPath"]
    if hosted and level in ("baseline", "restricted"):
        found = f"Pod Security {level} rejects the hostPath cache of {', '.join(hosted)}"
        return Check(name, "fail", found, "use a pvc or emptyDir in spec.model.cache")
    found = f"enforces Pod Security {level}" if level else "enforces no Pod Security level"
    return Check(name, "ok", f"{found}; replicas comply with restricted")


def _permissions(facts: Facts) -> Iterator[Check]:
    where = f"in {facts.namespace_name}"
    denied = [str(each) for each in DEPLOY_PERMISSIONS if each in facts.denied]
    if denied:
        remedy = "have an administrator grant the permission"
        yield Check("deploy permission", "fail", f"cannot {', '.join(denied)} {where}", remedy)
    else:
        yield Check("deploy permission", "ok", f"granted {where}")
    if denied := [str(each) for each in INSPECT_PERMISSIONS if each in facts.denied]:
        remedy = "without the permission `autoglm status` shows less"
        yield Check("read permission", "warn", f"cannot {', '.join(denied)} {where}", remedy)


def _manifest(facts: Facts, wanted: Sequence[AutoGLMDeployment]) -> Iterator[Check]:
    rejected = dict(facts.rejections)
    for resource in wanted:
        name, uri = f"manifest {resource.name}", resource.spec.model.uri or ""
        if resource.name in rejected:
            yield Check(name, "fail", rejected[resource.name], "correct it as the message says")
        elif uri.startswith(("./", "../")):
            found = f"spec.model.uri = {uri} is a path on this machine"
            yield Check(name, "warn", found, "set a hub name, or a path on a volume of the pods")
        elif facts.has_api:
            yield Check(name, "ok", "accepted by the API server")


def _storage(facts: Facts, wanted: Sequence[AutoGLMDeployment]) -> Iterator[Check]:
    for resource in wanted:
        if claim := resource.spec.model.cache.claim_name:
            yield _claim(claim, (facts.claims or {}).get(claim), resource)
    if wanted:
        return
    if isinstance(facts.storage_classes, NotAccessible):
        found = "forbidden to list StorageClasses"
        yield Check("storage", "warn", found, "check that one is the default")
        return
    annotation = "storageclass.kubernetes.io/is-default-class"
    default = [
        c["metadata"]["name"]
        for c in facts.storage_classes
        if (c["metadata"].get("annotations") or {}).get(annotation) == "true"
    ]
    if default:
        yield Check("storage", "ok", f"{default[0]} is the default StorageClass")
    else:
        remedy = "set a class in claims for model caches, or cache in emptyDir"
        yield Check("storage", "warn", "no default StorageClass", remedy)


def _claim(name: str, claim: Raw | NotAccessible | None, resource: AutoGLMDeployment) -> Check:
    title = f"volume {name}"
    if claim is None:
        return Check(
            title,
            "fail",
            "PersistentVolumeClaim not found",
            "create it, or change spec.model.cache.claimName",
        )
    if isinstance(claim, NotAccessible):
        return Check(title, "warn", "forbidden to read it", "check that it exists and is bound")
    phase, modes = claim.get("status", {}).get("phase", ""), claim["spec"].get("accessModes", [])
    if phase != "Bound":
        command = f"kubectl describe pvc {name} -n {resource.metadata.namespace}"
        return Check(title, "warn", f"is {phase or 'new'}; it may wait for a first pod", command)
    if resource.desired_replicas > 1 and "ReadWriteMany" not in modes:
        found = f"{', '.join(modes)}, and {resource.desired_replicas} replicas share it"
        return Check(title, "warn", found, "use ReadWriteMany, or keep all replicas on one node")
    return Check(title, "ok", f"bound, {', '.join(modes)}")


def _optional_apis(facts: Facts, wanted: Sequence[AutoGLMDeployment]) -> Iterator[Check]:
    """Check the APIs that the HorizontalPodAutoscaler reads, PodMonitor and KEDA."""
    scaled = [r for r in wanted if r.spec.scaling and r.spec.scaling.actuator == "hpa"]
    types = {m.type for r in scaled if r.spec.scaling for m in r.spec.scaling.metrics}
    remedy = "install metrics-server"
    if "metrics" in facts.apis:
        yield Check("metrics", "ok", "scaling by CPU and memory is available")
    elif types & _RESOURCE_METRICS:
        yield Check("metrics", "fail", "metrics.k8s.io is not available; scaling needs it", remedy)
    else:
        yield Check("metrics", "warn", "no scaling by CPU or memory", remedy)
    if (signals := sorted(types - _RESOURCE_METRICS)) and "custom metrics" not in facts.apis:
        found = f"custom.metrics.k8s.io is not available; {', '.join(signals)} need it"
        yield Check("custom metrics", "fail", found, "install prometheus-adapter, or use keda")
    if "PodMonitor" in facts.apis:
        yield Check("PodMonitor", "ok", "available; Prometheus discovers the replicas")
    else:
        yield Check("PodMonitor", "ok", "no Prometheus operator; none is created")
    by_keda = [r.name for r in wanted if r.spec.scaling and r.spec.scaling.actuator == "keda"]
    if "ScaledObject" in facts.apis:
        yield Check("KEDA", "ok", "installed")
    elif by_keda:
        found = f"not installed, and {', '.join(by_keda)} scales by it"
        yield Check("KEDA", "fail", found, "install KEDA, or set spec.scaling.actuator to hpa")
    else:
        yield Check("KEDA", "ok", "not installed, not needed")


def _gpus(facts: Facts, wanted: Sequence[AutoGLMDeployment]) -> Iterator[Check]:
    """Yield a check for each requested device; without a manifest, for NVIDIA GPUs."""
    requests = [(resource, _devices(resource)) for resource in wanted]
    devices = {device for _, counts in requests for device in counts}
    for device in sorted(devices) or ([] if wanted else [GPU]):
        if isinstance(facts.nodes, NotAccessible):
            remedy = f"check that nodes have {device}"
            yield Check(device, "warn", "forbidden to list nodes", remedy)
        else:
            each = [(resource, counts.get(device, 0)) for resource, counts in requests]
            yield _gpu(device, facts.nodes, facts.pods, each)


def _gpu(
    device: str,
    nodes: Iterable[Raw],
    pods: tuple[Raw, ...] | NotAccessible,
    requests: Sequence[tuple[AutoGLMDeployment, int]],
) -> Check:
    """Compare the devices that the resources request with those on ready nodes.

    `requests` has the devices of one replica, which must be on one node.
    """
    largest = max((count for _, count in requests), default=0)
    now = sum(count * resource.desired_replicas for resource, count in requests)
    most = sum(
        count * (r.spec.scaling.max_replicas if r.spec.scaling else r.desired_replicas)
        for r, count in requests
    )
    ready_nodes = (n for n in nodes if condition(n, "Ready").get("status") == "True")
    on_nodes = [
        _count(node["status"].get("allocatable"), device)
        for node in ready_nodes
        if not node["spec"].get("unschedulable")
    ]
    total, used = sum(on_nodes), None
    if not isinstance(pods, NotAccessible):
        containers = [c for pod in pods for c in pod["spec"].get("containers", ())]
        used = sum(_count(c.get("resources", {}).get("limits"), device) for c in containers)
    has = f"{total} on ready nodes" + ("" if used is None else f", {used} in use")
    if not total:
        remedy = "add GPU nodes with the vendor's device plugin"
        if now or most:
            return Check(device, "fail", f"none, {now} requested", remedy)
        return Check(device, "warn", "none; models run on CPUs only", remedy)
    if largest > max(on_nodes):
        found = f"a replica needs {largest}, and no node has more than {max(on_nodes)}"
        return Check(device, "fail", found, "lower spec.engine.parallelism, or add larger nodes")
    if now > total:
        return Check(device, "fail", f"{now} requested; {has}", "lower the replicas, or add nodes")
    if used is not None and now > total - used:
        remedy = "unless it runs already, free some or add nodes"
        return Check(device, "warn", f"{now} requested; {has}", remedy)
    if most > total:
        remedy = "lower maxReplicas, or enable a cluster autoscaler"
        return Check(device, "warn", f"{most} at maxReplicas; {has}", remedy)
    return Check(device, "ok", f"{now} requested; {has}" if now else has)


def _devices(resource: AutoGLMDeployment) -> dict[str, int]:
    """Return the devices of one replica, as the operator would request them."""
    limits = resources(resource.spec).get("limits", {})
    return {name: int(amount(q) or 0) for name, q in limits.items() if name.endswith("/gpu")}


def _count(quantities: Raw | None, device: str) -> int:
    return int(amount((quantities or {}).get(device, 0)) or 0)
