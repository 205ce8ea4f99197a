"""Parts of the spec for a cluster: resources, rollout, disruption, network, observability."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import CountOrShare, Part, Quantity

ResourceList = Annotated[dict[str, Quantity], Field(max_length=32)]


class Resources(Part):
    """Resources of one replica, as in a Kubernetes container. `autoglm up` sets no limits."""

    requests: ResourceList = {}
    """Resources that the scheduler reserves, such as cpu, memory and nvidia.com/gpu."""
    limits: ResourceList = {}
    """Resources that a replica may not exceed. GPUs are set here."""


class Rollout(Part):
    """How a new revision replaces the old one."""

    strategy: Literal["RollingUpdate"] = "RollingUpdate"
    """RollingUpdate starts replicas of the new revision one at a time, and removes an old one for
    each new one that is ready."""


class Disruption(Part):
    """Limits on voluntary disruptions, such as node drains."""

    min_available: CountOrShare | None = None
    """Number (1) or percentage ("50%") of replicas that must stay available. Absent: one replica at
    a time may be evicted."""


class Network(Part):
    """Network access to and from the replicas."""

    policy: Literal["Strict", "None"] = "Strict"
    """Strict allows ingress from gateways and monitoring, and egress to DNS, telemetry and the
    model's source. None creates no NetworkPolicy, and a Service with a cluster IP for clients that
    bypass the gateway."""


class Tracing(Part):
    """Export of spans."""

    endpoint: Annotated[str, Field(max_length=512, pattern=r"^https?://\S+$")] | None = None
    """OTLP endpoint over gRPC, such as http://collector:4317. Absent: replicas export no spans."""
    sample_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    """Share of new traces to record; the sampling decision of a caller takes precedence."""


class Observability(Part):
    """Traces and metrics of the replicas."""

    tracing: Tracing = Tracing()
    """Export of spans."""
    pod_monitor: bool = True
    """Whether to create a PodMonitor if the Prometheus operator is installed."""
