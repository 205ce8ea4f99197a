"""`spec.scaling`: autoscaling of the number of replicas."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import Part, keyed_by

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
