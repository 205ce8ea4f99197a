"""How many replicas each revision has next. Pure; derived from what is there, never remembered.

Rules: there is never more than one replica beyond what is desired, replicas that are still ending
included, since each holds a model in memory. The first replica of a new revision must take
requests before any more come, and for each that does an old one goes. Old replicas that serve
nobody go at once, as they may hold the very GPU that a new one waits for. While the new revision
fails by itself, the old one serves the whole load, as it grows and shrinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Group:
    """The replicas of one revision, as they are."""

    revision: str
    replicas: int
    """What its Deployment asks for."""
    present: int = 0
    """Pods that exist, those that are ending included."""
    ready: int = 0
    """Pods that kubelet calls ready and that are not ending."""
    serving: int = 0
    """Ready pods that every gateway has; as `ready` where no gateway can be asked."""

    @property
    def held(self) -> int:
        """Pods that there are or may be any moment."""
        return max(self.replicas, self.present)

    @property
    def is_gone(self) -> bool:
        return not self.held


@dataclass(frozen=True, slots=True)
class Step:
    """The next number of replicas by revision."""

    replicas: dict[str, int]
    finished: tuple[str, ...] = ()
    """Old revisions of which nothing is left."""


def next_step(
    desired: int, revision: str, groups: Sequence[Group], *, is_failing: bool = False
) -> Step:
    """`is_failing`: the new revision's pods end or cannot start, for reasons of their own."""
    new = next((g for g in groups if g.revision == revision), Group(revision, 0))
    old = [g for g in groups if g.revision != revision]
    kept = _kept(desired, new, old)
    if is_failing and not new.serving:
        kept = _grown(desired, new, old, kept)
    grown = _new_replicas(desired, new, old, kept)
    finished = tuple(g.revision for g in old if g.is_gone)
    replicas = {g.revision: kept[g.revision] for g in old if not g.is_gone}
    return Step({revision: grown} | replicas, finished)


def _kept(desired: int, new: Group, old: Sequence[Group]) -> dict[str, int]:
    """Old replicas that stand in for new ones that don't serve yet; ready ones only."""
    missing = max(0, desired - new.serving)
    kept = {}
    for group in sorted(old, key=lambda g: (-g.ready, g.revision)):
        # Ready pods beyond what the Deployment asks for are about to end.
        kept[group.revision] = min(group.ready, group.replicas, missing)
        missing -= kept[group.revision]
    return kept


def _grown(desired: int, new: Group, old: Sequence[Group], kept: dict[str, int]) -> dict[str, int]:
    """The strongest old revision takes what the failing one cannot; it may still be loading."""
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
    # What old revisions are told to give up is there until it is gone.
    room = desired + 1 - sum(max(g.held, kept[g.revision]) for g in old) - new.held
    most = 1 if any(kept.values()) and not new.serving else desired
    return new.replicas + max(0, min(room, most, desired - new.replicas))
