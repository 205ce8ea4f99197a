"""Parses EndpointSlices and AutoGLMDeployments into the facts that routing needs. Pure.

Only those fields are read, so that facts stay small, and equal while the rest of an object changes.
Functions raise ValueError for objects they cannot read.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, TypeVar, get_args

import msgspec
from msgspec import Meta

from autoglm.api.labels import DEPLOYMENT, SERVICE_NAME, pods_service
from autoglm.api.names import declared_names
from autoglm.api.spec.traffic import RoutingPolicy
from autoglm.gateway.endpoints.deployments import Key, Resource, Rules
from autoglm.gateway.endpoints.safeguards import HedgePolicy, OutlierPolicy, RecoveryPolicy
from autoglm.gateway.request.prefix_cache import PrefixCache

GRPC_PORT_NAME = "grpc"
_FAMILIES = ("IPv4", "IPv6")
_SHOWN_CHARACTERS = 300
_RETRY_SOON, _RETRY_FAILED, _RETRY_SUSPENDED = 5.0, 15.0, 60.0
_Seconds = Annotated[float, Meta(gt=0)]


class _Struct(msgspec.Struct, rename="camel"):
    """A part of an object, with fields in camelCase; unknown fields are skipped."""


class ObjectMeta(_Struct):
    name: str
    namespace: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    labels: dict[str, str] | None = None

    @property
    def key(self) -> Key:
        return Key(self.namespace, self.name)


class Head(_Struct):
    """The metadata of any object."""

    metadata: ObjectMeta


class _Conditions(_Struct):
    ready: bool | None = None
    terminating: bool | None = None


class _TargetRef(_Struct):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Endpoint(_Struct):
    addresses: tuple[str, ...] = ()
    conditions: _Conditions | None = None
    target_ref: _TargetRef | None = None


class _Port(_Struct):
    name: str | None = None
    port: int | None = None


class _EndpointSlice(_Struct):
    metadata: ObjectMeta
    address_type: str = ""
    endpoints: tuple[_Endpoint, ...] | None = None
    ports: tuple[_Port, ...] | None = None


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """A pod's address in one EndpointSlice. IPv4 sorts before IPv6."""

    family: str
    host: str
    port: int
    pod: str
    uid: str
    is_usable: bool

    @property
    def identity(self) -> str:
        """Return the pod's identity, equal in all slices; its address if no pod is named."""
        return self.uid or self.pod or self.host


@dataclass(frozen=True, slots=True)
class Slice:
    """The pods of one resource in one EndpointSlice; empty for slices of other Services."""

    deployment: Key
    mentions: tuple[Mention, ...] = ()


def slice_of(data: bytes) -> Slice:
    """Parse an EndpointSlice. Raises ValueError."""
    found = msgspec.json.decode(data, type=_EndpointSlice)
    labels = found.metadata.labels or {}
    deployment = Key(found.metadata.namespace, labels.get(DEPLOYMENT, ""))
    ports = [p.port for p in found.ports or () if p.name == GRPC_PORT_NAME and p.port]
    if labels.get(SERVICE_NAME) != pods_service(deployment.name) or not ports:
        return Slice(deployment)
    if found.address_type not in _FAMILIES:
        return Slice(deployment)
    mentions = (
        _mention(found.address_type, host, ports[0], endpoint)
        for endpoint in found.endpoints or ()
        # All addresses of an endpoint are of one pod; the first one is used.
        for host in endpoint.addresses[:1]
    )
    return Slice(deployment, tuple(sorted(mentions)))


def _mention(family: str, host: str, port: int, endpoint: _Endpoint) -> Mention:
    conditions = endpoint.conditions or _Conditions()
    target = endpoint.target_ref or _TargetRef()
    pod, uid = (target.name, target.uid) if target.kind in ("", "Pod") else ("", "")
    # An absent `ready` means unknown, which the API defines to be treated as true.
    is_usable = conditions.ready is not False and conditions.terminating is not True
    return Mention(family, host, port, pod, uid, is_usable)


class _Adapter(_Struct):
    name: str = ""


class _Model(_Struct):
    served_name: str | None = None
    aliases: tuple[str, ...] | None = None
    adapters: tuple[_Adapter, ...] | None = None


class _Timeouts(_Struct):
    first_token_seconds: _Seconds | None = None
    chunk_seconds: _Seconds | None = None
    total_seconds: _Seconds | None = None


class _ServiceLevel(_Struct):
    first_token_seconds: _Seconds | None = None


class _Retries(_Struct):
    attempts: Annotated[int, Meta(ge=1)] | None = None
    budget_ratio: Annotated[float, Meta(ge=0, le=1)] | None = None


class _StreamRecovery(_Struct):
    mode: str = "Replay"
    max_attempts: Annotated[int, Meta(ge=1)] | None = None
    max_replay_tokens: Annotated[int, Meta(ge=1)] | None = None


class _Routing(_Struct):
    policy: str | None = None
    slo: _ServiceLevel | None = None
    timeouts: _Timeouts | None = None
    retries: _Retries | None = None
    hedging: dict[str, float | None] | None = None
    outlier_detection: dict[str, float | None] | None = None
    stream_recovery: _StreamRecovery | None = None


class _Tenancy(_Struct):
    prefix_cache: str | None = None


class _Spec(_Struct):
    model: _Model | None = None
    routing: _Routing | None = None
    tenancy: _Tenancy | None = None
    suspend: bool | None = None


class _Failure(_Struct):
    reason: str | None = None
    message: str | None = None


class _ModelStatus(_Struct):
    state: str | None = None
    last_failure: _Failure | None = None


class _Status(_Struct):
    phase: str | None = None
    model: _ModelStatus | None = None


class _Deployment(_Struct):
    metadata: ObjectMeta
    spec: _Spec
    status: _Status | None = None


def resource_of(data: bytes) -> Resource:
    """Parse an AutoGLMDeployment. Raises ValueError."""
    found = msgspec.json.decode(data, type=_Deployment)
    state, retry_after = _state(found)
    return Resource(
        found.metadata.key,
        found.metadata.creation_timestamp or "",
        _names(found),
        _rules(found.spec.routing or _Routing(), found.spec.tenancy or _Tenancy()),
        state,
        retry_after,
    )


def _names(found: _Deployment) -> tuple[str, ...]:
    model = found.spec.model or _Model()
    adapters = (adapter.name for adapter in model.adapters or ())
    aliases = model.aliases or ()
    return declared_names(found.metadata.name, model.served_name, aliases, adapters)


def _rules(routing: _Routing, tenancy: _Tenancy) -> Rules:
    timeouts, retries = routing.timeouts or _Timeouts(), routing.retries or _Retries()
    return Rules(
        timeouts.first_token_seconds,
        timeouts.chunk_seconds,
        timeouts.total_seconds,
        retries.attempts,
        retries.budget_ratio,
        _policy(routing.policy),
        (routing.slo or _ServiceLevel()).first_token_seconds,
        _recovery(routing.stream_recovery),
        _safeguard(routing.hedging, HedgePolicy),
        _safeguard(routing.outlier_detection, OutlierPolicy),
        _prefix_cache(tenancy.prefix_cache),
    )


def _prefix_cache(mode: str | None) -> PrefixCache | None:
    """Modes of newer operators fall back to the safe one."""
    if mode is None:
        return None
    return "Shared" if mode == "Shared" else "Isolated"


def _recovery(given: _StreamRecovery | None) -> RecoveryPolicy | None:
    if given is None:
        return None
    default = RecoveryPolicy()
    attempts = 0 if given.mode == "Off" else given.max_attempts or default.attempts
    return RecoveryPolicy(attempts, given.max_replay_tokens or default.max_tokens)


_Policy = TypeVar("_Policy", HedgePolicy, OutlierPolicy)


def _safeguard(given: dict[str, float | None] | None, kind: type[_Policy]) -> _Policy | None:
    """Fields have the names of the spec in another case; unknown ones are skipped."""
    if given is None:
        return None
    names = {_camel(field.name): field.name for field in fields(kind)}
    known: dict[str, Any] = {names[k]: v for k, v in given.items() if k in names and v is not None}
    return kind(**known)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


def _policy(name: str | None) -> RoutingPolicy | None:
    """None, the gateway's default, for a policy of a newer operator."""
    return next((known for known in get_args(RoutingPolicy) if known == name), None)


def _state(found: _Deployment) -> tuple[str, float]:
    """Return why it may have no ready pod, and the Retry-After in seconds."""
    status = found.status or _Status()
    model = status.model or _ModelStatus()
    subject = f"AutoGLMDeployment {found.metadata.key}"
    if found.spec.suspend:
        return f"{subject} is suspended", _RETRY_SUSPENDED
    phase, failure = status.phase or model.state, model.last_failure
    parts = [phase or "not started yet"]
    if failure is not None and phase != "Ready":
        parts += [text for text in (failure.reason, failure.message) if text]
    text = " ".join(f"{subject}: {': '.join(parts)}".split())
    return text[:_SHOWN_CHARACTERS], _RETRY_FAILED if len(parts) > 1 else _RETRY_SOON
