"""Checks whether a cluster has the GPUs that a manifest requests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autoglm.api import AutoGLMDeployment
from autoglm.cli.kube import Raw
from autoglm.cli.precheck.facts import Facts, NotAccessible
from autoglm.cli.precheck.view import Check
from autoglm.kube.quantities import amount
from autoglm.operator.children.deployment import GPU, resources


@dataclass(frozen=True, slots=True)
class _Demand:
    """Devices of one type that the resources of a manifest request."""

    largest: int
    """Devices of one replica, which must be on one node."""
    now: int
    most: int
    """Devices with all autoscalers at maxReplicas."""


@dataclass(frozen=True, slots=True)
class _Supply:
    """Devices of one type on the ready nodes of a cluster."""

    total: int
    largest: int
    """Most devices on one node."""
    used: int | None
    """None if the user is forbidden to list pods."""


def gpus(facts: Facts, wanted: Sequence[AutoGLMDeployment]) -> Iterator[Check]:
    """Yield a check for each requested device; without a manifest, for NVIDIA GPUs."""
    devices = {device for each in wanted for device in _devices(each)}
    for device in sorted(devices) or ([] if wanted else [GPU]):
        if isinstance(facts.nodes, NotAccessible):
            remedy = f"check that nodes have {device}"
            yield Check(device, "warn", "forbidden to list nodes", remedy)
        else:
            yield _check(device, _supply(device, facts.nodes, facts.pods), _demand(device, wanted))


def _check(device: str, supply: _Supply, demand: _Demand) -> Check:
    used = "" if supply.used is None else f", {supply.used} in use"
    has = f"{supply.total} on ready nodes{used}"
    if not supply.total:
        remedy = "add GPU nodes with the vendor's device plugin"
        if demand.now or demand.most:
            return Check(device, "fail", f"none, {demand.now} requested", remedy)
        return Check(device, "warn", "none; models run on CPUs only", remedy)
    if demand.largest > supply.largest:
        found = f"a replica needs {demand.largest}, and no node has more than {supply.largest}"
        return Check(device, "fail", found, "lower spec.engine.parallelism, or add larger nodes")
    if demand.now > supply.total:
        found = f"{demand.now} requested; {has}"
        return Check(device, "fail", found, "lower the replicas, or add nodes")
    if supply.used is not None and demand.now > supply.total - supply.used:
        found = f"{demand.now} requested; {has}"
        return Check(device, "warn", found, "unless it runs already, free some or add nodes")
    if demand.most > supply.total:
        found = f"{demand.most} at maxReplicas; {has}"
        return Check(device, "warn", found, "lower maxReplicas, or enable a cluster autoscaler")
    return Check(device, "ok", f"{demand.now} requested; {has}" if demand.now else has)


def _devices(resource: AutoGLMDeployment) -> dict[str, int]:
    """Return the devices of one replica, as the operator would request them."""
    limits = resources(resource.spec).get("limits", {})
    return {name: int(amount(q) or 0) for name, q in limits.items() if name.endswith("/gpu")}


def _demand(device: str, wanted: Iterable[AutoGLMDeployment]) -> _Demand:
    each = [(r, _devices(r).get(device, 0)) for r in wanted]
    return _Demand(
        largest=max((count for _, count in each), default=0),
        now=sum(count * resource.desired_replicas for resource, count in each),
        most=sum(count * _most(resource) for resource, count in each),
    )


def _most(resource: AutoGLMDeployment) -> int:
    scaling = resource.spec.scaling
    return scaling.max_replicas if scaling else resource.desired_replicas


def _supply(device: str, nodes: Iterable[Raw], pods: tuple[Raw, ...] | NotAccessible) -> _Supply:
    counts = [_count(node["status"].get("allocatable"), device) for node in nodes if _takes(node)]
    used = None
    if not isinstance(pods, NotAccessible):
        containers = [c for pod in pods for c in pod["spec"].get("containers", ())]
        used = sum(_count(c.get("resources", {}).get("limits"), device) for c in containers)
    return _Supply(sum(counts), max(counts, default=0), used)


def _takes(node: Raw) -> bool:
    conditions = node["status"].get("conditions") or ()
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return is_ready and not node["spec"].get("unschedulable")


def _count(quantities: Raw | None, device: str) -> int:
    return int(amount((quantities or {}).get(device, 0)) or 0)
