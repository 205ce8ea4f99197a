"""Computes the complete status of a resource, and the events for its changes. Pure.

The schema is `autoglm.api.status`. It has no counters and no measured values, so that the status of
a resource at rest does not change and is not written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from autoglm.api import InvalidSpec
from autoglm.api.rules import at
from autoglm.api.status import ConditionType, Phase, Status
from autoglm.operator.children.metadata import identity, selector_text
from autoglm.operator.loading import Loading, LoadState
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.status.conditions import available, conditions_of, invalid_spec
from autoglm.operator.status.pods import present
from autoglm.operator.status.resource_state import Condition, ResourceState
from autoglm.operator.status.scaling import scaling_status
from autoglm.operator.status.validity import record, recorded
from autoglm.operator.types import Event, ObservedObjects, Raw

# Conditions whose changes become events; the others follow from them.
_EVENT_CONDITIONS: Final = (
    ConditionType.READY,
    ConditionType.DEGRADED,
    ConditionType.ROLLOUT_HEALTHY,
    ConditionType.SCALING_ACTIVE,
    ConditionType.RESOURCES_REQUESTED,
    ConditionType.WEIGHTS_LOADED,
)
# Reasons that never become events.
_SILENT_REASONS: Final = frozenset({"AsExpected", "Fixed", "Starting", "Complete"})
# Reasons for not being ready whose events are of type Normal.
_NORMAL_REASONS: Final = frozenset(
    {
        "Downloading",
        "Idle",
        "Loading",
        "LoadingWeights",
        "NotRoutable",
        "Pending",
        "ScalingDown",
        "Suspended",
        "Terminating",
        "Updating",
    }
)
_STATUS: Final = {True: "True", False: "False", None: "Unknown"}
# Limits of the schema.
_LONGEST = 4096
_LONGEST_URI = 1024
_MOST_MANAGED = 256
_MOST_REVISIONS = 32
_LONGEST_EVENT = 1024


def status(state: ResourceState, now: datetime) -> dict[str, Any]:
    """Return the status of a resource with a valid spec, current or last."""
    resource, raw = state.context.resource, state.observed.resource
    body = {
        "observed_generation": resource.metadata.generation,
        "phase": phase(state).value,
        "url": state.context.settings.gateway_url,
        "replicas": sum(not pod.is_ending for pod in state.pods),
        "ready_replicas": state.ready,
        "selector": selector_text(resource.name),
        "conditions": _api_conditions(conditions_of(state), raw, now),
        "model": _model(state),
        "weights": _weights(state.loading),
        "revisions": [
            {
                "hash": group.revision,
                "replicas": sum(
                    pod.revision == group.revision and not pod.is_ending for pod in state.pods
                ),
                "ready_replicas": group.ready,
            }
            for group in (state.new, *state.old[: _MOST_REVISIONS - 1])
        ],
        "scaling": scaling_status(state),
        "last_valid": recorded(raw)
        if state.invalid
        else record(raw, state.revision, state.profile),
        "managed_resources": [_managed(body) for body in state.wanted],
    }
    return _dumped(body)


def invalid_status(
    observed: ObservedObjects, settings: OperatorSettings, error: InvalidSpec, now: datetime
) -> dict[str, Any]:
    """Return the status of a resource without any valid spec: the observed pods only."""
    resource, metadata = observed.resource, observed.resource["metadata"]
    pods = [pod for pod in present(observed.pods, observed.routable, now) if not pod.is_ending]
    serving = sum(pod.is_serving for pod in pods)
    uri = at(resource, "spec.model.uri")
    invalid = invalid_spec(error, "no valid spec is known, and running pods are not changed")
    found = dict.fromkeys((ConditionType.READY, ConditionType.PROGRESSING), invalid) | {
        ConditionType.DEGRADED: replace(invalid, holds=True),
        ConditionType.AVAILABLE: available(serving) if serving else invalid,
    }
    body = {
        "observed_generation": metadata.get("generation", 0),
        "phase": (Phase.DEGRADED if serving else Phase.FAILED).value,
        "url": settings.gateway_url,
        "replicas": len(pods),
        "ready_replicas": sum(pod.is_ready for pod in pods),
        "selector": selector_text(metadata["name"]),
        "conditions": _api_conditions(found, resource, now),
        "model": {"source": uri} if isinstance(uri, str) and len(uri) <= _LONGEST_URI else None,
        "revisions": [
            {
                "hash": revision,
                "replicas": sum(p.revision == revision for p in pods),
                "ready_replicas": sum(p.revision == revision and p.is_ready for p in pods),
            }
            for revision in sorted({pod.revision for pod in pods})[:_MOST_REVISIONS]
        ],
        "last_valid": recorded(resource),
        "managed_resources": [_managed(child) for child in observed.children[:_MOST_MANAGED]],
    }
    return _dumped(body)


def ending_status(resource: Raw, now: datetime) -> dict[str, Any]:
    """Return the status of a resource that is being deleted: as it was, but not ready, with the
    finalizers on which the deletion waits."""
    metadata = resource["metadata"]
    finalizers = ", ".join(metadata.get("finalizers") or ()) or "none"
    message = (
        "it is being deleted, and stays until the controllers of its finalizers have removed them: "
        f"{finalizers}"
    )
    ending = Condition(False, "Terminating", message)
    known = {c["type"]: c for c in _previous(resource)}
    (ready,) = _api_conditions({ConditionType.READY: ending}, resource, now)
    return {
        **(resource.get("status") or {}),
        "observedGeneration": metadata.get("generation", 0),
        "phase": Phase.TERMINATING.value,
        "conditions": list({**known, ready["type"]: ready}.values()),
    }


def _api_conditions(
    conditions: Mapping[ConditionType, Condition], resource: Raw, now: datetime
) -> list[dict[str, Any]]:
    """Return the conditions for the API; lastTransitionTime is kept while the status is."""
    before = {found.get("type"): found for found in _previous(resource)}
    found = []
    for type_, condition in conditions.items():
        holds, known = _STATUS[condition.holds], before.get(type_.value, {})
        since = known.get("lastTransitionTime") if known.get("status") == holds else None
        found.append(
            {
                "type": type_.value,
                "status": holds,
                "reason": condition.reason,
                "message": condition.message[:_LONGEST],
                "lastTransitionTime": since or now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "observedGeneration": resource["metadata"].get("generation", 0),
            }
        )
    return found


def same_status(one: Raw, other: Raw | None) -> bool:
    """Return whether both are equal. Server-side apply may reorder the items of a list."""
    return other is not None and _ordered(one) == _ordered(other)


def _ordered(status: Raw) -> dict[str, Any]:
    keys = {"conditions": "type", "revisions": "hash"}
    lists = {f: sorted(status.get(f) or (), key=lambda i, k=k: i[k]) for f, k in keys.items()}
    return {**status, **lists}


def phase(state: ResourceState) -> Phase:
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
    if state.loading and state.loading.state is LoadState.DOWNLOADING:
        return Phase.LOADING
    is_placed = any(pod.raw.get("spec", {}).get("nodeName") for pod in state.pods)
    return Phase.LOADING if is_placed else Phase.PENDING


def events(resource: Raw, after: Raw) -> tuple[Event, ...]:
    """Return an event for each new reason; one for a reason that several conditions have."""
    before = {c["type"]: c for c in _previous(resource)}
    found: dict[str, Event] = {}
    for condition in after["conditions"]:
        type_, holds, reason = condition["type"], condition["status"], condition["reason"]
        known = before.get(type_, {})
        is_same = (known.get("status"), known.get("reason")) == (holds, reason)
        is_silent = type_ not in _EVENT_CONDITIONS or reason in _SILENT_REASONS
        # Ready reports a healthy rollout.
        if is_same or is_silent or (type_, holds) == (ConditionType.ROLLOUT_HEALTHY, "True"):
            continue
        bad = "True" if type_ == ConditionType.DEGRADED else "False"
        is_normal = holds != bad or reason in _NORMAL_REASONS
        message = condition["message"][:_LONGEST_EVENT]
        found.setdefault(reason, Event("Normal" if is_normal else "Warning", reason, message))
    return tuple(found.values())


def _model(state: ResourceState) -> dict[str, Any]:
    if state.new.ready:
        loading = "Loaded"
    elif state.new_fails:
        loading = "Failed"
    else:
        loading = "Loading" if state.new.present else "Pending"
    last: dict[str, Any] | None = None
    if failure := next(iter(state.failures), None):
        last = {
            "reason": failure.reason,
            "message": failure.message[:_LONGEST],
            "exit_code": failure.exit_code,
            "pod": failure.pod,
        }
    elif state.desired and not state.is_complete:
        # The last failure stays until the resource is complete.
        before = state.observed.resource.get("status") or {}
        last = (before.get("model") or {}).get("lastFailure")
    spec = state.context.spec
    return {
        "source": spec.model.uri or spec.engine.type,
        "state": loading,
        "progress": state.observed.start,
        "last_failure": last,
    }


def _weights(loading: Loading | None) -> dict[str, Any] | None:
    if loading is None:
        return None
    found: dict[str, Any] = {"state": loading.state.value, "job": loading.name}
    if (progress := loading.progress) and loading.state is LoadState.DOWNLOADING:
        found |= {
            "downloaded_bytes": progress.done,
            "total_bytes": progress.total,
            "bytes_per_second": progress.rate,
        }
    return found


def _managed(body: Raw) -> dict[str, str]:
    kind, name = identity(body)
    return {"kind": kind, "name": name}


def _previous(resource: Raw) -> list[Mapping[str, Any]]:
    return list((resource.get("status") or {}).get("conditions") or ())


def _dumped(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status through the types of the CRD's schema, so that nothing in it is pruned."""
    checked = Status.model_validate_json(json.dumps(body))
    return checked.model_dump(mode="json", by_alias=True, exclude_defaults=True)
