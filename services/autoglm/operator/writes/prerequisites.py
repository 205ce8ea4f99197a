"""What a pod must not run without, and which writes would start pods. Pure.

While one of these children is refused, no write may start a pod: it would run without its network
policy, or as another's account, or with another's settings. `plan` keeps replicas from growing once
a refusal is known, `apply` leaves such writes out in the attempt in which it happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from autoglm.api import KIND
from autoglm.api.labels import DEPLOYMENT
from autoglm.operator.observed import Raw, Refusal

PREREQUISITES: Final = frozenset({"ConfigMap", "NetworkPolicy", "Service", "ServiceAccount"})


def withheld(refused: Iterable[Refusal]) -> list[Refusal]:
    """The refusals on account of which no pod may start."""
    return [refusal for refusal in refused if refusal.kind in PREREQUISITES]


def may_start_pods(body: Raw, live: Raw | None) -> bool:
    """Whether applying `body` to `live` can create a pod: new, grown, or another pod template."""
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
    """Whether a child of the resource's may not have this object's name: another controller owns
    the object, or its label names another resource. An object that an earlier resource of the same
    name left behind is adopted."""
    metadata, name = child["metadata"], resource["metadata"]["name"]
    if (metadata.get("labels") or {}).get(DEPLOYMENT) != name:
        return True
    owners = metadata.get("ownerReferences") or ()
    return any(o.get("controller") and (o["kind"], o["name"]) != (KIND, name) for o in owners)
