"""Records the last valid spec of a resource in its status, and restores it for an invalid spec.

In the status, since users do not delete it, an operator that starts reads it at once, and it is
written together with its generation. As text, so that the API server neither prunes it nor tracks
the managers of its fields. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from autoglm.operator.observed import Raw

LARGEST: Final = 1_048_576
_REPLICAS = "replicas"


def record(resource: Raw, revision: str) -> dict[str, Any] | None:
    """Return `status.lastValid` for a valid resource; None if the spec is too large for it."""
    spec = {key: value for key, value in resource["spec"].items() if key != _REPLICAS}
    text = msgspec.json.encode(spec, order="deterministic").decode()
    if len(text) > LARGEST:
        return None
    generation = resource["metadata"].get("generation", 0)
    return {"generation": generation, "revision": revision, "spec": text}


def recorded(resource: Raw) -> dict[str, Any] | None:
    """Return `status.lastValid` as it is; None without one."""
    found = (resource.get("status") or {}).get("lastValid")
    if not isinstance(found, Mapping) or not found.get("spec"):
        return None
    return {key: found[key] for key in ("generation", "revision", "spec") if key in found}


def restored(resource: Raw) -> Raw | None:
    """Return the resource with its last valid spec; None without one.

    Replicas are the current ones, which an autoscaler writes even if the spec is invalid.
    """
    found = recorded(resource)
    try:
        spec = msgspec.json.decode(found["spec"], type=dict[str, Any]) if found else None
    except msgspec.MsgspecError:
        return None
    if spec is None:
        return None
    current = resource.get("spec")
    replicas = current.get(_REPLICAS) if isinstance(current, Mapping) else None
    if isinstance(replicas, int) and not isinstance(replicas, bool) and replicas >= 0:
        spec[_REPLICAS] = replicas
    return {**resource, "spec": spec}
