"""Computes the writes for one resource: children, deletions, status, events. Pure.

`plan` is level-triggered: the same observed state gives the same plan, and gives an empty one once
it is carried out. It keeps no state between calls; a crash between any two writes converges. Called
by `reconcile` after `observe`, and carried out by `apply`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from autoglm.api import InvalidSpec
from autoglm.api.labels import FIELD_MANAGER, MANAGED_BY
from autoglm.operator.children import companions, network
from autoglm.operator.children.autoscaler import autoscaler
from autoglm.operator.children.deployment import deployment, pod_template, scaled
from autoglm.operator.children.loader import CLAIM, claim, owns_claim
from autoglm.operator.children.metadata import Body, Context, identity, revision_of
from autoglm.operator.loading import Loading, loading_of
from autoglm.operator.profiles import ChosenProfile, chosen, in_effect
from autoglm.operator.rollout import next_step
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.status.resource_state import ResourceState
from autoglm.operator.status.status import (
    ending_status,
    events,
    invalid_status,
    same_status,
    status,
)
from autoglm.operator.status.validity import restored, valid
from autoglm.operator.template.template import with_template
from autoglm.operator.types import ObservedObjects, Plan, Raw, Ref, Rejection
from autoglm.operator.writes.diff import current_conflicts, differs, with_hash

# Periodic reconciles, for changes that no watch delivers.
_WHILE_ROUTED_SECONDS = 2.0
_WHILE_CHANGING_SECONDS = 15.0
_WHILE_FAILING_SECONDS = 30.0
_AT_REST_SECONDS = 300.0


def plan(observed: ObservedObjects, settings: OperatorSettings, now: datetime) -> Plan:
    """Return the writes for one resource. Never raises for an invalid spec: the last valid one
    stays in effect, and without one only the status changes."""
    resource = observed.resource
    if "deletionTimestamp" in resource["metadata"]:
        # The garbage collector deletes the children.
        return _with_status(Plan(), resource, ending_status(resource, now))
    try:
        profile = chosen(observed)
        context, template = _checked(resource, settings, profile)
    except InvalidSpec as error:
        # A newer operator may reject a spec that an older one accepted; running pods stay then.
        with contextlib.suppress(InvalidSpec):
            if earlier := restored(resource):
                profile = in_effect(resource)
                checked = _checked(earlier, settings, profile)
                return _plan(*checked, observed, now, profile, error)
        after = invalid_status(observed, settings, error, now)
        return _with_status(Plan(requeue_after=_AT_REST_SECONDS), resource, after)
    return _plan(context, template, observed, now, profile)


def _checked(
    resource: Raw, settings: OperatorSettings, profile: ChosenProfile | None
) -> tuple[Context, Body]:
    """Return the resource and its pod template. Raises InvalidSpec."""
    context = valid(resource, settings, profile.spec if profile else None)
    return context, with_template(pod_template(context), context.spec.template)


def _plan(
    context: Context,
    template: Body,
    observed: ObservedObjects,
    now: datetime,
    profile: ChosenProfile | None,
    invalid: InvalidSpec | None = None,
) -> Plan:
    revision = revision_of(template)
    loading = loading_of(context, template, observed, now)
    state = ResourceState.of(context, observed, revision, now, invalid, loading)
    replicas = _replicas(state)
    # The ConfigMap, which carries the claim, comes first: if another installation was faster, no
    # other child is applied.
    required = [
        with_hash(companions.config_map(context)),
        with_hash(companions.service_account(context)),
        with_hash(companions.headless_service(context)),
        # The policy admits only gateways and Prometheus, which connect to pods: no Service then.
        with_hash(
            network.network_policy(context)
            if network.is_wanted(context)
            else companions.cluster_service(context)
        ),
        with_hash(companions.disruption_budget(context)),
        *_of_loader(context, loading),
    ]
    if any(r.blocks_pods for r in _rejections_of(required, observed.rejected)):
        # No replicas beyond existing pods: a ReplicaSet with too few must not create them either.
        present = {group.revision: group.present for group in state.groups}
        deployments = [
            scaled(live, min(live["spec"].get("replicas", 1), present[r], replicas.get(r, 0)))
            for r, live in state.deployments.items()
        ]
    else:
        # Old revisions first, to free resources for the new one.
        deployments = [
            scaled(state.deployments[r], n) for r, n in replicas.items() if r != revision
        ]
        if revision in replicas:
            body = deployment(context, template, revision, replicas[revision])
            deployments.append(with_hash(body))
    optional = []
    if scaler := autoscaler(context, observed):
        optional.append(with_hash(scaler))
    if context.spec.observability.pod_monitor and companions.POD_MONITOR in observed.optional_kinds:
        optional.append(with_hash(companions.pod_monitor(context)))
    wanted = [*required, *deployments, *optional]
    reported = (*observed.conflicts, *observed.reverted)
    state = replace(
        state,
        profile=profile,
        wanted=wanted,
        conflicts=current_conflicts(reported, wanted, state.children),
        rejected=_rejections_of(wanted, observed.rejected),
    )
    children = Plan(
        apply=tuple(
            body
            for body in state.wanted
            if differs(body, state.children.get(identity(body)), observed.conflicts)
        ),
        delete=tuple(_to_delete(state)),
        requeue_after=_requeue(state),
    )
    return _with_status(children, observed.resource, status(state, now))


def _replicas(state: ResourceState) -> dict[str, int]:
    """Return the next replicas by revision. Until the weights are there the strongest old revision
    serves instead of the desired one."""
    if not state.waits_for_weights:
        failing = state.new_fails
        return next_step(state.desired, state.revision, state.groups, is_failing=failing)
    strongest = max(state.old, key=lambda g: (g.ready, g.replicas, g.revision), default=None)
    return next_step(state.desired, strongest.revision, state.old) if strongest else {}


def _of_loader(context: Context, loading: Loading | None) -> Iterable[Body]:
    """Yield the claim, and the Job after the policy that it runs under."""
    if owns_claim(context.spec):
        yield with_hash(claim(context))
    if loading is None:
        return
    if network.is_wanted(context):
        yield with_hash(network.loader_policy(context))
    if loading.job is not None:
        yield loading.job


def _rejections_of(bodies: Iterable[Body], rejected: Iterable[Rejection]) -> list[Rejection]:
    """Return the rejections of these bodies, those that block pods first."""
    names = set(map(identity, bodies))
    found = [r for r in rejected if (r.kind, r.name) in names]
    return sorted(found, key=lambda r: not r.blocks_pods)


def _to_delete(state: ResourceState) -> Iterable[Ref]:
    """Yield the children that are not desired, except ServiceAccounts and claims of any revision,
    which needs them to replace pods."""
    specs = [d["spec"]["template"].get("spec", {}) for d in state.deployments.values()]
    specs += [pod.raw.get("spec", {}) for pod in state.pods]
    names = {(companions.SERVICE_ACCOUNT, spec.get("serviceAccountName", "")) for spec in specs}
    volumes = [volume for spec in specs for volume in spec.get("volumes") or ()]
    names |= {(CLAIM, v.get("persistentVolumeClaim", {}).get("claimName", "")) for v in volumes}
    names.update(map(identity, state.wanted))
    for name, child in state.children.items():
        metadata = child["metadata"]
        is_managed = metadata.get("labels", {}).get(MANAGED_BY) == FIELD_MANAGER
        if name not in names and is_managed and "deletionTimestamp" not in metadata:
            yield Ref(
                child["apiVersion"],
                child["kind"],
                metadata["namespace"],
                metadata["name"],
                metadata["uid"],
            )


def _requeue(state: ResourceState) -> float:
    if state.ready > state.serving:
        return _WHILE_ROUTED_SECONDS
    if state.failure or state.conflicts:
        return _WHILE_FAILING_SECONDS
    if state.desired and not state.is_complete:
        return _WHILE_CHANGING_SECONDS
    return _AT_REST_SECONDS


def _with_status(plan: Plan, resource: Raw, after: Body) -> Plan:
    """Return the plan with the status and its events, if the status has changed."""
    if same_status(after, resource.get("status")):
        return plan
    return replace(plan, status=after, events=events(resource, after))
