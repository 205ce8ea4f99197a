"""`spec.routing` and `spec.drain`: what happens to requests on their way and at a replica's end."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import Part, PositiveSeconds, Seconds

RoutingPolicy = Literal[
    "LeastLoaded",
    "LeastRequests",
    "LeastTokens",
    "PrefixAffinity",
    "LatencyAware",
    "DynamicWeighted",
    "PowerOfTwoChoices",
    "RoundRobin",
    "Random",
]


class Timeouts(Part):
    """How long a request may take. The caller's own deadline holds as well; the shorter wins."""

    first_token_seconds: PositiveSeconds | None = None
    """Longest wait for the first token, in seconds. Absent: no limit of its own."""
    chunk_seconds: PositiveSeconds | None = None
    """Longest silence between two chunks of a stream, in seconds. Absent: no limit of its own."""
    total_seconds: PositiveSeconds | None = None
    """Longest time for a whole request, in seconds. Absent: the gateway's own limit."""


class ServiceLevel(Part):
    """What the policy LatencyAware aims at."""

    first_token_seconds: PositiveSeconds | None = None
    """How soon the first token should come, in seconds: replicas likely to take longer are chosen
    only where none is faster. Absent: as soon as can be."""


class Retries(Part):
    """When a request is tried on another replica. Only before its first chunk has been sent."""

    attempts: Annotated[int, Field(ge=1, le=10)] | None = None
    """Most tries of one request, the first included; 1 turns retries off. Absent: the gateway's
    own limit."""
    budget_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """Most retries as a share of all requests, so that retries can't double an overload. Absent:
    the gateway's own share."""


class Routing(Part):
    """How the gateway chooses a replica and how long it waits for it."""

    policy: RoutingPolicy | None = None
    """How a replica is chosen; docs/routing.md says what each policy does. Absent: the gateway's
    own policy."""
    slo: ServiceLevel = ServiceLevel()
    """What the policy LatencyAware aims at."""
    timeouts: Timeouts = Timeouts()
    """How long a request may take."""
    retries: Retries = Retries()
    """When a request is tried elsewhere."""


class Drain(Part):
    """How a replica ends."""

    grace_period_seconds: Seconds = 30.0
    """How long running requests may go on once a replica is told to stop, in seconds. Set it to
    your longest answer; the pod's termination grace period is derived from it."""
