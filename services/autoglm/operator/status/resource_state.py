"""The observed state of a valid resource: its children, revisions, pods and failures. Pure.

Built once for each reconcile; `plan` adds the children that it computes from it, and the conditions
are derived from the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from autoglm.api import InvalidSpec
from autoglm.operator.children.metadata import Context, identity
from autoglm.operator.loading import Loading
from autoglm.operator.profiles import ChosenProfile
from autoglm.operator.rollout import Group
from autoglm.operator.status.causes import is_over_quota
from autoglm.operator.status.pods import Failure, Pod, creation_failure, failures, present
from autoglm.operator.types import Conflict, ObservedObjects, Raw, Rejection


@dataclass(frozen=True, slots=True)
class Condition:
    """Status, reason and message of a condition; `holds` is None for status Unknown."""

    holds: bool | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ResourceState:
    """A valid resource, its children and pods, and their failures."""

    context: Context
    observed: ObservedObjects
    revision: str
    """The desired revision."""
    children: dict[tuple[str, str], Raw]
    """By kind and name."""
    deployments: dict[str, Raw]
    """By revision."""
    pods: Sequence[Pod]
    groups: Sequence[Group]
    failures: Sequence[Failure]
    """Those of the desired revision first."""
    invalid: InvalidSpec | None = None
    """Why the current spec is not in effect; the rest then concerns the last valid one."""
    wanted: Sequence[Raw] = ()
    """The desired children."""
    conflicts: Sequence[Conflict] = ()
    rejected: Sequence[Rejection] = ()
    loading: Loading | None = None
    """The loader of the weights; None where no Job fills the cache."""
    profile: ChosenProfile | None = None
    """The profile that is merged under the spec."""

    @classmethod
    def of(
        cls,
        context: Context,
        observed: ObservedObjects,
        revision: str,
        now: datetime,
        invalid: InvalidSpec | None = None,
        loading: Loading | None = None,
    ) -> ResourceState:
        """Return the state of a resource whose desired revision is `revision`."""
        children = {identity(child): child for child in observed.children}
        prefix = f"{context.name}-"
        deployments = {
            name.removeprefix(prefix): child
            for (kind, name), child in sorted(children.items())
            if kind == "Deployment" and "deletionTimestamp" not in child["metadata"]
        }
        pods = present(observed.pods, observed.routable, now)
        groups = []
        found = failures(pods, observed.warnings)
        for name, deployment in deployments.items():
            own = [pod for pod in pods if pod.revision == name]
            ready, serving = sum(p.is_ready for p in own), sum(p.is_serving for p in own)
            replicas = deployment.get("spec", {}).get("replicas", 1)
            groups.append(Group(name, replicas, len(own), ready, serving))
            if len(own) < replicas:
                full_name = deployment["metadata"]["name"]
                found += creation_failure(observed.warnings, full_name, name)
        if loading and loading.failure:
            found.append(replace(loading.failure, revision=revision))
        found.sort(key=lambda f: (f.revision != revision, not f.is_own))
        return cls(
            *(context, observed, revision, children, deployments, pods, groups, found, invalid),
            loading=loading,
        )

    @property
    def desired(self) -> int:
        """Return the desired replicas."""
        return self.context.resource.desired_replicas

    @property
    def new(self) -> Group:
        """Return the group of the desired revision."""
        known = (g for g in self.groups if g.revision == self.revision)
        return next(known, Group(self.revision, 0))

    @property
    def old(self) -> list[Group]:
        """Return the other revisions that still have replicas or pods."""
        return [g for g in self.groups if g.revision != self.revision and not g.is_gone]

    @property
    def waits_for_weights(self) -> bool:
        """Return whether no pod of the desired revision may be created yet."""
        return bool(self.loading and self.loading.holds_pods and self.new.is_gone)

    @property
    def ready(self) -> int:
        """Return the ready pods of all revisions."""
        return sum(pod.is_ready for pod in self.pods)

    @property
    def serving(self) -> int:
        """Return the pods of all revisions to which every gateway routes."""
        return sum(pod.is_serving for pod in self.pods)

    @property
    def failure(self) -> Failure | None:
        """Return the failure to report: a rejected child first, since it blocks the others."""
        if not self.rejected:
            return next(iter(self.failures), None)
        first = self.rejected[0]
        message = f"the API server rejected the {first.kind} {first.name}: {first.message}; "
        if first.blocks_pods:
            message += "no pod is started until it is accepted; "
        if is_over_quota(first.message):
            message += "raise the quota, or delete objects that count against it"
        else:
            message += "correct the field that it names, in spec or spec.template"
        return Failure("Rejected", message)

    @property
    def new_fails(self) -> bool:
        """Return whether the desired revision crashes or cannot start, by its own cause."""
        return any(f.is_own and f.revision == self.revision for f in self.failures)

    @property
    def is_complete(self) -> bool:
        """Return whether the spec is in effect, with no change in progress."""
        new = self.new
        return not self.old and new.serving == new.held == self.desired and not self.rejected
