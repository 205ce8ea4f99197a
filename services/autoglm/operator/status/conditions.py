"""Computes the conditions of a resource, each with a reason that a user can act on. Pure.

Ready: the spec is fully in effect and every replica serves. Available: requests are served, by any
revision. docs/conditions.md lists all reasons with their remedies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from autoglm.api import InvalidSpec
from autoglm.api.status import ConditionType
from autoglm.operator.children.companions import POD_MONITOR
from autoglm.operator.children.deployment import requests_nothing
from autoglm.operator.loading import RETRY_AFTER, Loading, LoadState
from autoglm.operator.profiles import INVALID_SPEC, PROFILE_NOT_FOUND, ProfileNotFound
from autoglm.operator.status.resource_state import Condition, ResourceState
from autoglm.operator.status.scaling import scaling_active, unavailable
from autoglm.operator.status.validity import recorded
from autoglm.operator.types import Conflict

_MOST_NAMED: Final = 5
# Leaves room for what is in effect in a message of 4,096 characters.
_LONGEST_ERROR: Final = 3500
_NO_RESOURCES: Final = Condition(
    False,
    "NoResources",
    "spec.resources requests nothing, so the scheduler may place replicas on any node, with or "
    "without a GPU, and beside others that use its memory; set nvidia.com/gpu in "
    "spec.resources.limits, or cpu and memory for an image without CUDA (`autoglm size` computes "
    "what the model needs)",
)
_CHECK_GATEWAY = "check the gateway's pods and the Service of the gateway"


def conditions_of(state: ResourceState) -> dict[ConditionType, Condition]:
    """Return every condition of a resource with a valid spec, current or last."""
    found = {type_: evaluate(state) for type_, evaluate in _EVALUATORS.items()}
    if profile := _profile_applied(state):
        found[ConditionType.PROFILE_APPLIED] = profile
    if state.loading:
        found[ConditionType.WEIGHTS_LOADED] = _weights_loaded(state.loading)
    if requests_nothing(state.context.spec):
        found[ConditionType.RESOURCES_REQUESTED] = _NO_RESOURCES
    return found


def _idle(state: ResourceState) -> Condition | None:
    """Return the common reason where no replica is desired."""
    if state.context.spec.suspend:
        return Condition(False, "Suspended", "spec.suspend is true; set it to false to resume")
    if not state.desired:
        return Condition(False, "Idle", "no replica is desired; spec.replicas is 0")
    return None


def invalid_spec(error: InvalidSpec, in_effect: str) -> Condition:
    """Return the condition for an invalid spec, with the one that is in effect."""
    reason = PROFILE_NOT_FOUND if isinstance(error, ProfileNotFound) else INVALID_SPEC
    return Condition(False, reason, f"{str(error)[:_LONGEST_ERROR]}; {in_effect}")


def _invalid(state: ResourceState) -> Condition | None:
    if state.invalid is None:
        return None
    earlier = recorded(state.observed.resource) or {}
    in_effect = (
        f"revision {state.revision} of generation {earlier.get('generation', 0)}, the last "
        "valid one, stays in effect until the spec is corrected"
    )
    return invalid_spec(state.invalid, in_effect)


def _names(state: ResourceState) -> Condition | None:
    """Return the condition for model names that gateways do not route to the resource."""
    lost = state.observed.lost_names
    if not lost:
        return None
    taken = [f"{name.name!r} by {name.owner}" for name in lost if name.owner]
    denied = [repr(name.name) for name in lost if not name.owner]
    sentences = []
    if denied:
        sentences.append(
            f"the namespace {state.context.namespace} may not claim {_join(denied)}; remove "
            "them, or allow them in the installation (model-name-rules)"
        )
    if taken:
        sentences.append(
            f"older resources serve {_join(taken)}; choose another servedName or alias here, or "
            "delete the other resource"
        )
    return Condition(False, "NameNotAllowed" if denied else "NameTaken", "; ".join(sentences))


def _join(words: list[str]) -> str:
    return ", ".join(words[:_MOST_NAMED]) + (", …" if len(words) > _MOST_NAMED else "")


def _ready(state: ResourceState) -> Condition:
    if invalid := _invalid(state):
        return invalid
    if idle := _idle(state):
        return idle
    if names := _names(state):
        return names
    if state.is_complete:
        return Condition(True, "Ready", f"{_count(state)} serve")
    if failure := state.failure:
        return Condition(False, failure.reason, failure.message)
    return _in_progress(state)


def _in_progress(state: ResourceState) -> Condition:
    """Return the condition of a resource that is not complete and has no failure."""
    new = state.new
    so_far = f"{_count(state)} of the desired revision serve"
    if state.waits_for_weights and state.loading:
        found = (
            f"{so_far}; the others wait until the Job {state.loading.name} has loaded the weights"
        )
        return Condition(False, "LoadingWeights", found)
    if state.old:
        return Condition(False, "Updating", so_far)
    if new.ready > new.serving:
        return Condition(False, "NotRoutable", f"{so_far}; gateways do not have the others yet")
    if new.held > state.desired:
        return Condition(False, "ScalingDown", f"{so_far}; others are terminating")
    if not new.present:
        return Condition(False, "Pending", f"{so_far}; pods are being created")
    return Condition(False, "Loading", f"{so_far}; others load the model{_start(state)}")


def _start(state: ResourceState) -> str:
    return f": {state.observed.start}" if state.observed.start else ""


def available(replicas: int) -> Condition:
    """Return the condition Available where replicas serve."""
    return Condition(True, "Serving", f"{replicas} replicas serve")


def _available(state: ResourceState) -> Condition:
    if state.serving:
        return available(state.serving)
    if idle := _idle(state):
        return idle
    if failure := state.failure:
        return Condition(False, failure.reason, f"no replica serves: {failure.message}")
    return Condition(False, "NoReplicaServes", "no replica serves yet")


def _progressing(state: ResourceState) -> Condition:
    if state.is_complete:
        return _invalid(state) or Condition(False, "Complete", "the rollout is complete")
    if (failure := state.failure) and (state.new_fails or state.rejected):
        return Condition(False, failure.reason, f"no progress: {failure.message}")
    in_progress = _in_progress(state)
    return Condition(True, in_progress.reason, in_progress.message)


def _degraded(state: ResourceState) -> Condition:
    if invalid := _invalid(state):
        return replace(invalid, holds=True)
    if failure := state.failure:
        return Condition(True, failure.reason, failure.message)
    if names := _names(state):
        return replace(names, holds=True)
    if state.conflicts:
        return Condition(True, "Conflict", "; ".join(map(_conflict_message, state.conflicts)))
    return Condition(False, "AsExpected", "no problem found")


def _conflict_message(conflict: Conflict) -> str:
    child = f"{conflict.kind} {conflict.name}"
    if not conflict.is_reverted:
        return (
            f"{child}: {conflict.field} is owned by {conflict.manager} and not changed; remove the "
            "field there, or set it in this resource"
        )
    if not conflict.manager:
        return (
            f"another controller keeps changing or deleting {child}; it is applied again with "
            "growing pauses. Find it (an admission webhook, a clean-up job, an older operator) and "
            "stop it"
        )
    return (
        f"{conflict.manager} keeps reverting {conflict.field} of {child}; it is applied again with "
        "growing pauses. Remove the field there, or set it in this resource"
    )


def _model_loaded(state: ResourceState) -> Condition:
    if state.new.ready:
        return Condition(True, "Loaded", f"{state.new.ready} replicas have loaded the model")
    if idle := _idle(state):
        return idle
    if failure := state.failure:
        return Condition(False, failure.reason, failure.message)
    reason = "Loading" if state.new.present else "Pending"
    message = f"no replica of the desired revision has loaded the model yet{_start(state)}"
    return Condition(False, reason, message)


def _routable(state: ResourceState) -> Condition:
    ready = [pod.name for pod in state.pods if pod.is_ready]
    if names := _names(state):
        return names
    if state.observed.routable is None:
        return Condition(None, "NoGateway", f"no gateway responds; {_CHECK_GATEWAY}")
    if not ready:
        return Condition(False, "NoReplicaReady", "no replica is ready")
    missing = sorted(set(ready) - state.observed.routable)
    if missing:
        message = f"not in the pool of every gateway: {_join(missing)}; if it lasts, "
        message += _CHECK_GATEWAY
        return Condition(False, "NotInEveryGateway", message)
    return Condition(True, "InEveryGateway", "every gateway has every ready replica")


def _rollout_healthy(state: ResourceState) -> Condition:
    own = (f for f in state.failures if f.revision == state.revision and f.is_own)
    failure = next(own, None)
    if failure and not state.new.serving:
        rest = "the old revision keeps serving" if state.old else "there is no other revision"
        message = f"revision {state.revision} fails and {rest}: {failure.message}"
        return Condition(False, failure.reason, message)
    if invalid := _invalid(state):
        return invalid
    reason = "Complete" if state.is_complete else "Updating"
    return Condition(True, reason, f"{_count(state)} of revision {state.revision} serve")


def _monitoring_active(state: ResourceState) -> Condition:
    if not state.context.spec.observability.pod_monitor:
        return Condition(False, "Off", "spec.observability.podMonitor is false")
    if POD_MONITOR in state.observed.optional_kinds:
        return Condition(True, "Active", "a PodMonitor selects the metrics of the replicas")
    if why := state.observed.unavailable_kinds.get(POD_MONITOR):
        return Condition(False, "PodMonitorUnavailable", unavailable(POD_MONITOR, why))
    return Condition(False, "NotInstalled", "the Prometheus operator is not installed")


def _profile_applied(state: ResourceState) -> Condition | None:
    """Return the condition of the profile; None without one."""
    if isinstance(state.invalid, ProfileNotFound):
        return _invalid(state)
    if state.profile is None:
        return None
    name = state.profile.name
    if state.profile.waits:
        message = (
            f"the profile {name} has changed; models take it one at a time, and this one keeps the "
            "earlier state until its turn"
        )
        return Condition(False, "WaitingForTurn", message)
    return Condition(True, "Applied", f"the profile {name} is merged under the spec")


def _weights_loaded(loading: Loading) -> Condition:
    """Return the condition of the Job that fills the cache."""
    if loading.state is LoadState.LOADED:
        return Condition(True, "Loaded", f"the Job {loading.name} has filled the cache")
    if failure := loading.failure:
        retry = "it is tried again"
        if loading.state is LoadState.FAILED:
            retry += f" {RETRY_AFTER.seconds // 60} minutes after it failed"
        return Condition(False, failure.reason, f"{failure.message}; {retry}")
    if loading.state is LoadState.DOWNLOADING:
        progress = str(loading.progress) if loading.progress else "its progress is not known yet"
        return Condition(False, "Downloading", f"the Job {loading.name} downloads: {progress}")
    return Condition(False, "Pending", f"the Job {loading.name} has no running pod yet")


def _count(state: ResourceState) -> str:
    return f"{state.new.serving} of {state.desired} replicas"


_EVALUATORS: Final[Mapping[ConditionType, Callable[[ResourceState], Condition]]] = {
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
