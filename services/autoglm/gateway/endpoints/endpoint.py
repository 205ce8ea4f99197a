"""What is known of an endpoint, and whether it may be sent requests.

`step` decides: events in (models learnt, load message, connection lost), state out. Nothing here
does I/O, waits or reads a clock. The pool keeps one state for each endpoint.

An endpoint is routable when its models are known, its load stream is up, and it is neither draining
nor ejected. A refused or broken connection ejects it at once; it comes back with its first load
message after a back-off that doubles with each failure. One that is left alone for its answers, or
silent for a short time, is still used where no other is left.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from random import Random
from typing import Literal

from autoglm import v1
from autoglm.common.backoff import Backoff
from autoglm.gateway.endpoints.deployments import Key
from autoglm.gateway.request.request import Wire

Kind = Literal["pod", "openai"]
# Until a pod says how many requests it works on at once; vLLM's own default.
_UNKNOWN_CAPACITY = 256
# Steps of 1 % of KV-cache use weigh less than one request of many thousand.
_KV_WEIGHT = 1e-6
# A pod that comes up is used within a second.
BACKOFF = Backoff(first=0.1, most=1.0, jitter=0.5)
# An endpoint that was fine for so long starts its back-off anew when it fails.
_FORGIVEN_AFTER = 10.0
_STRIKE_FORGIVEN_AFTER = 60.0
# For so long a silent endpoint is better than none, as it may only be slow.
_SILENCE_BORNE = 15.0
_MOST_TIMES = 8
_LEAST_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server to send requests to. A pod speaks gRPC and REST; `openai` is any OpenAI server."""

    url: str
    kind: Kind
    host: str
    port: int
    tls: bool = False
    base: str = ""
    """Path in front of `/v1` on an OpenAI server, without a slash at its end."""
    origin: Key | None = None
    """The AutoGLMDeployment that it belongs to; None where none is known."""
    pod: str = ""
    """Name of its pod, where that is known."""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Signal(StrEnum):
    """What an endpoint may say of its load, by the names of `Load`'s fields or a word for two."""

    REQUESTS = "requests"
    KV_CACHE_USAGE = "kv_cache_usage"
    TOKENS_IN_FLIGHT = "tokens_in_flight"


@dataclass(frozen=True, slots=True)
class Load:
    """What an endpoint said of its load. Signals that are `missing` read as none."""

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
    """How many tokens the KV cache holds; 0 when unknown."""
    kv_events: bool = False
    """It tells what is in its KV cache."""


class Phase(StrEnum):
    CONNECTING = "connecting"
    READY = "ready"
    DRAINING = "draining"
    EJECTED = "ejected"


@dataclass(frozen=True, slots=True)
class State:
    """What the pool remembers of an endpoint. `since` and `retry_at` are monotonic times."""

    phase: Phase = Phase.CONNECTING
    since: float = 0.0
    why: str = "not connected yet"
    failures: int = 0
    retry_at: float = 0.0
    models: tuple[v1.Model, ...] = ()
    http_port: int = 0
    is_http10: bool = False
    """It speaks HTTP/1.0, where a response ends with its connection, whole or not."""
    strikes: int = 0
    """Times in a row that it was left alone because it answered badly."""
    may_answer: bool = False
    """It is left alone, and may answer all the same: it answers badly, or is silent for now."""
    probing: bool = False
    """It may have one request at a time until one has gone well."""
    ramp_since: float = 0.0
    ramp_seconds: float = 0.0

    @property
    def is_last_resort(self) -> bool:
        """Better than nothing, where no other endpoint is left."""
        return self.phase is Phase.EJECTED and self.may_answer

    def weight(self, now: float) -> float:
        """The part of its capacity that may be used now, above 0 and at most 1."""
        if self.probing:
            return _LEAST_WEIGHT
        if not self.ramp_seconds or now >= self.ramp_since + self.ramp_seconds:
            return 1.0
        return max(_LEAST_WEIGHT, (now - self.ramp_since) / self.ramp_seconds)


@dataclass(frozen=True, slots=True)
class ModelsDiscovered:
    """The endpoint answered with the models it serves."""

    models: tuple[v1.Model, ...]
    is_http10: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load message, or a foreign endpoint's good health."""

    load: Load


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Connection refused or reset, load stream ended or silent, bad health."""

    why: str
    silent: bool = False
    """Nothing came from it in time, or one connection of many broke; it may be busy, or gone."""


@dataclass(frozen=True, slots=True)
class Draining:
    """The endpoint refused a request because it is going away."""


@dataclass(frozen=True, slots=True)
class Ejected:
    """The endpoint answers badly and is left alone for `seconds`, longer each time in a row."""

    why: str
    seconds: float
    ramp_seconds: float


@dataclass(frozen=True, slots=True)
class ProbeSucceeded:
    """A request that was let try an endpoint in probation has gone well."""


Event = ModelsDiscovered | Loaded | Disconnected | Draining | Ejected | ProbeSucceeded


def step(state: State, event: Event, now: float, rng: Random) -> State:
    """The state after an event."""
    match event:
        case ModelsDiscovered(models, is_http10):
            return replace(state, models=models, is_http10=is_http10)
        case Loaded(load):
            return _loaded(state, load, now)
        case Disconnected():
            return _lost(state, event, now, rng)
        case Ejected():
            return _struck(state, event, now)
        case ProbeSucceeded():
            return replace(state, probing=False, ramp_since=now) if state.probing else state
        case Draining():
            return _enter(state, Phase.DRAINING, "the pod is going away", now)


def _loaded(state: State, load: Load, now: float) -> State:
    if load.http_port != state.http_port:
        state = replace(state, http_port=load.http_port)
    if load.draining:
        return _enter(state, Phase.DRAINING, "the pod is going away", now)
    if not state.models or (state.phase is Phase.EJECTED and now < state.retry_at):
        return state
    if state.may_answer:
        state = replace(state, may_answer=False)
    return _enter(state, Phase.READY, "", now)


def _lost(state: State, lost: Disconnected, now: float, rng: Random) -> State:
    if state.phase is Phase.EJECTED and now < state.retry_at:
        # Many requests notice the same death; it counts once.
        is_news = state.may_answer and not lost.silent
        return replace(state, may_answer=False, why=lost.why) if is_news else state
    was_fine = state.phase is Phase.READY and now - state.since >= _FORGIVEN_AFTER
    failures = 1 if was_fine else state.failures + 1
    retry_at = now + BACKOFF.delay(failures, rng)
    may_answer = lost.silent and _is_heard_of(state, now)
    state = replace(state, failures=failures, retry_at=retry_at, may_answer=may_answer)
    return _enter(state, Phase.EJECTED, lost.why, now)


def _is_heard_of(state: State, now: float) -> bool:
    """Whether it was fine so shortly ago that its silence may be haste."""
    if state.phase is Phase.EJECTED:
        return state.may_answer and now - state.since < _SILENCE_BORNE
    return state.phase is Phase.READY


def _struck(state: State, event: Ejected, now: float) -> State:
    if state.phase is not Phase.READY:
        return state
    was_fine = not state.probing and now - state.since >= _STRIKE_FORGIVEN_AFTER
    strikes = 1 if was_fine else state.strikes + 1
    seconds = event.seconds * min(2 ** (strikes - 1), _MOST_TIMES)
    struck = replace(
        state,
        strikes=strikes,
        retry_at=now + seconds,
        may_answer=True,
        probing=True,
        ramp_seconds=event.ramp_seconds,
    )
    return _enter(struck, Phase.EJECTED, event.why, now)


def _enter(state: State, phase: Phase, why: str, now: float) -> State:
    if (state.phase, state.why) == (phase, why):
        return state
    since = now if state.phase is not phase else state.since
    return replace(state, phase=phase, why=why, since=since)


@dataclass(slots=True)
class Live:
    """The counts of an endpoint that change too often for a snapshot. Written by the pool only.

    `others` is load that is not ours: what the endpoint reported beyond our own requests. So our
    own count for between two load messages, and bursts spread.
    """

    in_flight: int = 0
    others: int = 0
    tokens: int = 0
    """Estimated prompt tokens of our own requests in flight."""
    other_tokens: int = 0
    """Tokens in flight beyond those, as last reported."""
    capacity: int = _UNKNOWN_CAPACITY
    kv_penalty: float = 0.0
    """KV-cache use, scaled so that it decides only between endpoints with equal shares in use."""
    load: Load = field(default_factory=Load)

    def take(self, load: Load, weight: float = 1.0) -> None:
        """With the weight of an endpoint that is on its way back its capacity is less."""
        self.load = load
        self.kv_penalty = round(load.kv_cache_usage, 2) * _KV_WEIGHT
        whole = load.max_num_seqs or _UNKNOWN_CAPACITY
        self.capacity = whole if weight == 1.0 else max(1, int(whole * weight))
        # Whoever has requests waiting is full, however few it could fit.
        busy = max(load.running, self.capacity) if load.waiting else load.running
        self.others = max(0, busy + load.waiting - self.in_flight)
        self.other_tokens = max(0, load.tokens_in_flight - self.tokens)


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint as routing and relays see it. `http_base` is empty where it serves no REST."""

    endpoint: Endpoint
    state: State
    live: Live
    http_base: str = ""

    @property
    def url(self) -> str:
        return self.endpoint.url

    @property
    def is_routable(self) -> bool:
        return self.state.phase is Phase.READY

    @property
    def is_usable(self) -> bool:
        """Routable, or what is left where nothing is."""
        return self.is_routable or self.state.is_last_resort

    def speaks(self, wire: Wire) -> bool:
        return bool(self.http_base) if wire == "http" else self.endpoint.kind == "pod"

    def plain_address(self, wire: Wire) -> str:
        """HOST:PORT for a proxy that looks up no names and has no certificates of ours; empty
        where it cannot go there."""
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
    if endpoint.kind == "pod" and not state.http_port:
        return EndpointView(endpoint, state, live)
    port = endpoint.port if endpoint.kind == "openai" else state.http_port
    address = replace(endpoint, port=port).address
    scheme = "https" if endpoint.tls else "http"
    return EndpointView(endpoint, state, live, f"{scheme}://{address}{endpoint.base}")
