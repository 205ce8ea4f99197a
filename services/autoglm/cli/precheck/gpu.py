"""Whether a cluster has the GPUs that a manifest asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autoglm.api import AutoGLMDeployment
from autoglm.cli.kube import Raw
from autoglm.cli.precheck.facts import Facts, Unknown
from autoglm.cli.precheck.view import Check
from autoglm.kube.quantities import amount
from autoglm.operator.children.resources import GPU, resources


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the resources of a manifest ask for, of one device."""

    largest: int
    """For one replica, so on one node."""
    now: int
    most: int
    """With every autoscaler at its limit."""


@dataclass(frozen=True, slots=True)
class _Stock:
    total: int
    largest: int
    """On one node."""
    used: int | None
    """None where pods may not be seen."""


def gpus(facts: Facts, wanted: Sequence[AutoGLMDeployment]) -> Iterator[Check]:
    """One check for each device that is asked for; without a manifest, for NVIDIA's."""
    devices = {device for each in wanted for device in _devices(each)}
    for device in sorted(devices) or ([] if wanted else [GPU]):
        if isinstance(facts.nodes, Unknown):
            remedy = f"see that nodes have {device}"
            yield Check(device, "warn", "nodes may not be read", remedy)
        else:
            yield _check(device, _stock(device, facts.nodes, facts.pods), _wish(device, wanted))


def _check(device: str, stock: _Stock, wish: _Wish) -> Check:
    used = "" if stock.used is None else f", {stock.used} in use"
    has = f"{stock.total} on ready nodes{used}"
    if not stock.total:
        remedy = "add GPU nodes with the vendor's device plugin"
        if wish.now or wish.most:
            return Check(device, "fail", f"none, and {wish.now} asked for", remedy)
        return Check(device, "warn", "none: only models for CPUs run", remedy)
    if wish.largest > stock.largest:
        found = f"a replica needs {wish.largest}, and no node has more than {stock.largest}"
        return Check(device, "fail", found, "lower spec.engine.parallelism, or add larger nodes")
    if wish.now > stock.total:
        found = f"{wish.now} asked for; {has}"
        return Check(device, "fail", found, "lower the replicas, or add nodes")
    if stock.used is not None and wish.now > stock.total - stock.used:
        found = f"{wish.now} asked for; {has}"
        return Check(device, "warn", found, "if it is not running already, free some or add nodes")
    if wish.most > stock.total:
        found = f"{wish.most} at maxReplicas; {has}"
        return Check(device, "warn", found, "lower maxReplicas, or let nodes be added")
    return Check(device, "ok", f"{wish.now} asked for; {has}" if wish.now else has)


def _devices(resource: AutoGLMDeployment) -> dict[str, int]:
    """Of one replica, as the operator would ask for them."""
    limits = resources(resource.spec).get("limits", {})
    return {name: int(amount(q) or 0) for name, q in limits.items() if name.endswith("/gpu")}


def _wish(device: str, wanted: Iterable[AutoGLMDeployment]) -> _Wish:
    each = [(r, _devices(r).get(device, 0)) for r in wanted]
    return _Wish(
        largest=max((count for _, count in each), default=0),
        now=sum(count * resource.desired_replicas for resource, count in each),
        most=sum(count * _most(resource) for resource, count in each),
    )


def _most(resource: AutoGLMDeployment) -> int:
    scaling = resource.spec.scaling
    return scaling.max_replicas if scaling else resource.desired_replicas


def _stock(device: str, nodes: Iterable[Raw], pods: tuple[Raw, ...] | Unknown) -> _Stock:
    counts = [_count(node["status"].get("allocatable"), device) for node in nodes if _takes(node)]
    used = None
    if not isinstance(pods, Unknown):
        containers = [c for pod in pods for c in pod["spec"].get("containers", ())]
        used = sum(_count(c.get("resources", {}).get("limits"), device) for c in containers)
    return _Stock(sum(counts), max(counts, default=0), used)


def _takes(node: Raw) -> bool:
    conditions = node["status"].get("conditions") or ()
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return is_ready and not node["spec"].get("unschedulable")


def _count(quantities: Raw | None, device: str) -> int:
    return int(amount((quantities or {}).get(device, 0)) or 0)
