"""What routing is made of: filters narrow, scorers weigh, a picker picks. No decisions here.

A `Policy` is a row of those, run by `decide`. All are functions of a `Query` and the candidates:
they change nothing but the query's own notes, wait for nothing, and read no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random

from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.endpoint import EndpointView, Signal
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.affinity import name_of
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.routing.prefix import Holders, salt_of
from autoglm.validation.prefix_hash import BLOCK_TOKENS, NO_PREFIX, Prefix

Candidates = Sequence[EndpointView]
# For prompts that have never been seen again so far; they may be.
_LEAST_TRUST = 0.15


class Reason(StrEnum):
    """Why an endpoint was taken, for metrics: what decided in the end."""

    CRITERION = "criterion"
    """The policy's own measure."""
    CHANCE = "chance"
    """Chance, between those that the policy's measure holds equal."""
    ONLY = "only"
    """There was no other."""
    PREFIX = "prefix"
    """It holds the longest beginning of the prompt."""
    PLACED = "placed"
    """Nobody holds more of it, and this is where all gateways place this conversation."""
    SESSION = "session"
    """As placed, by the request's session."""
    OVERLOADED = "overloaded"
    """Whoever holds the longest beginning has too much load."""
    PROMPT_UNKNOWN = "prompt_unknown"
    """The prompt is too short to have blocks, or cannot be read; load alone decided."""
    SLO_MISSED = "slo_missed"
    """Nobody is likely to answer as soon as wished; the soonest was taken."""
    LATENCY_UNKNOWN = "latency_unknown"
    """No endpoint has answered lately: the work in front of the request decided."""
    SIGNAL_MISSING = "signal_missing"
    """It does not report what the policy measures; our own requests were counted instead."""


@dataclass(frozen=True, slots=True)
class DecisionTrace:
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
    trail: DecisionTrace
    known: int | None = None
    """Blocks of the prompt that somebody was known to hold; None where nobody asked."""
    uncached_tokens: int | None = None
    """Prompt tokens that the endpoint will have to compute; None where nobody asked."""
    is_exact: bool = False
    """The endpoint itself tells what it has cached; otherwise it is what we have sent there."""

    def ranked(self) -> Sequence[tuple[float, EndpointView]]:
        """Scores and candidates that were left, the best first."""
        scores = self.trail.scores or [0.0] * len(self.trail.candidates)
        return sorted(zip(scores, self.trail.candidates, strict=True), key=lambda pair: -pair[0])

    def runners_up(self) -> Sequence[EndpointView]:
        """Who would have been taken next, the best first."""
        return [view for _, view in self.ranked() if view.url != self.endpoint.url]


@dataclass(slots=True)
class Query:
    """One request on its way through a policy. `notes` are what filters found worth telling."""

    call: GatewayRequest
    now: float
    rng: Random
    memory: Memory
    slo_seconds: float | None = None
    """How soon the first token should come."""
    notes: list[tuple[Reason, str]] = field(default_factory=list)
    around: Sequence[str] = ()
    """The endpoints around its place, where not all are looked at; empty where all are."""
    first_place: str = ""
    """The endpoint that the request has its place on, once that has been looked up."""
    _matches: dict[str, int] | None = None
    _holders: Holders | None = None

    @property
    def prefix(self) -> Prefix:
        return self.call.info.prefix if self.call.info else NO_PREFIX

    @property
    def session(self) -> str:
        return self.call.info.session if self.call.info else ""

    @property
    def salt(self) -> int:
        return salt_of(self.call.principal.tenant, self.call.model)

    @property
    def holders(self) -> Holders:
        """Of the prompt's first blocks."""
        if self._holders is None:
            self._holders = self.memory.prefixes.holders(self.prefix.blocks, self.salt)
        return self._holders

    @property
    def matches(self) -> dict[str, int]:
        """How many of the prompt's first blocks each endpoint that is looked at holds, by URL."""
        if self._matches is None:
            self._matches = self.memory.prefixes.match(self.prefix.blocks, self.salt)
        return self._matches

    def restrict_to(self, sampled: Candidates) -> None:
        """From now on these are all that count, so that what others hold is never listed."""
        self._matches = self.holders.of(view.url for view in sampled)

    @property
    def longest(self) -> int:
        """Blocks of the prompt that any endpoint holds, looked at or not."""
        if self._holders is not None:
            return self._holders.longest
        return max(self.matches.values(), default=0)

    def uncached_tokens(self, url: str) -> int:
        """An estimate of what the endpoint would have to compute of the prompt."""
        tokens = self.call.info.prompt_tokens if self.call.info else 0
        return max(0, tokens - BLOCK_TOKENS * self.matches.get(url, 0))

    def first_token_seconds(self, candidates: Candidates) -> list[float]:
        """As predicted for each candidate; by work alone where no pace is known."""
        latency, now, matches = self.memory.latency, self.now, self.matches
        fastest = latency.fastest(now) or 1.0
        tokens = self.call.info.prompt_tokens if self.call.info else 0
        return [
            latency.predict(view, tokens - BLOCK_TOKENS * matches.get(view.url, 0), now, fastest)
            for view in candidates
        ]

    @property
    def place(self) -> int:
        """What the request is placed by where nobody knows its prompt; 0 where nothing is known."""
        if self.session:
            return name_of(self.session, self.salt)
        # What is shorter than a block leaves nothing to come back to.
        return self.prefix.opening ^ self.salt if self.prefix.blocks else 0

    @property
    def trust(self) -> float:
        """How much its place is likely to be worth, from 0 to 1."""
        if self.session or self.prefix.is_continued:
            return 1.0
        return max(_LEAST_TRUST, self.memory.reuse(self.call.model))

    def tell(self, reason: Reason, why: str) -> None:
        self.notes.append((reason, why))


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
    remembers_prompts: bool = False
    remembers_latency: bool = False
