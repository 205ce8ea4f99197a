"""What routing is made of: filters narrow, scorers weigh, a picker picks. No decisions here.

A `Policy` is a row of those, run by `decide`. All are functions of a `Query` and the candidates:
they change nothing but the query's own notes, wait for nothing, and read no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from autoglm.api.traffic import RoutingPolicy
from autoglm.gateway.call import Call
from autoglm.gateway.endpoints import EndpointView, Signal
from autoglm.gateway.routing.memory import Memory


class Reason(StrEnum):
    """Why an endpoint was taken, for metrics: what decided in the end."""

    CRITERION = "criterion"
    """The policy's own measure."""
    CHANCE = "chance"
    """Chance, between those that the policy's measure holds equal."""
    ONLY = "only"
    """There was no other."""
    SIGNAL_MISSING = "signal_missing"
    """It does not report what the policy measures; our own requests were counted instead."""


@dataclass(frozen=True, slots=True)
class Trail:
    """How a decision came about, for those who ask: who was left, and with which scores."""

    candidates: Sequence[EndpointView]
    scores: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to, and why there, in words for spans and logs."""

    endpoint: EndpointView
    why: str
    policy: RoutingPolicy
    reason: Reason
    trail: Trail


@dataclass(slots=True)
class Query:
    """One request on its way through a policy. `notes` are what filters found worth telling."""

    call: Call
    now: float
    rng: Random
    memory: Memory
    notes: list[tuple[Reason, str]] = field(default_factory=list)

    def tell(self, reason: Reason, why: str) -> None:
        self.notes.append((reason, why))


Candidates = Sequence[EndpointView]
Filter = Callable[[Query, Candidates], Candidates]
"""Fewer candidates, never none."""
Scorer = Callable[[Query, Candidates], Sequence[float]]
"""From 0 to 1 for each candidate; 1 is best."""
Picker = Callable[[Query, Candidates, Sequence[float]], tuple[EndpointView, Reason]]
Words = Callable[[Query, EndpointView], str]


@dataclass(frozen=True, slots=True)
class Policy:
    """`words` says why an endpoint was taken; `needs` are signals it cannot judge without."""

    picker: Picker
    words: Words
    filters: tuple[Filter, ...] = ()
    scorers: tuple[tuple[Scorer, float], ...] = ()
    needs: tuple[Signal, ...] = ()
