"""Decides which children pods require, and which writes would start pods. Pure.

While one of these children is rejected, no write may start a pod: it would run without its network
policy, or with another account or other settings. `plan` does not scale up once a rejection is
known, `apply` skips such writes in the reconcile in which it happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from autoglm.api import KIND
from autoglm.api.labels import DEPLOYMENT
from autoglm.operator.observed import Raw, Rejection

PREREQUISITES: Final = frozenset({"ConfigMap", "NetworkPolicy", "Service", "ServiceAccount"})


def blocking(rejected: Iterable[Rejection]) -> list[Rejection]:
    """Return the rejections because of which no pod may start."""
    return [rejection for rejection in rejected if rejection.kind in PREREQUISITES]


def may_start_pods(body: Raw, live: Raw | None) -> bool:
    """Return whether applying `body` to `live` can create a pod: new, scaled up, or with another
    pod template."""
    if body["kind"] != "Deployment":
        return False
    if live is None or body["spec"]["replicas"] > live["spec"].get("replicas", 1):
        return True
    return bool(_template(body) != _template(live))


def _template(deployment: Raw) -> Mapping[str, Any]:
    template = deployment["spec"]["template"]
    kept = {k: v for k, v in template["metadata"].items() if k != "creationTimestamp"}
    return {**template, "metadata": kept}


def belongs_to_another(child: Raw, resource: Raw) -> bool:
    """Return whether another controller owns the object, or its label names another resource. An
    object of an earlier resource of the same name is adopted."""
    metadata, name = child["metadata"], resource["metadata"]["name"]
    if (metadata.get("labels") or {}).get(DEPLOYMENT) != name:
        return True
    owners = metadata.get("ownerReferences") or ()
    return any(o.get("controller") and (o["kind"], o["name"]) != (KIND, name) for o in owners)
