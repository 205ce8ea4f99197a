"""What is observed of a resource, sorted by what it means to a plan. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from autoglm.operator.children.metadata import Context, identity
from autoglm.operator.observed import Observed, Raw
from autoglm.operator.rollout import Group
from autoglm.operator.status.failures import Failure, creation_failure, failures
from autoglm.operator.status.pods import Pod, groups, present

_DEPLOYMENT = "Deployment"


@dataclass(frozen=True, slots=True)
class Sight:
    """The resource's own children and pods, by name."""

    children: dict[tuple[str, str], Raw]
    deployments: dict[str, Raw]
    """By revision."""
    pods: Sequence[Pod]
    groups: Sequence[Group]
    warnings: Sequence[Raw]

    @classmethod
    def of(cls, context: Context, observed: Observed, now: datetime) -> Sight:
        own = {identity(c): c for c in observed.children if _is_owned(c, context)}
        prefix = f"{context.name}-"
        deployments = {
            name.removeprefix(prefix): child
            for (kind, name), child in sorted(own.items())
            if kind == _DEPLOYMENT and "deletionTimestamp" not in child["metadata"]
        }
        pods = present(observed.pods, observed.routable, now)
        return cls(own, deployments, pods, groups(deployments, pods), observed.warnings)

    def failures(self, revision: str) -> list[Failure]:
        """Those of the wanted revision first."""
        found = failures(self.pods, self.warnings)
        for group in self.groups:
            if group.present < group.replicas:
                name = self.deployments[group.revision]["metadata"]["name"]
                found += creation_failure(self.warnings, name, group.revision)
        return sorted(found, key=lambda f: (f.revision != revision, not f.is_own))


def _is_owned(child: Raw, context: Context) -> bool:
    owners = child["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == context.resource.metadata.uid for owner in owners)
