"""What is to be written for one resource: children, deletions, status, events. Pure.

`plan` is level-triggered: the same sight gives the same plan, and a plan that has been carried out
gives an empty one. Nothing is remembered; a crash between any two writes converges. Called by the
operator's queue after `observe`, and carried out by `apply`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from autoglm.api import InvalidSpec
from autoglm.api.labels import FIELD_MANAGER, MANAGED_BY
from autoglm.operator.children import (
    autoscaler,
    deployment,
    disruption,
    environment,
    identity,
    monitor,
    network,
    services,
)
from autoglm.operator.children.metadata import Body, Context
from autoglm.operator.children.metadata import identity as identity_of
from autoglm.operator.children.pod import pod_template
from autoglm.operator.observed import Observed, Plan, Raw, Ref, Refusal, Settings
from autoglm.operator.revision import revision_of
from autoglm.operator.rollout import Step, next_step
from autoglm.operator.status.last_valid import restored
from autoglm.operator.status.sight import Sight
from autoglm.operator.status.situation import Situation
from autoglm.operator.status.status import events, invalid_status, same_status, status
from autoglm.operator.status.validity import valid
from autoglm.operator.template.template import with_template
from autoglm.operator.writes.diff import differs, sealed, standing
from autoglm.operator.writes.prerequisites import withheld

# What nobody tells us of is looked for: gateways' pools soon, anything else in a while.
_WHILE_ROUTED_SECONDS = 2.0
_WHILE_CHANGING_SECONDS = 15.0
_WHILE_FAILING_SECONDS = 30.0
_AT_REST_SECONDS = 300.0


def plan(observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Never raises for what a user wrote. While a spec is invalid, the last valid one is in effect;
    where there is none, nothing but the status changes."""
    resource = observed.resource
    if "deletionTimestamp" in resource["metadata"]:
        # The garbage collector ends the children.
        return Plan()
    try:
        context, template = _checked(resource, settings)
    except InvalidSpec as error:
        return _while_invalid(observed, settings, error, now)
    return _plan(context, template, observed, now)


def _checked(resource: Raw, settings: Settings) -> tuple[Context, Body]:
    """Raises InvalidSpec."""
    context = valid(resource, settings)
    return context, with_template(pod_template(context), context.spec.template)


def _while_invalid(
    observed: Observed, settings: Settings, error: InvalidSpec, now: datetime
) -> Plan:
    # A newer operator may reject what an older one took; what runs then stays as it is.
    with contextlib.suppress(InvalidSpec):
        if earlier := restored(observed.resource):
            return _plan(*_checked(earlier, settings), observed, now, error)
    after = invalid_status(observed, settings, error, now)
    return _finished(Plan(requeue_after=_AT_REST_SECONDS), observed.resource, after)


def _plan(
    context: Context,
    template: Body,
    observed: Observed,
    now: datetime,
    invalid: InvalidSpec | None = None,
) -> Plan:
    revision = revision_of(template)
    sight = Sight.of(context, observed, now)
    found = sight.failures(revision)
    is_failing = any(f.is_own and f.revision == revision for f in found)
    desired = context.resource.desired_replicas
    step = next_step(desired, revision, sight.groups, is_failing=is_failing)
    companions = [*map(sealed, _companions(context))]
    refused = _of(companions, observed.refused)
    if withheld(refused):
        pods = list(_without_new_pods(step, sight))
    else:
        new = deployment.deployment(context, template, revision, step.replicas[revision])
        pods = [*_outgoing(revision, step, sight), sealed(new)]
    followers = [*map(sealed, _followers(context, observed))]
    wanted = [*companions, *pods, *followers]
    situation = Situation(
        context=context,
        observed=observed,
        revision=revision,
        pods=sight.pods,
        groups=sight.groups,
        failures=found,
        wanted=wanted,
        conflicts=standing((*observed.conflicts, *observed.fought), wanted, sight.children),
        refused=_of(wanted, observed.refused),
        invalid=invalid,
    )
    children = Plan(
        apply=tuple(_to_apply(wanted, sight, observed)),
        delete=tuple(_to_delete(wanted, sight)),
        requeue_after=_requeue(situation),
    )
    return _finished(children, observed.resource, status(situation, now))


def _of(bodies: Iterable[Body], refused: Iterable[Refusal]) -> list[Refusal]:
    """The refusals of these bodies; those on account of which no pod may start first."""
    names = set(map(identity_of, bodies))
    found = [r for r in refused if (r.kind, r.name) in names]
    return sorted(found, key=lambda r: r not in withheld(found))


def _companions(context: Context) -> Iterable[Body]:
    """What pods need before they start."""
    # First the one that carries the claim: where another installation was faster, nothing follows.
    yield environment.config_map(context)
    yield identity.service_account(context)
    yield services.headless_service(context)
    if network.is_wanted(context):
        yield network.network_policy(context)
    else:
        # The policy lets in gateways and Prometheus only, which use addresses of pods.
        yield services.cluster_service(context)
    yield disruption.disruption_budget(context)


def _outgoing(revision: str, step: Step, sight: Sight) -> Iterable[Body]:
    """Old revisions; applied before the new one, since they make room for it."""
    for old, replicas in step.replicas.items():
        if old != revision:
            yield deployment.scaled(sight.deployments[old], replicas)


def _without_new_pods(step: Step, sight: Sight) -> Iterable[Body]:
    """Every revision as it is, with no more replicas than it has pods: a ReplicaSet that has too
    few must not create them either."""
    present = {group.revision: group.present for group in sight.groups}
    for revision, live in sight.deployments.items():
        most = min(live["spec"].get("replicas", 1), present[revision])
        yield deployment.scaled(live, min(most, step.replicas.get(revision, 0)))


def _followers(context: Context, observed: Observed) -> Iterable[Body]:
    if scaler := autoscaler.autoscaler(context, observed):
        yield scaler
    if monitor.is_wanted(context, observed):
        yield monitor.pod_monitor(context)


def _to_apply(wanted: Sequence[Body], sight: Sight, observed: Observed) -> Iterable[Body]:
    for body in wanted:
        if differs(body, sight.children.get(identity_of(body)), observed.conflicts):
            yield body


def _to_delete(wanted: Sequence[Body], sight: Sight) -> Iterable[Ref]:
    names = set(map(identity_of, wanted)) | set(_accounts_in_use(sight))
    for name, child in sight.children.items():
        metadata = child["metadata"]
        is_ours = metadata.get("labels", {}).get(MANAGED_BY) == FIELD_MANAGER
        if name not in names and is_ours and "deletionTimestamp" not in metadata:
            yield Ref(
                child["apiVersion"],
                child["kind"],
                metadata["namespace"],
                metadata["name"],
                metadata["uid"],
            )


def _accounts_in_use(sight: Sight) -> Iterable[tuple[str, str]]:
    """A revision whose account is gone could not replace a pod."""
    specs = [d["spec"]["template"].get("spec", {}) for d in sight.deployments.values()]
    specs += [pod.raw.get("spec", {}) for pod in sight.pods]
    for spec in specs:
        yield identity.SERVICE_ACCOUNT, spec.get("serviceAccountName", "")


def _requeue(situation: Situation) -> float:
    if situation.ready > situation.serving:
        return _WHILE_ROUTED_SECONDS
    if situation.failure or situation.conflicts:
        return _WHILE_FAILING_SECONDS
    if situation.desired and not situation.is_complete:
        return _WHILE_CHANGING_SECONDS
    return _AT_REST_SECONDS


def _finished(plan: Plan, resource: Raw, after: Body) -> Plan:
    """With the status and its events, where it is news."""
    if same_status(after, resource.get("status")):
        return plan
    return replace(plan, status=after, events=events(resource, after))
