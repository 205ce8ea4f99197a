"""A cluster in memory for the operator's plans: carries them out as the API server would.

Children get the API server's habits that matter to a plan (defaults, canonical quantities, empty
values left out). Deployments get pods at once; `move` lets one pod take its next step.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from autoglm.api import API_VERSION, KIND
from autoglm.operator.types import ObservedObjects, Plan

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LATER = "2099-01-01T00:00:00Z"
BROKEN: dict[str, Any] = {
    "name": "engine",
    "ready": False,
    "state": {"terminated": {"exitCode": 66, "message": "ModelNotFound: no such model"}},
}
_CANONICAL = {"1000m": "1", "1024Mi": "1Gi", "0.5": "500m"}


def resource(name: str = "m", **spec: Any) -> dict[str, Any]:
    """An AutoGLMDeployment with the echo engine, unless `spec` sets another."""
    echo: dict[str, Any] = {"model": {}, "engine": {"type": "echo"}}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": "ns", "uid": "uid-1", "generation": 1},
        "spec": copy.deepcopy(echo | spec),
    }


@dataclass
class FakeCluster:
    """One resource and all that belongs to it."""

    resource: dict[str, Any]
    children: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    routable: set[str] | None = None
    """None where no gateway can be polled."""
    optional_kinds: frozenset[str] = frozenset()
    warnings: tuple[dict[str, Any], ...] = ()
    broken_flag: str = ""
    """Pods whose engine has this flag end with a diagnosis instead of becoming ready."""
    serial: int = 0

    def observed(self) -> ObservedObjects:
        return ObservedObjects(
            resource=copy.deepcopy(self.resource),
            children=tuple(copy.deepcopy(list(self.children.values()))),
            pods=tuple(copy.deepcopy(list(self.pods.values()))),
            warnings=self.warnings,
            routable=None if self.routable is None else frozenset(self.routable),
            optional_kinds=self.optional_kinds,
        )

    def carry_out(self, plan: Plan, writes: int | None = None) -> None:
        """All of a plan, or its first `writes` only, as if the operator died then."""
        todo: list[tuple[str, Any]] = [("apply", body) for body in plan.apply]
        todo += [("delete", ref) for ref in plan.delete]
        todo += [("status", plan.status)] if plan.status is not None else []
        for verb, what in todo[:writes]:
            if verb == "apply":
                self._apply(what)
            elif verb == "delete":
                assert self.children[what.kind, what.name]["metadata"]["uid"] == what.uid
                del self.children[what.kind, what.name]
            else:
                self.resource["status"] = copy.deepcopy(dict(what))
        self._follow()

    def change(self, **spec: Any) -> None:
        """A user edits the spec."""
        self.resource["spec"].update(copy.deepcopy(spec))
        self.resource["metadata"]["generation"] += 1

    def deployments(self) -> dict[str, int]:
        """Replicas by name."""
        found = (c for (kind, _), c in self.children.items() if kind == "Deployment")
        return {c["metadata"]["name"]: c["spec"]["replicas"] for c in found}

    def ready(self) -> int:
        return sum(_is_ready(pod) for pod in self.pods.values())

    def move(self, chosen: int) -> bool:
        """One pod takes its next step: becomes ready, is met by gateways, or is gone."""
        names = [name for name in self.pods if self._can_move(name)]
        if not names:
            return False
        name = names[chosen % len(names)]
        pod = self.pods[name]
        if "deletionTimestamp" in pod["metadata"]:
            del self.pods[name]
        elif self._is_broken(pod):
            pod["status"] = {"phase": "Running", "containerStatuses": [BROKEN]}
        elif not _is_ready(pod):
            pod["status"] = {"phase": "Running", "conditions": [pod_condition("Ready", "True")]}
            pod["spec"]["nodeName"] = "node"
        elif self.routable is not None:
            self.routable.add(name)
        self._follow()
        return True

    def _can_move(self, name: str) -> bool:
        pod = self.pods[name]
        if "deletionTimestamp" in pod["metadata"]:
            return True
        if self._is_broken(pod):
            return "containerStatuses" not in pod["status"]
        if not _is_ready(pod):
            return True
        return self.routable is not None and name not in self.routable

    def _is_broken(self, pod: Mapping[str, Any]) -> bool:
        return self.broken_flag in pod["spec"]["containers"][0]["args"]

    def _apply(self, body: Mapping[str, Any]) -> None:
        key = (body["kind"], body["metadata"]["name"])
        self.serial += 1
        uid = self.children.get(key, {}).get("metadata", {}).get("uid", f"child-{self.serial}")
        stored = _as_stored(copy.deepcopy(dict(body)))
        stored["metadata"] |= {"uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.children[key] = stored

    def _follow(self) -> None:
        """Act as the controller manager: create and delete pods as Deployments require."""
        wanted = self.deployments()
        for name, pod in self.pods.items():
            if pod["owner"] not in wanted:
                self._end(name)
        for deployment, replicas in wanted.items():
            living = [n for n, p in self.pods.items() if p["owner"] == deployment and _lives(p)]
            surplus = len(living) - replicas
            # Those that aren't ready go first, as with a ReplicaSet.
            for name in sorted(living, key=lambda n: _is_ready(self.pods[n]))[: max(0, surplus)]:
                self._end(name)
            for _ in range(-surplus):
                self._start(deployment)

    def _end(self, name: str) -> None:
        pod = self.pods[name]
        pod["metadata"]["deletionTimestamp"] = LATER
        if self.routable is not None:
            self.routable.discard(name)

    def _start(self, deployment: str) -> None:
        self.serial += 1
        template = self.children["Deployment", deployment]["spec"]["template"]
        name = f"{deployment}-{self.serial}"
        self.pods[name] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "labels": template["metadata"]["labels"]},
            "spec": copy.deepcopy(template["spec"]),
            "status": {"phase": "Pending"},
            "owner": deployment,
        }


def pod_condition(type_: str, status: str, **more: str) -> dict[str, str]:
    return {"type": type_, "status": status, **more}


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions: Iterable[Any] = pod["status"].get("conditions", ())
    return _lives(pod) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _lives(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def _as_stored(value: Any) -> Any:
    """As the API server gives an object back."""
    if isinstance(value, dict):
        kept = {k: _as_stored(v) for k, v in sorted(value.items()) if v not in ({}, [], None, "")}
        if not kept.get("publishNotReadyAddresses", True):
            del kept["publishNotReadyAddresses"]
        if "containerPort" in kept or "image" in kept:
            kept["defaulted"] = "by the API server"
        return kept
    if isinstance(value, list):
        return [_as_stored(item) for item in value]
    return _CANONICAL.get(value, value) if isinstance(value, str) else value
