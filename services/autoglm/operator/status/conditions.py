"""The statements of a resource's status, each with a reason that a person can act on. Pure.

Ready: the spec is fully in effect and every replica takes requests. Available: requests are
answered, by whatever revision. docs/conditions.md lists all of them with what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from autoglm.api import InvalidSpec
from autoglm.api.status import ConditionType
from autoglm.operator.children.monitor import POD_MONITOR
from autoglm.operator.observed import Conflict, NoData
from autoglm.operator.scaling import scaling_active, unavailable
from autoglm.operator.status.last_valid import kept
from autoglm.operator.status.situation import Situation
from autoglm.operator.status.statement import Statement

_MOST_NAMED: Final = 5
_INVALID: Final = "InvalidSpec"
# Leaves room for what is in effect in a message of 4,096 characters.
_LONGEST_ERROR: Final = 3500
_LOOK_AT_GATEWAY = "check the gateway's pods and the Service of the gateway"


def statements(situation: Situation) -> dict[ConditionType, Statement]:
    return {type_: judge(situation) for type_, judge in _JUDGES.items()}


def _idle(situation: Situation) -> Statement | None:
    """Where no replica is wanted, most need no other reason."""
    if situation.context.spec.suspend:
        return Statement(False, "Suspended", "spec.suspend is true; set it to false to go on")
    if not situation.desired:
        return Statement(False, "Idle", "no replica is wanted; spec.replicas is 0")
    return None


def invalid_spec(error: InvalidSpec, in_effect: str) -> Statement:
    """Why the spec is not in effect, and what is."""
    return Statement(False, _INVALID, f"{str(error)[:_LONGEST_ERROR]}; {in_effect}")


def _invalid(situation: Situation) -> Statement | None:
    if situation.invalid is None:
        return None
    earlier = kept(situation.observed.resource) or {}
    in_effect = (
        f"revision {situation.revision} of generation {earlier.get('generation', 0)}, the last "
        "valid one, stays in effect until the spec is corrected"
    )
    return invalid_spec(situation.invalid, in_effect)


def _names(situation: Situation) -> Statement | None:
    """Names that gateways do not route to the resource; the others work."""
    lost = situation.observed.lost_names
    if not lost:
        return None
    taken = [f"{name.name!r} by {name.owner}" for name in lost if name.owner]
    denied = [repr(name.name) for name in lost if not name.owner]
    sentences = []
    if denied:
        sentences.append(
            f"the namespace {situation.context.namespace} may not claim {_some(denied)}; remove "
            "them, or have the installation allow them (model-name-rules)"
        )
    if taken:
        sentences.append(
            f"older resources serve {_some(taken)}; choose another servedName or alias here, or "
            "delete the other resource"
        )
    return Statement(False, "NameNotAllowed" if denied else "NameTaken", "; ".join(sentences))


def _some(words: list[str]) -> str:
    return ", ".join(words[:_MOST_NAMED]) + (", …" if len(words) > _MOST_NAMED else "")


def _ready(situation: Situation) -> Statement:
    if invalid := _invalid(situation):
        return invalid
    if idle := _idle(situation):
        return idle
    if names := _names(situation):
        return names
    if situation.is_complete:
        return Statement(True, "Ready", f"{_count(situation)} take requests")
    if failure := situation.failure:
        return Statement(False, failure.reason, failure.message)
    return _under_way(situation)


def _under_way(situation: Situation) -> Statement:
    """Not there yet, and nothing known to be wrong."""
    new = situation.new
    so_far = f"{_count(situation)} of the wanted revision take requests"
    if situation.old:
        return Statement(False, "Updating", so_far)
    if new.ready > new.serving:
        return Statement(False, "NotRoutable", f"{so_far}; gateways have yet to meet the others")
    if new.held > situation.desired:
        return Statement(False, "ScalingDown", f"{so_far}; others are ending")
    if not new.present:
        return Statement(False, "Pending", f"{so_far}; pods are being made")
    return Statement(False, "Loading", f"{so_far}; others load the model")


def serves(replicas: int) -> Statement:
    return Statement(True, "Serving", f"{replicas} replicas take requests")


def _available(situation: Situation) -> Statement:
    if situation.serving:
        return serves(situation.serving)
    if idle := _idle(situation):
        return idle
    if failure := situation.failure:
        return Statement(False, failure.reason, f"nothing answers requests: {failure.message}")
    return Statement(False, "NoReplicaServes", "no replica takes requests yet")


def _progressing(situation: Situation) -> Statement:
    if situation.is_complete:
        return _invalid(situation) or Statement(False, "Complete", "nothing is left to do")
    if (failure := situation.failure) and (situation.new_fails or situation.refused):
        return Statement(False, failure.reason, f"stuck: {failure.message}")
    under_way = _under_way(situation)
    return Statement(True, under_way.reason, under_way.message)


def _degraded(situation: Situation) -> Statement:
    if invalid := _invalid(situation):
        return replace(invalid, holds=True)
    if failure := situation.failure:
        return Statement(True, failure.reason, failure.message)
    if names := _names(situation):
        return replace(names, holds=True)
    if situation.conflicts:
        return Statement(True, "Conflict", "; ".join(map(_conflict, situation.conflicts)))
    return Statement(False, "AsExpected", "nothing is wrong")


def _conflict(conflict: Conflict) -> str:
    if conflict.is_fought:
        return _fight(conflict)
    return (
        f"{conflict.kind} {conflict.name}: {conflict.field} is held by {conflict.manager}, and is "
        f"left to it; let {conflict.manager} leave the field out, or set it in this resource"
    )


def _fight(conflict: Conflict) -> str:
    what = f"{conflict.kind} {conflict.name}"
    if not conflict.manager:
        return (
            f"something keeps changing or deleting {what}; it is set again with growing pauses. "
            "Find what does it (an admission webhook, a clean-up job, an older operator); stop it"
        )
    return (
        f"{conflict.manager} keeps changing {conflict.field} of {what} back; it is set again with "
        f"growing pauses. Let {conflict.manager} leave the field out, or set it in this resource"
    )


def _model_loaded(situation: Situation) -> Statement:
    if situation.new.ready:
        return Statement(True, "Loaded", f"{situation.new.ready} replicas have loaded the model")
    if idle := _idle(situation):
        return idle
    if failure := situation.failure:
        return Statement(False, failure.reason, failure.message)
    state = "Loading" if situation.new.present else "Pending"
    return Statement(False, state, "no replica of the wanted revision has loaded the model yet")


def _routable(situation: Situation) -> Statement:
    ready = [pod.name for pod in situation.pods if pod.is_ready]
    if names := _names(situation):
        return names
    if isinstance(situation.observed.routable, NoData):
        return Statement(None, "NoGateway", f"no gateway can be asked; {_LOOK_AT_GATEWAY}")
    if not ready:
        return Statement(False, "NoReplicaReady", "there is no ready replica to send requests to")
    missing = sorted(set(ready) - situation.observed.routable)
    if missing:
        message = f"not in the pool of every gateway: {_some(missing)}; if it lasts, "
        message += _LOOK_AT_GATEWAY
        return Statement(False, "NotInEveryGateway", message)
    return Statement(True, "InEveryGateway", "every gateway has every ready replica")


def _rollout_healthy(situation: Situation) -> Statement:
    own = (f for f in situation.failures if f.revision == situation.revision and f.is_own)
    failure = next(own, None)
    if failure and not situation.new.serving:
        rest = "the old revision goes on serving" if situation.old else "there is no other revision"
        message = f"revision {situation.revision} fails and {rest}: {failure.message}"
        return Statement(False, failure.reason, message)
    if invalid := _invalid(situation):
        return invalid
    state = "Complete" if situation.is_complete else "Updating"
    return Statement(True, state, f"{_count(situation)} of revision {situation.revision} serve")


def _monitoring_active(situation: Situation) -> Statement:
    if not situation.context.spec.observability.pod_monitor:
        return Statement(False, "Off", "spec.observability.podMonitor is false")
    if POD_MONITOR in situation.observed.optional_kinds:
        return Statement(True, "Active", "a PodMonitor tells Prometheus where the metrics are")
    if why := situation.observed.unavailable_kinds.get(POD_MONITOR):
        return Statement(False, "PodMonitorUnavailable", unavailable(POD_MONITOR, why))
    return Statement(False, "NotInstalled", "the Prometheus operator is not installed")


def _count(situation: Situation) -> str:
    return f"{situation.new.serving} of {situation.desired} replicas"


_JUDGES: Final[Mapping[ConditionType, Callable[[Situation], Statement]]] = {
    ConditionType.READY: _ready,
    ConditionType.AVAILABLE: _available,
    ConditionType.PROGRESSING: _progressing,
    ConditionType.DEGRADED: _degraded,
    ConditionType.MODEL_LOADED: _model_loaded,
    ConditionType.ROUTABLE: _routable,
    ConditionType.SCALING_ACTIVE: scaling_active,
    ConditionType.ROLLOUT_HEALTHY: _rollout_healthy,
    ConditionType.MONITORING_ACTIVE: _monitoring_active,
}
