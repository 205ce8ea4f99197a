"""`spec.routing`, `spec.tenancy`, `spec.drain`: routing, recovery and draining of requests."""

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
PrefixCache = Literal["Isolated", "Shared"]


class Timeouts(Part):
    """Timeouts of a request. The client's deadline applies as well; the shorter one wins."""

    first_token_seconds: PositiveSeconds | None = None
    """Longest wait for the first token, in seconds. Absent: no limit."""
    chunk_seconds: PositiveSeconds | None = None
    """Longest pause between two chunks of a stream, in seconds. Absent: no limit."""
    total_seconds: PositiveSeconds | None = None
    """Longest duration of a request, in seconds. Absent: the gateway's setting."""


class ServiceLevel(Part):
    """Target of the policy LatencyAware."""

    first_token_seconds: PositiveSeconds | None = None
    """Target time to the first token, in seconds: replicas that are predicted to exceed it are
    chosen only if no other meets it. Absent: the fastest replica is chosen."""


class Retries(Part):
    """Retries of a request on other replicas, before its first chunk has been delivered."""

    attempts: Annotated[int, Field(ge=1, le=10)] | None = None
    """Most attempts of one request, including the first; 1 disables retries. Absent: the gateway's
    setting."""
    budget_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """Most retries as a share of all requests, so that retries do not amplify an overload. Absent:
    the gateway's setting."""


class Hedging(Part):
    """A streamed request is sent to a second replica when its first token is late. The first
    response is delivered, the other attempt is cancelled."""

    percentile: Annotated[float, Field(gt=0, lt=100, allow_inf_nan=False)] | None = None
    """Hedge after this percentile of earlier times to the first token, such as 95."""
    delay_seconds: PositiveSeconds | None = None
    """Hedge after this many seconds. Takes precedence over percentile."""
    max_extra_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.05
    """Most hedges as a share of all requests."""


class OutlierDetection(Part):
    """When a replica that fails or is slow is ejected: the gateway sends it no requests for some
    time. A probe request then readmits it, and its share of requests grows back. 0 disables a
    criterion."""

    consecutive_failures: Annotated[int, Field(ge=0)] = 5
    """Eject after this many consecutive failures. Client errors do not count."""
    failure_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 50.0
    """Eject at this percentage of failed requests in one interval."""
    latency_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    """Eject when the mean time to the first token is this multiple of the other replicas' median.
    """
    interval_seconds: PositiveSeconds = 10.0
    """Length of an interval over which requests are counted, in seconds."""
    ejection_seconds: PositiveSeconds = 5.0
    """Duration of the first ejection, in seconds; repeated ejections last up to eight times as
    long."""
    max_ejection_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 50.0
    """Most replicas that are ejected at the same time, in percent; the last one never is."""
    ramp_seconds: Seconds = 10.0
    """Time until a readmitted replica gets its full share of requests, in seconds."""


class StreamRecovery(Part):
    """Recovery of streams whose replica is lost after the first token."""

    mode: Literal["Replay", "Off"] = "Replay"
    """Replay: another replica resumes the stream exactly after the delivered tokens; if that is not
    possible, the stream ends with an error. Off: the stream ends with an error."""
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Most attempts on other replicas for one stream."""
    max_replay_tokens: Annotated[int, Field(ge=1)] = 32768
    """Longest stream that is recovered, in delivered tokens of all its choices."""


class Routing(Part):
    """How the gateway chooses a replica, and its timeouts, retries and recovery."""

    policy: RoutingPolicy | None = None
    """Routing policy; docs/routing.md describes each. Absent: the gateway's setting."""
    slo: ServiceLevel = ServiceLevel()
    """Target of the policy LatencyAware."""
    timeouts: Timeouts = Timeouts()
    """Timeouts of a request."""
    retries: Retries = Retries()
    """Retries of a request on other replicas."""
    hedging: Hedging | None = None
    """Hedging of slow streamed requests. Absent: the gateway's setting."""
    outlier_detection: OutlierDetection | None = None
    """Ejection of replicas that fail or are slow. Absent: the gateway's setting."""
    stream_recovery: StreamRecovery | None = None
    """Recovery of broken streams. Absent: the gateway's setting."""


class Tenancy(Part):
    """Isolation of tenants from each other. It applies if the gateway requires credentials."""

    prefix_cache: PrefixCache | None = None
    """Isolated: a tenant neither reuses nor can detect KV blocks that other tenants' prompts have
    cached. Shared: all tenants reuse cached blocks, which saves computing common prefixes. Absent:
    the gateway's setting, by default Isolated."""


class Drain(Part):
    """How a replica shuts down."""

    grace_period_seconds: Seconds = 30.0
    """Time for running requests to complete once a replica is terminated, in seconds. Set it to
    the duration of your longest response; the pod's termination grace period is derived from it."""
