"""Parts of the spec for a cluster: resources, rollout, evictions, network, telemetry."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import CountOrShare, Part, Quantity

ResourceList = Annotated[dict[str, Quantity], Field(max_length=32)]


class Resources(Part):
    """Resources of one replica in Kubernetes' own words. `autoglm up` sets no limits."""

    requests: ResourceList = {}
    """What the scheduler reserves, such as cpu, memory and nvidia.com/gpu."""
    limits: ResourceList = {}
    """What a replica may not exceed. GPUs are given here."""


class Rollout(Part):
    """How a new revision replaces the old one."""

    strategy: Literal["RollingUpdate"] = "RollingUpdate"
    """RollingUpdate starts replicas of the new revision one at a time and ends an old one for each
    that takes requests."""


class Disruption(Part):
    """What node drains and other planned evictions must leave standing."""

    min_available: CountOrShare | None = None
    """Replicas (1) or share of them ("50%") that must stay up. Absent: one replica at a time may
    be evicted."""


class Network(Part):
    """Who may talk to the replicas."""

    policy: Literal["Strict", "None"] = "Strict"
    """Strict lets in gateways and the monitoring, and lets out name resolution, telemetry and the
    model's source. None creates no NetworkPolicy, and a Service with an address of its own for
    clients that use no gateway."""


class Tracing(Part):
    """Where spans go."""

    endpoint: Annotated[str, Field(max_length=512, pattern=r"^https?://\S+$")] | None = None
    """OTLP endpoint over gRPC, such as http://collector:4317. Absent: replicas send no spans."""
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of new traces to record; a caller's own decision is always followed."""


class Observability(Part):
    """What can be seen of the replicas."""

    tracing: Tracing = Tracing()
    """Where spans go."""
    pod_monitor: bool = True
    """Whether to create a PodMonitor where the Prometheus operator is installed."""
