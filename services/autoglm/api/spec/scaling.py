"""`spec.scaling`: how many replicas there are when their number follows the load."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import Part, keyed_by

MetricType = Literal[
    "CPU", "Memory", "QueueDepth", "RunningRequests", "KVCacheUsage", "TimeToFirstToken"
]


class Metric(Part):
    """One signal to scale by. The signal that asks for most replicas wins."""

    type: MetricType
    """What is measured, as the mean over replicas: CPU and Memory use, requests waiting
    (QueueDepth) or running (RunningRequests), KV cache in use (KVCacheUsage), and the time to the
    first token at the 95th percentile (TimeToFirstToken)."""
    target: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
    """The value to hold: whole percent of the request for CPU and Memory, percent for KVCacheUsage,
    requests for QueueDepth and RunningRequests, seconds for TimeToFirstToken."""


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
    """How far back to look for the safest recommendation, in seconds; longer means steadier.
    Absent: Kubernetes' default (0 up, 300 down)."""
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    """Which policy wins: the largest change, the smallest, or no change at all in this direction.
    Absent: Max."""
    policies: Annotated[tuple[ScalingPolicy, ...], Field(max_length=16)] = ()
    """Limits on the change. Absent: Kubernetes' default."""


class Behavior(Part):
    """How fast to scale."""

    scale_up: ScalingRules = ScalingRules()
    """Adding replicas. A model takes a while to load, so start early and wait before more."""
    scale_down: ScalingRules = ScalingRules()
    """Removing replicas. Loaded models are dear to get back, so remove slowly."""


class Scaling(Part):
    """Lets the number of replicas follow the load."""

    min_replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Fewest replicas, however quiet it is. 0 needs actuator keda and a metric other than CPU and
    Memory, which nobody uses while nothing runs. `autoglm up` runs this many, and at least 1."""
    max_replicas: Annotated[int, Field(ge=1, le=10_000)]
    """Most replicas, however busy it is; bounds the cost."""
    metrics: Annotated[
        tuple[Metric, ...],
        Field(min_length=1, max_length=16, json_schema_extra=keyed_by("type")),
    ] = (Metric(type="CPU", target=80),)
    """Signals to scale by, each type once."""
    behavior: Behavior = Behavior()
    """How fast to scale."""
    actuator: Literal["hpa", "keda"] = "hpa"
    """What scales: Kubernetes' HorizontalPodAutoscaler, or a KEDA ScaledObject where KEDA is
    installed."""
