"""Everything that statements about a resource are derived from, in one frozen value. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoglm.api import InvalidSpec
from autoglm.operator.children.metadata import Context
from autoglm.operator.observed import Conflict, Observed, Raw, Refusal
from autoglm.operator.rollout import Group
from autoglm.operator.status.failures import Failure
from autoglm.operator.status.pods import Pod
from autoglm.operator.writes.prerequisites import withheld


@dataclass(frozen=True, slots=True)
class Situation:
    """A valid resource, what runs of it, and what is wrong."""

    context: Context
    observed: Observed
    revision: str
    pods: Sequence[Pod]
    groups: Sequence[Group]
    failures: Sequence[Failure]
    """The wanted revision's first."""
    wanted: Sequence[Raw]
    """The children that there should be."""
    conflicts: Sequence[Conflict]
    refused: Sequence[Refusal]
    invalid: InvalidSpec | None = None
    """Why the current spec is not in effect; the rest is then about the last valid one."""

    @property
    def desired(self) -> int:
        return self.context.resource.desired_replicas

    @property
    def new(self) -> Group:
        """The revision that the spec asks for."""
        known = (g for g in self.groups if g.revision == self.revision)
        return next(known, Group(self.revision, 0))

    @property
    def old(self) -> list[Group]:
        """Other revisions of which something is left."""
        return [g for g in self.groups if g.revision != self.revision and not g.is_gone]

    @property
    def ready(self) -> int:
        return sum(pod.is_ready for pod in self.pods)

    @property
    def serving(self) -> int:
        return sum(pod.is_serving for pod in self.pods)

    @property
    def failure(self) -> Failure | None:
        """What to report first: a refused child is why other things don't move."""
        for refusal in self.refused:
            return Failure("Refused", _refused(refusal))
        return next(iter(self.failures), None)

    @property
    def new_fails(self) -> bool:
        """The wanted revision's replicas end or cannot start, for reasons of their own."""
        return any(f.is_own and f.revision == self.revision for f in self.failures)

    @property
    def is_complete(self) -> bool:
        """The spec is in effect, with nothing left to do."""
        new = self.new
        return not self.old and new.serving == new.held == self.desired and not self.refused


def _refused(refusal: Refusal) -> str:
    what = f"the API server refused the {refusal.kind} {refusal.name}: {refusal.message}; "
    if withheld([refusal]):
        what += "no pod is started until it is accepted; "
    if "quota" in refusal.message:
        return f"{what}raise the quota, or delete what counts against it"
    return f"{what}correct the field that it names, in spec or spec.template"
