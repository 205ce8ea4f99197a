"""Computes the next number of replicas of each revision, and whose turn a changed profile is. Pure.

Rules: there is at most one replica more than desired, terminating ones included, since each holds a
model in memory. The first replica of a new revision must serve before more are created, and for
each that serves an old one is removed. Old replicas that do not serve are removed at once, as they
may occupy the GPU for which a new one waits. While the new revision fails by itself, the old one
serves the whole load and is scaled with it.

A changed profile rolls out to one resource at a time: while one replaces its replicas, the others
keep the profile that is in effect, so that a bad change takes one model no further than a failing
first replica. A resource that does not serve has nothing to lose and does not wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """The observed replicas of one revision."""

    revision: str
    replicas: int
    """spec.replicas of its Deployment."""
    present: int = 0
    """Pods that exist, terminating ones included."""
    ready: int = 0
    """Pods that are ready and not terminating."""
    serving: int = 0
    """Ready pods that every gateway has; equal to `ready` where no gateway responds."""

    @property
    def held(self) -> int:
        """Return the pods that exist or may be created at any moment."""
        return max(self.replicas, self.present)

    @property
    def is_gone(self) -> bool:
        return not self.held


def next_step(
    desired: int, revision: str, groups: Sequence[Group], *, is_failing: bool = False
) -> dict[str, int]:
    """Return the next number of replicas by revision, towards `desired` ones of `revision`. Old
    revisions without replicas and pods are left out.

    `is_failing`: the new revision's pods crash or cannot start, for causes of their own.
    """
    new = next((g for g in groups if g.revision == revision), Group(revision, 0))
    old = [g for g in groups if g.revision != revision]
    kept = _kept(desired, new, old)
    if is_failing and not new.serving:
        kept = _grown(desired, new, old, kept)
    grown = _new_replicas(desired, new, old, kept)
    return {revision: grown} | {g.revision: kept[g.revision] for g in old if not g.is_gone}


def _kept(desired: int, new: Group, old: Sequence[Group]) -> dict[str, int]:
    """Return the ready old replicas that serve instead of new ones that do not serve yet."""
    missing = max(0, desired - new.serving)
    kept = {}
    for group in sorted(old, key=lambda g: (-g.ready, g.revision)):
        # Ready pods beyond the Deployment's replicas are about to terminate.
        kept[group.revision] = min(group.ready, group.replicas, missing)
        missing -= kept[group.revision]
    return kept


def _grown(desired: int, new: Group, old: Sequence[Group], kept: dict[str, int]) -> dict[str, int]:
    """Return the kept replicas, with the strongest old revision scaled up for the failing one."""
    strongest = max(old, key=lambda g: (g.ready, g.replicas, g.revision), default=None)
    if strongest is None or not strongest.ready:
        return kept
    others = [g for g in old if g is not strongest]
    wanted = desired - sum(kept[g.revision] for g in others)
    ending = max(0, strongest.present - strongest.replicas)
    room = desired + 1 - new.held - sum(g.held for g in others) - ending
    grown = min(wanted, max(room, strongest.replicas))
    return kept | {strongest.revision: max(kept[strongest.revision], grown)}


def _new_replicas(desired: int, new: Group, old: Sequence[Group], kept: dict[str, int]) -> int:
    if new.replicas >= desired or all(g.is_gone for g in old):
        return desired
    if any(kept.values()) and new.replicas > new.serving:
        return new.replicas
    # Replicas that old revisions give up count until their pods are gone.
    room = desired + 1 - sum(max(g.held, kept[g.revision]) for g in old) - new.held
    most = 1 if any(kept.values()) and not new.serving else desired
    return new.replicas + max(0, min(room, most, desired - new.replicas))


@dataclass(frozen=True, slots=True)
class ProfileUser:
    """A resource that names a profile, as far as its turn depends on it."""

    resource: str
    """NAMESPACE/NAME."""
    profile: str
    in_effect: str = ""
    """Digest of the profile that its replicas have; empty if they have none of this name."""
    serves: bool = False
    """A replica is ready, and its spec is valid."""
    is_replacing: bool = False
    """Replicas of two revisions exist."""


def next_in_turn(users: Iterable[ProfileUser], current: str) -> ProfileUser | None:
    """Return the resource that takes the changed profile next; None while another one takes it, or
    if no resource waits. `current` is the digest of the profile."""
    serving = [user for user in users if user.serves]
    if any(user.is_replacing and user.in_effect == current for user in serving):
        return None
    waiting = [user for user in serving if user.in_effect not in ("", current)]
    # One that replaces its replicas by an earlier change is disturbed already.
    return min(waiting, key=lambda user: (not user.is_replacing, user.resource), default=None)


def waits(own: ProfileUser, users: Iterable[ProfileUser], current: str) -> bool:
    """Return whether a resource keeps the profile that it has, since it is another one's turn."""
    if not own.serves or own.in_effect in ("", current):
        return False
    others = (user for user in users if user.resource != own.resource)
    return next_in_turn((own, *others), current) is not own
