"""Parses EndpointSlices and AutoGLMDeployments into the facts that routing needs. No I/O.

Only those fields are read, so that facts stay small, and equal while the rest of an object changes.
Functions raise ValueError for objects they cannot read; invalid fields of `spec.routing` and
`spec.tenancy` are skipped with a warning.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import msgspec

from autoglm.api.deployment import KIND
from autoglm.api.labels import DEPLOYMENT, SERVICE_NAME, pods_service
from autoglm.api.names import declared_names
from autoglm.api.parse import lenient
from autoglm.api.spec.traffic import Tenancy
from autoglm.gateway.endpoints.deployments import Resource, Rules
from autoglm.kube.kinds import Key

GRPC_PORT_NAME = "grpc"
_FAMILIES = ("IPv4", "IPv6")
_SHOWN_CHARACTERS = 300
_RETRY_SOON, _RETRY_FAILED, _RETRY_SUSPENDED = 5.0, 15.0, 60.0
_log = logging.getLogger("autoglm.gateway")


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
    mentions = []
    for endpoint in found.endpoints or ():
        conditions = endpoint.conditions or _Conditions()
        target = endpoint.target_ref or _TargetRef()
        pod, uid = (target.name, target.uid) if target.kind in ("", "Pod") else ("", "")
        # An absent `ready` means unknown, which the API defines to be treated as true.
        is_usable = conditions.ready is not False and conditions.terminating is not True
        if endpoint.addresses:
            # All addresses of an endpoint are of one pod; the first one is used.
            host = endpoint.addresses[0]
            mentions.append(Mention(found.address_type, host, ports[0], pod, uid, is_usable))
    return Slice(deployment, tuple(sorted(mentions)))


class _Adapter(_Struct):
    name: str = ""


class _Model(_Struct):
    served_name: str | None = None
    aliases: tuple[str, ...] | None = None
    adapters: tuple[_Adapter, ...] | None = None


class _Spec(_Struct):
    model: _Model | None = None
    routing: Any = None
    tenancy: Any = None
    suspend: bool | None = None


class _Failure(_Struct):
    reason: str | None = None
    message: str | None = None


class _ModelStatus(_Struct):
    state: str | None = None
    progress: str | None = None
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
    model = found.spec.model or _Model()
    adapters = (adapter.name for adapter in model.adapters or ())
    return Resource(
        found.metadata.key,
        found.metadata.creation_timestamp or "",
        declared_names(found.metadata.name, model.served_name, model.aliases or (), adapters),
        _rules(found),
        state,
        retry_after,
    )


def _rules(found: _Deployment) -> Rules:
    """Return the rules; the gateway's own settings apply instead of invalid values."""
    parts = {"routing": found.spec.routing, "tenancy": found.spec.tenancy}
    given = {name: part for name, part in parts.items() if part is not None}
    rules, problems = lenient(Rules, given)
    if problems:
        text = "; ".join(f"spec.{problem}" for problem in problems)
        _log.warning("ignoring invalid fields of %s %s: %s", KIND, found.metadata.key, text)
    if any(problem.path.startswith("tenancy") for problem in problems):
        # Modes of newer operators fall back to the safe one.
        return rules.model_copy(update={"tenancy": Tenancy(prefix_cache="Isolated")})
    return rules


def _state(found: _Deployment) -> tuple[str, float]:
    """Return why it may have no ready pod, and the Retry-After in seconds."""
    status = found.status or _Status()
    model = status.model or _ModelStatus()
    subject = f"AutoGLMDeployment {found.metadata.key}"
    if found.spec.suspend:
        return f"{subject} is suspended", _RETRY_SUSPENDED
    phase, failure = status.phase or model.state, model.last_failure
    progress = f" ({model.progress})" if model.progress and phase != "Ready" else ""
    parts = [f"{phase or 'not started yet'}{progress}"]
    if failure is not None and phase != "Ready":
        parts += [text for text in (failure.reason, failure.message) if text]
    text = " ".join(f"{subject}: {': '.join(parts)}".split())
    return text[:_SHOWN_CHARACTERS], _RETRY_FAILED if len(parts) > 1 else _RETRY_SOON
