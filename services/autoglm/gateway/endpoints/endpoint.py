"""An endpoint and its state machine, which decides whether requests may be routed to it. Pure.

`step` takes an event (models discovered, load report, connection lost) and returns the new state.
Nothing here does I/O, waits or reads a clock. The pool keeps one state for each endpoint.

An endpoint is routable if its models are known, its load stream is open, and it is neither draining
nor ejected. A refused or broken connection ejects it at once; it returns with its first load report
after a back-off that doubles with each failure. One that was ejected for failed or slow responses,
or has been silent for a short time, is still used if no other is left.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from random import Random
from typing import Literal

from autoglm import v1
from autoglm.common.pacing import Backoff
from autoglm.gateway.request.request import Wire
from autoglm.kube.kinds import Key

Kind = Literal["pod", "openai"]
# The capacity of a pod that has not reported its batch size; vLLM's own default.
_UNKNOWN_CAPACITY = 256
# Steps of 1 % of KV-cache use weigh less than one request among many thousands.
_KV_WEIGHT = 1e-6
# A pod that has started is used within a second.
BACKOFF = Backoff(first=0.1, most=1.0, jitter=0.5)
# An endpoint that was ready for so long restarts its back-off from the first delay.
_FORGIVEN_AFTER = 10.0
_STRIKE_FORGIVEN_AFTER = 60.0
# For so long a silent endpoint remains a last resort, since it may only be slow.
_SILENCE_BORNE = 15.0
_MOST_TIMES = 8
_LEAST_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that serves models. A pod speaks gRPC and REST; `openai` is any OpenAI server."""

    url: str
    kind: Kind
    host: str
    port: int
    tls: bool = False
    base: str = ""
    """The path before `/v1` on an OpenAI server, without a trailing slash."""
    origin: Key | None = None
    """The AutoGLMDeployment that it belongs to; None if unknown."""
    pod: str = ""
    """The name of its pod, if known."""

    @property
    def address(self) -> str:
        """Return HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Signal(StrEnum):
    """A load signal that an endpoint may report: the name of one or of several fields of `Load`."""

    REQUESTS = "requests"
    KV_CACHE_USAGE = "kv_cache_usage"
    TOKENS_IN_FLIGHT = "tokens_in_flight"


@dataclass(frozen=True, slots=True)
class Load:
    """A load report. Signals in `missing` were not reported and read as zero."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    tokens_in_flight: int = 0
    max_num_seqs: int = 0
    adapters: tuple[str, ...] = ()
    draining: bool = False
    http_port: int = 0
    missing: tuple[Signal, ...] = ()
    kv_tokens: int = 0
    """The size of the KV cache in tokens; 0 if unknown."""
    kv_events: bool = False
    """Whether it publishes KV events."""


class Phase(StrEnum):
    """The phase of an endpoint's state machine."""

    CONNECTING = "connecting"
    READY = "ready"
    DRAINING = "draining"
    EJECTED = "ejected"


@dataclass(frozen=True, slots=True)
class State:
    """The state of an endpoint. `since` and `retry_at` are times on the monotonic clock."""

    phase: Phase = Phase.CONNECTING
    since: float = 0.0
    why: str = "not connected yet"
    failures: int = 0
    retry_at: float = 0.0
    models: tuple[v1.Model, ...] = ()
    http_port: int = 0
    is_http10: bool = False
    """It speaks HTTP/1.0, where closing the connection ends a response, complete or not."""
    strikes: int = 0
    """Consecutive ejections by outlier detection."""
    may_respond: bool = False
    """It is ejected, but may still respond: by outlier detection, or for a short silence."""
    probing: bool = False
    """It gets one request at a time until one succeeds."""
    ramp_since: float = 0.0
    ramp_seconds: float = 0.0

    @property
    def is_last_resort(self) -> bool:
        """Return whether it is ejected but usable if no other endpoint is left."""
        return self.phase is Phase.EJECTED and self.may_respond

    def weight(self, now: float) -> float:
        """Return the part of its capacity that may be used now, above 0 and at most 1."""
        if self.probing:
            return _LEAST_WEIGHT
        if not self.ramp_seconds or now >= self.ramp_since + self.ramp_seconds:
            return 1.0
        return max(_LEAST_WEIGHT, (now - self.ramp_since) / self.ramp_seconds)


@dataclass(frozen=True, slots=True)
class ModelsDiscovered:
    """The endpoint returned the models it serves."""

    models: tuple[v1.Model, ...]
    is_http10: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load report, or a successful poll of an OpenAI server."""

    load: Load


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Connection refused or reset, load stream ended or silent, health check failed."""

    why: str
    silent: bool = False
    """It timed out, or one of its connections broke; it may be busy, or gone."""


@dataclass(frozen=True, slots=True)
class Draining:
    """The endpoint rejected a request because it is shutting down."""


@dataclass(frozen=True, slots=True)
class Ejected:
    """Outlier detection ejects the endpoint for `seconds`, doubled each time in a row."""

    why: str
    seconds: float
    ramp_seconds: float


@dataclass(frozen=True, slots=True)
class ProbeSucceeded:
    """A probe request to an endpoint that returns from ejection has succeeded."""


Event = ModelsDiscovered | Loaded | Disconnected | Draining | Ejected | ProbeSucceeded


def step(state: State, event: Event, now: float, rng: Random) -> State:
    """Return the state after an event."""
    is_ejected, is_ready = state.phase is Phase.EJECTED, state.phase is Phase.READY
    match event:
        case ModelsDiscovered(models, is_http10):
            return replace(state, models=models, is_http10=is_http10)
        case Loaded(load):
            if load.http_port != state.http_port:
                state = replace(state, http_port=load.http_port)
            if load.draining:
                return _enter(state, Phase.DRAINING, "the pod is shutting down", now)
            if not state.models or (is_ejected and now < state.retry_at):
                return state
            if state.may_respond:
                state = replace(state, may_respond=False)
            return _enter(state, Phase.READY, "", now)
        case Disconnected(why, silent):
            if is_ejected and now < state.retry_at:
                # Many requests observe the same failure; it counts once.
                is_gone = state.may_respond and not silent
                return replace(state, may_respond=False, why=why) if is_gone else state
            was_fine = is_ready and now - state.since >= _FORGIVEN_AFTER
            failures = 1 if was_fine else state.failures + 1
            silent_before = state.may_respond and now - state.since < _SILENCE_BORNE
            may_respond = silent and (silent_before if is_ejected else is_ready)
            retry_at = now + BACKOFF.delay(failures, rng)
            state = replace(state, failures=failures, retry_at=retry_at, may_respond=may_respond)
            return _enter(state, Phase.EJECTED, why, now)
        case Ejected(why, seconds, ramp_seconds):
            if not is_ready:
                return state
            was_fine = not state.probing and now - state.since >= _STRIKE_FORGIVEN_AFTER
            strikes = 1 if was_fine else state.strikes + 1
            ejected = replace(
                state,
                strikes=strikes,
                retry_at=now + seconds * min(2 ** (strikes - 1), _MOST_TIMES),
                may_respond=True,
                probing=True,
                ramp_seconds=ramp_seconds,
            )
            return _enter(ejected, Phase.EJECTED, why, now)
        case ProbeSucceeded():
            return replace(state, probing=False, ramp_since=now) if state.probing else state
        case Draining():
            return _enter(state, Phase.DRAINING, "the pod is shutting down", now)


def _enter(state: State, phase: Phase, why: str, now: float) -> State:
    if (state.phase, state.why) == (phase, why):
        return state
    since = now if state.phase is not phase else state.since
    return replace(state, phase=phase, why=why, since=since)


@dataclass(slots=True)
class Live:
    """The counts of an endpoint that change too often for a snapshot. Written by the pool only.

    `others` is the reported load beyond this gateway's own requests. Own requests are counted
    between two load reports as well, so that bursts spread over the endpoints.
    """

    in_flight: int = 0
    others: int = 0
    tokens: int = 0
    """Estimated prompt tokens of this gateway's requests in flight."""
    other_tokens: int = 0
    """Tokens in flight beyond those, as of the last load report."""
    capacity: int = _UNKNOWN_CAPACITY
    kv_penalty: float = 0.0
    """KV-cache use, scaled so that it decides only between endpoints with equal shares in use."""
    load: Load = field(default_factory=Load)

    def begin(self, tokens: int = 0) -> None:
        """Count a request of so many prompt tokens as in flight."""
        self.in_flight += 1
        self.tokens += tokens

    def end(self, tokens: int = 0) -> None:
        """Take that back at the request's end."""
        self.in_flight -= 1
        self.tokens -= tokens

    def take(self, load: Load, weight: float = 1.0) -> None:
        """Apply a load report; `weight` is the usable part of the endpoint's capacity."""
        self.load = load
        self.kv_penalty = round(load.kv_cache_usage, 2) * _KV_WEIGHT
        whole = load.max_num_seqs or _UNKNOWN_CAPACITY
        self.capacity = whole if weight == 1.0 else max(1, int(whole * weight))
        # An endpoint with waiting requests is full, however few run.
        busy = max(load.running, self.capacity) if load.waiting else load.running
        self.others = max(0, busy + load.waiting - self.in_flight)
        self.other_tokens = max(0, load.tokens_in_flight - self.tokens)


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint with its state. `http_base` is the URL of its REST API; empty without one."""

    endpoint: Endpoint
    state: State
    live: Live
    http_base: str = ""
    url: str = field(init=False, repr=False, compare=False)
    """The endpoint's URL, which identifies it. No property: routing reads it for each candidate."""

    def __post_init__(self) -> None:
        """Copy the URL of the endpoint."""
        object.__setattr__(self, "url", self.endpoint.url)

    @property
    def is_routable(self) -> bool:
        """Return whether requests may be routed to it."""
        return self.state.phase is Phase.READY

    @property
    def is_usable(self) -> bool:
        """Return whether it is routable, or a last resort."""
        return self.is_routable or self.state.is_last_resort

    def speaks(self, wire: Wire) -> bool:
        """Return whether it serves gRPC or REST."""
        return bool(self.http_base) if wire == "http" else self.endpoint.kind == "pod"

    def plain_address(self, wire: Wire) -> str:
        """Return HOST:PORT for a proxy without DNS and without the gateway's certificates.

        Empty if the endpoint has a host name or needs TLS.
        """
        if self.endpoint.tls or not _is_ip(self.endpoint.host):
            return ""
        if wire == "grpc":
            return self.endpoint.address
        return self.http_base.partition("://")[2].partition("/")[0]


# Parsing one takes 50 microseconds.
@lru_cache(maxsize=4096)
def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def view_of(endpoint: Endpoint, state: State, live: Live) -> EndpointView:
    """Return the view of an endpoint in this state."""
    if endpoint.kind == "pod" and not state.http_port:
        return EndpointView(endpoint, state, live)
    port = endpoint.port if endpoint.kind == "openai" else state.http_port
    address = replace(endpoint, port=port).address
    scheme = "https" if endpoint.tls else "http"
    return EndpointView(endpoint, state, live, f"{scheme}://{address}{endpoint.base}")
