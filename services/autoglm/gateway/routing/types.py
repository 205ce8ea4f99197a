"""The types of routing: filters, scorers, pickers, policies, queries and decisions.

A `Policy` combines filters, scorers and a picker, run by `decide`. All are functions of a `Query`
and the candidates: they change only the query's notes, never wait and read no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

import msgspec

from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.endpoint import EndpointView, Signal
from autoglm.gateway.request.request import GatewayRequest
from autoglm.gateway.routing.consistent_hash import name_of
from autoglm.gateway.routing.memory import Memory
from autoglm.gateway.routing.prefix_index import Holders, salt_of
from autoglm.validation.prefix_hash import BLOCK_TOKENS, NO_PREFIX, Prefix

Candidates = Sequence[EndpointView]
# The trust in the placement of prompts of which no prefix was ever seen again.
_LEAST_TRUST = 0.15


class Reason(StrEnum):
    """Why an endpoint was chosen: a metric label."""

    CRITERION = "criterion"
    """It is best by the policy's measure."""
    CHANCE = "chance"
    """It was drawn at random among equals by the policy's measure."""
    ONLY = "only"
    """It was the only candidate."""
    PREFIX = "prefix"
    """It holds the longest prefix of the prompt."""
    PLACED = "placed"
    """No endpoint holds a longer prefix; all gateways hash the conversation to this one."""
    SESSION = "session"
    """All gateways hash the request's session to it."""
    OVERLOADED = "overloaded"
    """The endpoint with the longest prefix has too much load."""
    PROMPT_UNKNOWN = "prompt_unknown"
    """The prompt is too short to have blocks, or unreadable; load alone decided."""
    SLO_MISSED = "slo_missed"
    """No endpoint is predicted to meet the objective; the fastest was chosen."""
    LATENCY_UNKNOWN = "latency_unknown"
    """No endpoint has responded recently: the queued work decided."""
    SIGNAL_MISSING = "signal_missing"
    """It does not report the policy's signal; this gateway's own requests were counted."""


class DecisionTrace(msgspec.Struct, frozen=True):
    """The candidates that a decision's filters left, and their scores."""

    candidates: Sequence[EndpointView]
    scores: Sequence[float] = ()


class Decision(msgspec.Struct, frozen=True):
    """The chosen endpoint; `why` explains the choice in spans and logs."""

    endpoint: EndpointView
    why: str
    policy: RoutingPolicy
    reason: Reason
    trail: DecisionTrace
    known: int | None = None
    """Blocks of the prompt known to be cached on any endpoint; None if the policy ignores them."""
    uncached_tokens: int | None = None
    """Prompt tokens that the endpoint must compute; None if the policy ignores latency."""
    is_exact: bool = False
    """Whether the endpoint's cache is known from KV events, not from the requests sent to it."""

    def ranked(self) -> Sequence[tuple[float, EndpointView]]:
        """Return the scores and candidates after filtering, the best first."""
        scores = self.trail.scores or [0.0] * len(self.trail.candidates)
        return sorted(zip(scores, self.trail.candidates, strict=True), key=lambda pair: -pair[0])

    def runners_up(self) -> Sequence[EndpointView]:
        """Return the other candidates, the best first."""
        return [view for _, view in self.ranked() if view.url != self.endpoint.url]


class Query(msgspec.Struct):
    """One request during its routing decision. `notes` are the reasons that filters add."""

    request: GatewayRequest
    now: float
    rng: Random
    memory: Memory
    slo_seconds: float | None = None
    """The objective for the time to the first token."""
    notes: list[tuple[Reason, str]] = []
    around: Sequence[str] = ()
    """The endpoints next to its position on the ring, if sampled; empty if all are candidates."""
    first_place: str = ""
    """The endpoint that its name hashes to, once that was computed."""
    prefix: Prefix = NO_PREFIX
    """The block hashes of the prompt."""
    session: str = ""
    """The request's session id; empty without one."""
    salt: int = 0
    """The salt of the request's block names."""
    _matches: dict[str, int] | None = None
    _holders: Holders | None = None
    _shares: Sequence[float] = ()
    _shares_of: Candidates = ()

    def __post_init__(self) -> None:
        """Read the facts of the request that several steps of a decision use."""
        request = self.request
        if (info := request.info) is not None:
            self.prefix, self.session = info.prefix, info.session
            self.salt = salt_of(request.principal.tenant, info.model)
        if not self.prefix.blocks:
            self._matches = {}

    @property
    def holders(self) -> Holders:
        """Return the endpoints that hold a prefix of the prompt."""
        if self._holders is None:
            self._holders = self.memory.prefixes.holders(self.prefix.blocks, self.salt)
        return self._holders

    @property
    def matches(self) -> dict[str, int]:
        """Return how many of the prompt's first blocks each candidate holds, by URL."""
        if self._matches is None:
            self._matches = self.memory.prefixes.match(self.prefix.blocks, self.salt)
        return self._matches

    def restrict_to(self, sampled: Candidates) -> None:
        """Restrict `matches` to a sample, so that not all holders of a prefix are listed."""
        self._matches = self.holders.of([view.url for view in sampled])

    @property
    def longest(self) -> int:
        """Return the most blocks of the prompt that any endpoint holds, candidate or not."""
        if self._holders is not None:
            return self._holders.longest
        return max(self.matches.values(), default=0)

    def shares_in_use(self, candidates: Candidates) -> Sequence[float]:
        """Return the share in use of each candidate; filters and scorers use the same ones."""
        if self._shares_of is not candidates:
            self._shares = [
                (live.others + live.in_flight) / live.capacity
                for view in candidates
                for live in [view.live]
            ]
            self._shares_of = candidates
        return self._shares

    def uncached_tokens(self, url: str) -> int:
        """Estimate the prompt tokens that the endpoint would have to compute."""
        tokens = self.request.info.prompt_tokens if self.request.info else 0
        return max(0, tokens - BLOCK_TOKENS * self.matches.get(url, 0))

    def first_token_seconds(self, candidates: Candidates) -> list[float]:
        """Predict the seconds to the first token of each candidate; by work if no pace is known."""
        latency, now, matches = self.memory.latency, self.now, self.matches
        fastest = latency.fastest(now) or 1.0
        tokens = self.request.info.prompt_tokens if self.request.info else 0
        return [
            latency.predict(view, tokens - BLOCK_TOKENS * matches.get(view.url, 0), now, fastest)
            for view in candidates
        ]

    @property
    def place(self) -> int:
        """Return the hash that places the request if no prefix is cached; 0 if it has none."""
        if self.session:
            return name_of(self.session, self.salt)
        # A prompt shorter than a block leaves no cached block to return to.
        return self.prefix.opening ^ self.salt if self.prefix.blocks else 0

    @property
    def trust(self) -> float:
        """Return how likely the request's prefix is seen again, from 0 to 1."""
        if self.session or self.prefix.is_continued:
            return 1.0
        return max(_LEAST_TRUST, self.memory.reuse(self.request.model))

    def add_note(self, reason: Reason, why: str) -> None:
        """Add a reason to the decision."""
        self.notes.append((reason, why))


Filter = Callable[[Query, Candidates], Candidates]
"""Returns fewer candidates, never none."""
Scorer = Callable[[Query, Candidates], Sequence[float]]
"""Returns a score from 0 to 1 for each candidate, 1 is best; empty if each scores 0."""
Picker = Callable[[Query, Candidates, Sequence[float]], tuple[EndpointView, Reason]]
Words = Callable[[Query, EndpointView], str]


@dataclass(frozen=True, slots=True)
class Policy:
    """A row of the table of policies.

    `words` explains why an endpoint was chosen; `needs` are the signals that the policy requires.
    """

    picker: Picker
    words: Words
    filters: tuple[Filter, ...] = ()
    scorers: tuple[tuple[Scorer, float], ...] = ()
    needs: tuple[Signal, ...] = ()
    remembers_prompts: bool = False
    remembers_latency: bool = False
