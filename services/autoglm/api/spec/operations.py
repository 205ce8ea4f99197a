"""Parts of the spec for clusters: scaling, resources, rollout, disruption, network, telemetry."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import CountOrShare, Part, Quantity, keyed_by

ResourceList = Annotated[dict[str, Quantity], Field(max_length=32)]
AnnotationName = Annotated[
    str,
    Field(
        max_length=317,
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
    ),
]
AnnotationValue = Annotated[str, Field(max_length=4096)]
MetricType = Literal[
    "CPU", "Memory", "QueueDepth", "RunningRequests", "KVCacheUsage", "TimeToFirstToken"
]


class Metric(Part):
    """A signal to scale by. The signal that requires the most replicas wins."""

    type: MetricType
    """Signal, as the mean over replicas: CPU and Memory use, waiting requests (QueueDepth), running
    requests (RunningRequests), KV cache in use (KVCacheUsage), or the 95th percentile of the time
    to the first token (TimeToFirstToken)."""
    target: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
    """Target value: percent of the resource request as a whole number for CPU and Memory, percent
    for KVCacheUsage, requests for QueueDepth and RunningRequests, seconds for TimeToFirstToken."""


class ScalingPolicy(Part):
    """One limit on how fast the number of replicas may change, as in Kubernetes' HPA."""

    type: Literal["Pods", "Percent"]
    """Whether value is a number of pods or a percentage of them."""
    value: Annotated[int, Field(ge=1, le=10_000)]
    """Largest change within one period."""
    period_seconds: Annotated[int, Field(ge=1, le=1800)]
    """Length of the period in seconds."""


class ScalingRules(Part):
    """How fast to scale in one direction, as in Kubernetes' HPA."""

    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """Seconds for which past recommendations are considered; a longer window scales less often.
    Absent: Kubernetes' default (0 up, 300 down)."""
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    """Policy that applies: the largest change, the smallest, or no change in this direction.
    Absent: Max."""
    policies: Annotated[tuple[ScalingPolicy, ...], Field(max_length=16)] = ()
    """Limits on the change. Absent: Kubernetes' default."""


class Behavior(Part):
    """How fast to scale."""

    scale_up: ScalingRules = ScalingRules()
    """Rules for adding replicas."""
    scale_down: ScalingRules = ScalingRules()
    """Rules for removing replicas. Loading a model takes minutes, so remove replicas slowly."""


class Scaling(Part):
    """Autoscaling of the number of replicas."""

    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Fewest replicas. 0 needs actuator keda and a metric other than CPU and Memory, which are
    measured in pods. `autoglm up` runs this many replicas, and at least 1."""
    max_replicas: Annotated[int, Field(ge=1, le=10_000)]
    """Most replicas; bounds the cost."""
    metrics: Annotated[
        tuple[Metric, ...],
        Field(min_length=1, max_length=16, json_schema_extra=keyed_by("type")),
    ] = (Metric(type="CPU", target=80),)
    """Signals to scale by, each type once."""
    behavior: Behavior = Behavior()
    """How fast to scale."""
    actuator: Literal["hpa", "keda"] = "hpa"
    """The autoscaler: hpa creates a HorizontalPodAutoscaler; keda creates a ScaledObject, which
    needs KEDA in the cluster."""


class Resources(Part):
    """Resources of one replica, as in a Kubernetes container. `autoglm up` sets no limits."""

    requests: ResourceList = {}
    """Resources that the scheduler reserves, such as cpu, memory and nvidia.com/gpu."""
    limits: ResourceList = {}
    """Resources that a replica may not exceed. GPUs are set here."""


class Startup(Part):
    """The start of a replica."""

    stall_seconds: Annotated[int, Field(ge=30, le=86_400)] = 600
    """Seconds without progress of download, load, compilation or warm-up after which a replica is
    ended and started again. A start that makes progress may take any time."""


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


class ServiceAccount(Part):
    """The ServiceAccount of the replicas, which has no rights in the cluster."""

    annotations: Annotated[dict[AnnotationName, AnnotationValue], Field(max_length=64)] = {}
    """Annotations, by which a cloud gives the replicas an identity, such as
    eks.amazonaws.com/role-arn, or iam.gke.io/gcp-service-account. They override those of the
    installation. A change replaces the replicas. `autoglm up` ignores them."""


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
