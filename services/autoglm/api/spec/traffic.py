"""`spec.routing`, `spec.tenancy`, `spec.drain`: requests on their way and at a replica's end."""

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


class Hedging(Part):
    """A stream's request is sent to a second replica when its first token is late. The one that
    answers first is kept, the other one cancelled."""

    percentile: Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)] | None = None
    """How late: later than this percentile of the first tokens before, such as 95."""
    delay_seconds: PositiveSeconds | None = None
    """How late: so many seconds. Comes before `percentile`."""
    max_extra_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.05
    """Most second requests as a share of all requests."""


class OutlierDetection(Part):
    """When a replica that answers, but badly, is left alone for a while. Then one request tries it,
    and its share grows back slowly. 0 turns a sign off."""

    consecutive_failures: Annotated[int, Field(ge=0)] = 5
    """Failures in a row. Errors of clients never count."""
    failure_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 50.0
    """Failed requests of one interval, in percent."""
    latency_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    """Mean time to the first token, as a multiple of the median of the other replicas."""
    interval_seconds: PositiveSeconds = 10.0
    """How long requests are counted before they are judged, in seconds."""
    ejection_seconds: PositiveSeconds = 5.0
    """How long a replica is left alone the first time, in seconds; up to eight times as long where
    it goes on."""
    max_ejection_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 50.0
    """Most replicas that may be left alone at once, in percent; never the last one."""
    ramp_seconds: Seconds = 10.0
    """How long a replica takes to get its full share again, in seconds."""


class StreamRecovery(Part):
    """What becomes of a stream whose replica is lost after the first token."""

    mode: Literal["Replay", "Off"] = "Replay"
    """Replay: another replica goes on behind the tokens that were sent, exactly or not at all.
    Off: the stream ends with an error."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Most attempts on other replicas for one stream."""
    max_replay_tokens: Annotated[int, Field(ge=1)] = 32768
    """Longest stream that is recovered, in tokens of all its answers."""


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
    hedging: Hedging | None = None
    """When a request is sent to a second replica as well. Absent: the gateway's own setting."""
    outlier_detection: OutlierDetection | None = None
    """When a replica is left alone for a while. Absent: the gateway's own setting."""
    stream_recovery: StreamRecovery | None = None
    """What becomes of broken streams. Absent: the gateway's own setting."""


class Tenancy(Part):
    """What tenants share. There are tenants where the gateway wants credentials."""

    prefix_cache: Literal["Isolated", "Shared"] | None = None
    """Isolated: no tenant reuses, or can find out, what another one's prompts have left in the KV
    cache. Shared: all do, which saves the computation of prefixes that tenants have in common.
    Absent: the gateway's own setting, which is Isolated by default."""


class Drain(Part):
    """How a replica ends."""

    grace_period_seconds: Seconds = 30.0
    """How long running requests may go on once a replica is told to stop, in seconds. Set it to
    your longest answer; the pod's termination grace period is derived from it."""
