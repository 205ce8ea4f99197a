"""Computes the complete status of a resource, and the events for its changes. Pure.

The schema is `autoglm.api.status`. It has no counters and no measured values, so that the status of
a resource at rest does not change and is not written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from autoglm.api import InvalidSpec
from autoglm.api.status import ConditionType, Phase, Status
from autoglm.operator.children.metadata import identity, selector_text
from autoglm.operator.observed import Event, Observed, Raw, Settings
from autoglm.operator.rollout import Group
from autoglm.operator.status.condition import api_conditions
from autoglm.operator.status.conditions import conditions_of, invalid_spec
from autoglm.operator.status.conditions import serving as serving_condition
from autoglm.operator.status.failures import Failure
from autoglm.operator.status.last_valid import record, recorded
from autoglm.operator.status.observed_state import ObservedState
from autoglm.operator.status.pods import Pod, present
from autoglm.operator.status.scaling import scaling_status

# Conditions whose changes become events; the others follow from them.
_EVENT_CONDITIONS: Final = (
    ConditionType.READY,
    ConditionType.DEGRADED,
    ConditionType.ROLLOUT_HEALTHY,
    ConditionType.SCALING_ACTIVE,
)
# Reasons that never become events.
_SILENT_REASONS: Final = frozenset({"AsExpected", "Fixed", "Starting", "Complete"})
# Reasons for not being ready whose events are of type Normal.
_NORMAL_REASONS: Final = frozenset(
    {
        "Idle",
        "Loading",
        "NotRoutable",
        "Pending",
        "ScalingDown",
        "Suspended",
        "Updating",
    }
)
_LONGEST = 4096
_MOST_MANAGED = 256
_LONGEST_EVENT = 1024


def status(state: ObservedState, now: datetime) -> dict[str, Any]:
    """Return the status of a resource with a valid spec, current or last."""
    resource = state.context.resource
    body = {
        "observed_generation": resource.metadata.generation,
        "phase": phase(state).value,
        "url": state.context.settings.gateway_url,
        "replicas": sum(not pod.is_ending for pod in state.pods),
        "ready_replicas": state.ready,
        "selector": selector_text(resource.name),
        "conditions": api_conditions(
            conditions_of(state),
            _previous(state.observed.resource),
            resource.metadata.generation,
            now,
        ),
        "model": _model(state),
        "revisions": [_revision(group, state.pods) for group in (state.new, *state.old[:31])],
        "scaling": scaling_status(state),
        "last_valid": _last_valid(state),
        "managed_resources": [_managed(body) for body in state.wanted],
    }
    return _dumped(body)


def _last_valid(state: ObservedState) -> dict[str, Any] | None:
    resource = state.observed.resource
    return recorded(resource) if state.invalid else record(resource, state.revision)


def invalid_status(
    observed: Observed, settings: Settings, error: InvalidSpec, now: datetime
) -> dict[str, Any]:
    """Return the status of a resource without any valid spec: the observed pods only."""
    resource, metadata = observed.resource, observed.resource["metadata"]
    pods = [pod for pod in present(observed.pods, observed.routable, now) if not pod.is_ending]
    serving = sum(pod.is_serving for pod in pods)
    invalid = invalid_spec(error, "no valid spec is known, and running pods are not changed")
    found = dict.fromkeys((ConditionType.READY, ConditionType.PROGRESSING), invalid) | {
        ConditionType.DEGRADED: replace(invalid, holds=True),
        ConditionType.AVAILABLE: serving_condition(serving) if serving else invalid,
    }
    generation = metadata.get("generation", 0)
    body = {
        "observed_generation": generation,
        "phase": (Phase.DEGRADED if serving else Phase.FAILED).value,
        "url": settings.gateway_url,
        "replicas": len(pods),
        "ready_replicas": sum(pod.is_ready for pod in pods),
        "selector": selector_text(metadata["name"]),
        "conditions": api_conditions(found, _previous(resource), generation, now),
        "revisions": [
            {
                "hash": revision,
                "replicas": sum(p.revision == revision for p in pods),
                "ready_replicas": sum(p.revision == revision and p.is_ready for p in pods),
            }
            for revision in sorted({pod.revision for pod in pods})[:32]
        ],
        "last_valid": recorded(resource),
        "managed_resources": [_managed(child) for child in observed.children[:_MOST_MANAGED]],
    }
    return _dumped(body)


def same_status(one: Raw, other: Raw | None) -> bool:
    """Return whether both are equal. Server-side apply may reorder the items of a list."""
    return other is not None and _ordered(one) == _ordered(other)


def _ordered(status: Raw) -> dict[str, Any]:
    keys = {"conditions": "type", "revisions": "hash"}
    lists = {f: sorted(status.get(f) or (), key=lambda i, k=k: i[k]) for f, k in keys.items()}
    return {**status, **lists}


def phase(state: ObservedState) -> Phase:
    """Return the phase of a resource with a valid spec, current or last."""
    if state.context.spec.suspend:
        return Phase.SUSPENDED
    has_problem = any((state.failure, state.conflicts, state.invalid, state.observed.lost_names))
    if state.serving and state.desired:
        healthy = Phase.READY if state.is_complete else Phase.UPDATING
        return Phase.DEGRADED if has_problem else healthy
    if not state.desired:
        return Phase.IDLE
    if state.new_fails or state.rejected:
        return Phase.FAILED
    return Phase.LOADING if any(map(_is_placed, state.pods)) else Phase.PENDING


def events(resource: Raw, after: Raw) -> tuple[Event, ...]:
    """Return an event for each new reason; one for a reason that several conditions have."""
    before = {c["type"]: c for c in _previous(resource)}
    found: dict[str, Event] = {}
    for condition in after["conditions"]:
        known = before.get(condition["type"], {})
        is_new = (known.get("status"), known.get("reason")) != (
            condition["status"],
            condition["reason"],
        )
        if is_new and _becomes_event(condition):
            found.setdefault(condition["reason"], _event(condition))
    return tuple(found.values())


def _becomes_event(condition: Raw) -> bool:
    # Ready reports a healthy rollout.
    is_healthy = (condition["type"], condition["status"]) == (ConditionType.ROLLOUT_HEALTHY, "True")
    return (
        condition["type"] in _EVENT_CONDITIONS
        and condition["reason"] not in _SILENT_REASONS
        and not is_healthy
    )


def _event(condition: Raw) -> Event:
    bad = "True" if condition["type"] == ConditionType.DEGRADED else "False"
    is_normal = condition["status"] != bad or condition["reason"] in _NORMAL_REASONS
    message = condition["message"][:_LONGEST_EVENT]
    return Event("Normal" if is_normal else "Warning", condition["reason"], message)


def _model(state: ObservedState) -> dict[str, Any]:
    failure = next(iter(state.failures), None)
    if state.new.ready:
        loading = "Loaded"
    elif state.new_fails:
        loading = "Failed"
    else:
        loading = "Loading" if state.new.present else "Pending"
    return {"state": loading, "last_failure": _last_failure(state, failure)}


def _last_failure(state: ObservedState, failure: Failure | None) -> dict[str, Any] | None:
    """Return the last failure. It stays until the resource is complete."""
    if failure is not None:
        return {
            "reason": failure.reason,
            "message": failure.message[:_LONGEST],
            "exit_code": failure.exit_code,
            "pod": failure.pod,
        }
    if state.is_complete or not state.desired:
        return None
    before = state.observed.resource.get("status") or {}
    known: dict[str, Any] | None = (before.get("model") or {}).get("lastFailure")
    return known


def _revision(group: Group, pods: Sequence[Pod]) -> dict[str, Any]:
    return {
        "hash": group.revision,
        "replicas": sum(p.revision == group.revision and not p.is_ending for p in pods),
        "ready_replicas": group.ready,
    }


def _managed(body: Raw) -> dict[str, str]:
    kind, name = identity(body)
    return {"kind": kind, "name": name}


def _is_placed(pod: Pod) -> bool:
    return bool(pod.raw.get("spec", {}).get("nodeName"))


def _previous(resource: Raw) -> list[Mapping[str, Any]]:
    return list((resource.get("status") or {}).get("conditions") or ())


def _dumped(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status through the types of the CRD's schema, so that nothing in it is pruned."""
    checked = Status.model_validate_json(json.dumps(body))
    return checked.model_dump(mode="json", by_alias=True, exclude_defaults=True)
