"""The whole status of a resource, and the events that its changes are worth. Pure.

The shape is `autoglm.api.status`. Nothing in it changes by itself, so that a resource at rest is
never written: no counters, no measured values.
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
from autoglm.operator.scaling import scaling_status
from autoglm.operator.status.conditions import invalid_spec, serves, statements
from autoglm.operator.status.failures import Failure
from autoglm.operator.status.last_valid import kept, record
from autoglm.operator.status.pods import Pod, present
from autoglm.operator.status.situation import Situation
from autoglm.operator.status.statement import conditions

# Conditions whose changes are worth an event; the others follow from them.
_TOLD: Final = (
    ConditionType.READY,
    ConditionType.DEGRADED,
    ConditionType.ROLLOUT_HEALTHY,
    ConditionType.SCALING_ACTIVE,
)
_DULL: Final = frozenset({"AsExpected", "Fixed", "Starting", "Complete"})
# Reasons for not being ready that are no trouble.
_PLAIN: Final = frozenset(
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


def status(situation: Situation, now: datetime) -> dict[str, Any]:
    resource = situation.context.resource
    said = statements(situation)
    body = {
        "observed_generation": resource.metadata.generation,
        "phase": phase(situation).value,
        "url": situation.context.settings.gateway_url,
        "replicas": sum(not pod.is_ending for pod in situation.pods),
        "ready_replicas": situation.ready,
        "selector": selector_text(resource.name),
        "conditions": conditions(
            said, _previous(situation.observed.resource), resource.metadata.generation, now
        ),
        "model": _model(situation),
        "revisions": [
            _revision(group, situation.pods) for group in (situation.new, *situation.old[:31])
        ],
        "scaling": scaling_status(situation),
        "last_valid": _last_valid(situation),
        "managed_resources": [_managed(body) for body in situation.wanted],
    }
    return _dumped(body)


def _last_valid(situation: Situation) -> dict[str, Any] | None:
    resource = situation.observed.resource
    return kept(resource) if situation.invalid else record(resource, situation.revision)


def invalid_status(
    observed: Observed, settings: Settings, error: InvalidSpec, now: datetime
) -> dict[str, Any]:
    """Of a resource without a valid spec: what its pods say, and nothing of what they should be."""
    resource, metadata = observed.resource, observed.resource["metadata"]
    pods = [pod for pod in present(observed.pods, observed.routable, now) if not pod.is_ending]
    serving = sum(pod.is_serving for pod in pods)
    invalid = invalid_spec(error, "no valid spec is known, and what runs stays as it is")
    said = dict.fromkeys((ConditionType.READY, ConditionType.PROGRESSING), invalid) | {
        ConditionType.DEGRADED: replace(invalid, holds=True),
        ConditionType.AVAILABLE: serves(serving) if serving else invalid,
    }
    generation = metadata.get("generation", 0)
    body = {
        "observed_generation": generation,
        "phase": (Phase.DEGRADED if serving else Phase.FAILED).value,
        "url": settings.gateway_url,
        "replicas": len(pods),
        "ready_replicas": sum(pod.is_ready for pod in pods),
        "selector": selector_text(metadata["name"]),
        "conditions": conditions(said, _previous(resource), generation, now),
        "revisions": [
            {
                "hash": revision,
                "replicas": sum(p.revision == revision for p in pods),
                "ready_replicas": sum(p.revision == revision and p.is_ready for p in pods),
            }
            for revision in sorted({pod.revision for pod in pods})[:32]
        ],
        "last_valid": kept(resource),
        "managed_resources": [_managed(child) for child in observed.children[:_MOST_MANAGED]],
    }
    return _dumped(body)


def same_status(one: Raw, other: Raw | None) -> bool:
    """Whether nothing is news. Server-side apply may keep the items of a list in another order."""
    return other is not None and _ordered(one) == _ordered(other)


def _ordered(status: Raw) -> dict[str, Any]:
    keys = {"conditions": "type", "revisions": "hash"}
    lists = {f: sorted(status.get(f) or (), key=lambda i, k=k: i[k]) for f, k in keys.items()}
    return {**status, **lists}


def phase(situation: Situation) -> Phase:
    if situation.context.spec.suspend:
        return Phase.SUSPENDED
    is_wrong = any(
        (situation.failure, situation.conflicts, situation.invalid, situation.observed.lost_names)
    )
    if situation.serving and situation.desired:
        done = Phase.READY if situation.is_complete else Phase.UPDATING
        return Phase.DEGRADED if is_wrong else done
    if not situation.desired:
        return Phase.IDLE
    if situation.new_fails or situation.refused:
        return Phase.FAILED
    return Phase.LOADING if any(map(_is_placed, situation.pods)) else Phase.PENDING


def events(resource: Raw, after: Raw) -> tuple[Event, ...]:
    """Of reasons that are new; the same reason on several conditions is told once."""
    before = {c["type"]: c for c in _previous(resource)}
    told: dict[str, Event] = {}
    for condition in after["conditions"]:
        known = before.get(condition["type"], {})
        is_new = (known.get("status"), known.get("reason")) != (
            condition["status"],
            condition["reason"],
        )
        if is_new and _is_worth_telling(condition):
            told.setdefault(condition["reason"], _event(condition))
    return tuple(told.values())


def _is_worth_telling(condition: Raw) -> bool:
    # A rollout that goes well is told by Ready.
    goes_well = (condition["type"], condition["status"]) == (ConditionType.ROLLOUT_HEALTHY, "True")
    return condition["type"] in _TOLD and condition["reason"] not in _DULL and not goes_well


def _event(condition: Raw) -> Event:
    bad = "True" if condition["type"] == ConditionType.DEGRADED else "False"
    is_plain = condition["status"] != bad or condition["reason"] in _PLAIN
    message = condition["message"][:_LONGEST_EVENT]
    return Event("Normal" if is_plain else "Warning", condition["reason"], message)


def _model(situation: Situation) -> dict[str, Any]:
    failure = next(iter(situation.failures), None)
    if situation.new.ready:
        state = "Loaded"
    elif situation.new_fails:
        state = "Failed"
    else:
        state = "Loading" if situation.new.present else "Pending"
    return {"state": state, "last_failure": _last_failure(situation, failure)}


def _last_failure(situation: Situation, failure: Failure | None) -> dict[str, Any] | None:
    """Stays until all is well, since the pod that it happened to may be gone by then."""
    if failure is not None:
        return {
            "reason": failure.reason,
            "message": failure.message[:_LONGEST],
            "exit_code": failure.exit_code,
            "pod": failure.pod,
        }
    if situation.is_complete or not situation.desired:
        return None
    before = situation.observed.resource.get("status") or {}
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
    """By way of the types that the CRD's schema is made from: nothing is pruned on the way."""
    checked = Status.model_validate_json(json.dumps(body))
    return checked.model_dump(mode="json", by_alias=True, exclude_defaults=True)
