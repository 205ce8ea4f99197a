"""What the operator requests of the API server for one resource, and what a reconcile of it costs.

The planner, the reconciler and its caches are the operator's own; the API server is in memory. Pods
and their readiness are played, as no controllers run.
"""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry
from tests.support.fake_cluster import pod_condition, resource
from tests.support.kube.fake_api_server import FakeApiServer, Faults

from autoglm.kube.kinds import POD, RESOURCE, Key, Kind, child_kind
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator.metrics import Metrics
from autoglm.operator.observe import Caches
from autoglm.operator.ownership.installations import Installations
from autoglm.operator.plan import plan
from autoglm.operator.reconcile import Reconciler
from autoglm.operator.settings import OperatorSettings
from benchmarks.counts.requests import Found
from benchmarks.counts.tracer import Counting

KEY = Key("ns", "m")
PATH = RESOURCE.path("ns", "m")
_RECONCILES = 12
_SERVICE = child_kind("v1", "Service")


class Rig:
    """An operator's reconciler over an API server in memory."""

    def __init__(self) -> None:
        self.server = FakeApiServer()
        self.faults = Faults(self.server)
        self.caches, metrics = Caches(), Metrics(CollectorRegistry())
        kube = Kube(self.faults, metrics, Limits(3, lambda: 3))
        settings = OperatorSettings()
        self.reconcile = Reconciler(
            self.caches,
            kube,
            metrics,
            lambda _: None,
            lambda observed, now: plan(observed, settings, now),
            "me",
            Random(1),
            Installations(kube, settings.installation, 300.0, lambda _: None),
        )

    def put(self, body: dict[str, Any]) -> None:
        """A user writes the resource; the operator's watch delivers it."""
        self.server.put(PATH, body)
        self._notify()

    def _notify(self) -> None:
        self.caches.resources.put(json.dumps(self.server.objects[PATH]).encode())
        self.reconcile.mark_seen(KEY)

    async def settle(self) -> Counter[str]:
        """Reconcile until nothing is written and all pods are ready; return the calls by verb."""
        self.faults.seen.clear()
        for _ in range(_RECONCILES):
            await self.reconcile(KEY)
            self._play_controllers()
            self._notify()
        return Counter(request.method for request in self.faults.seen)

    def _play_controllers(self) -> None:
        """Each Deployment has its desired pods, and they are ready."""
        for body in list(self.server.objects.values()):
            if body.get("kind") == "Deployment":
                for number in range(body["spec"]["replicas"]):
                    self._pod(body, number)

    def _pod(self, deployment: dict[str, Any], number: int) -> None:
        template, owner = deployment["spec"]["template"], deployment["metadata"]["name"]
        name = f"{owner}-abcde-{number:05d}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "ns", "labels": template["metadata"]["labels"]},
            "spec": template["spec"] | {"nodeName": "node"},
            "status": {"phase": "Running", "conditions": [pod_condition("Ready", "True")]},
        }
        path = POD.path("ns", name)
        if path not in self.server.objects:
            self.caches.pods.put(json.dumps(self.server.put(path, pod)).encode())

    def delete(self, kind: Kind, name: str) -> None:
        """A user deletes a child."""
        path = kind.path("ns", name)
        uid = self.server.objects[path]["metadata"]["uid"]
        self.server.remove(path)
        self.caches.children[kind].forget(Key("ns", name), uid)


async def operator() -> Found:
    rig = Rig()
    wanted = resource("m", replicas=2)
    del wanted["metadata"]["uid"]
    rig.put(wanted)
    found = _calls("a new resource until it is ready", await rig.settle())
    rig.faults.seen.clear()
    with Counting() as counting:
        await rig.reconcile(KEY)
    found["operator at rest, API calls of a reconcile"] = len(rig.faults.seen)
    found["operator at rest, instructions of a reconcile, own"] = counting.found.own
    found["operator at rest, instructions of a reconcile, all"] = counting.found.all
    rig.put(_edited(rig.server.objects[PATH], replicas=3))
    found |= _calls("replicas changed", await rig.settle())
    rig.delete(_SERVICE, "m-pods")
    found |= _calls("a deleted Service", await rig.settle())
    return found


def _edited(body: dict[str, Any], **spec: Any) -> dict[str, Any]:
    metadata = body["metadata"] | {"generation": body["metadata"]["generation"] + 1}
    return body | {"metadata": metadata, "spec": body["spec"] | spec}


def _calls(when: str, seen: Counter[str]) -> Found:
    verbs = ("GET", "PATCH", "POST", "DELETE")
    return {f"operator, {when}, API calls, {verb}": seen[verb] for verb in verbs}
