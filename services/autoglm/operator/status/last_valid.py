"""The newest valid spec of a resource, kept in its status and restored while the spec is invalid.

In the status, since nobody deletes that by hand, an operator that starts has it at once, and it is
written together with the generation that it is about. As text, so that the API server neither
prunes it nor tracks the owners of its fields. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from autoglm.operator.observed import Raw

LARGEST: Final = 1_048_576
_REPLICAS = "replicas"


def record(resource: Raw, revision: str) -> dict[str, Any] | None:
    """For `status.lastValid`; None for a spec that has no room there."""
    spec = {key: value for key, value in resource["spec"].items() if key != _REPLICAS}
    text = msgspec.json.encode(spec, order="deterministic").decode()
    if len(text) > LARGEST:
        return None
    generation = resource["metadata"].get("generation", 0)
    return {"generation": generation, "revision": revision, "spec": text}


def kept(resource: Raw) -> dict[str, Any] | None:
    """What was recorded before, as it is in the status."""
    found = (resource.get("status") or {}).get("lastValid")
    if not isinstance(found, Mapping) or not found.get("spec"):
        return None
    return {key: found[key] for key in ("generation", "revision", "spec") if key in found}


def restored(resource: Raw) -> Raw | None:
    """The resource with its last valid spec; None where there is none.

    The number of replicas is the current one, which an autoscaler writes whatever else is wrong.
    """
    found = kept(resource)
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
