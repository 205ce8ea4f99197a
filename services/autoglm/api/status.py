"""`status`: the observed state of a resource, as the operator reports it.

Types only. The operator writes them, the CRD's schema is generated from them, the CLI reads them.
Values that later versions may extend (phases, reasons) are strings and not enumerations, so that an
older CRD accepts the status of a newer operator.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from autoglm.api.schema import Part, keyed_by

Word = Annotated[str, Field(max_length=64)]
Name = Annotated[str, Field(max_length=253)]
Sentence = Annotated[str, Field(max_length=4096)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0)]


class Phase(StrEnum):
    """Summary of a resource in one word; the conditions have the details."""

    PENDING = "Pending"
    """No replica runs yet."""
    LOADING = "Loading"
    """Replicas start and none is ready."""
    READY = "Ready"
    """All desired replicas serve requests."""
    UPDATING = "Updating"
    """Requests are served while replicas are added, removed or replaced."""
    DEGRADED = "Degraded"
    """Requests are served, but a condition reports a problem."""
    FAILED = "Failed"
    """No replica serves requests, and a change is needed to recover."""
    SUSPENDED = "Suspended"
    """spec.suspend is true."""
    IDLE = "Idle"
    """Scaled to zero."""
    TERMINATING = "Terminating"
    """It is being deleted."""


class ConditionType(StrEnum):
    """Types of the conditions of a resource."""

    READY = "Ready"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    MODEL_LOADED = "ModelLoaded"
    ROUTABLE = "Routable"
    SCALING_ACTIVE = "ScalingActive"
    ROLLOUT_HEALTHY = "RolloutHealthy"
    MONITORING_ACTIVE = "MonitoringActive"
    PROFILE_APPLIED = "ProfileApplied"
    """Only where spec.profile is set."""
    WEIGHTS_LOADED = "WeightsLoaded"
    """Only where a Job fills the cache."""
    RESOURCES_REQUESTED = "ResourcesRequested"
    """Only where nothing is requested."""


class Condition(Part):
    """A condition, as on other Kubernetes resources."""

    type: Annotated[str, Field(max_length=316)]
    """Type of the condition: Ready, Available, Progressing, Degraded, ModelLoaded, Routable,
    ScalingActive, RolloutHealthy, MonitoringActive, ProfileApplied, WeightsLoaded or
    ResourcesRequested."""
    status: Literal["True", "False", "Unknown"]
    """Status of the condition."""
    reason: Annotated[str, Field(max_length=1024)]
    """Machine-readable reason for the status."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Human-readable explanation with the remedy."""
    last_transition_time: Timestamp
    """Time at which status changed last."""
    observed_generation: Count | None = None
    """Generation of the resource that the condition describes."""


class LastFailure(Part):
    """The last failure of a pod."""

    reason: Word
    """Reason, such as ImagePullBackOff, OOMKilled or the engine's ModelNotFound."""
    message: Sentence = ""
    """Cause and remedy."""
    exit_code: int | None = None
    """Exit code of the engine, if it exited; docs/exit-codes.md explains them."""
    pod: Name = ""
    """Name of the pod that failed."""


class ModelStatus(Part):
    """State of the model."""

    source: Annotated[str, Field(max_length=1024)] = ""
    """What is served: spec.model.uri, or the engine where it needs no weights."""
    state: Word = ""
    """Pending, Loading, Loaded or Failed."""
    progress: Annotated[str, Field(max_length=128)] = ""
    """What the start of a replica does, such as `download 3.1 of 16.4 GB at 45.0 MB/s`. Absent: not
    known, or no replica starts."""
    last_failure: LastFailure | None = None
    """The last failure of a pod. Absent: no pod has failed, or the failure is resolved."""


class WeightsStatus(Part):
    """The Job that fills the cache."""

    state: Word = ""
    """Pending, Downloading, Failed or Loaded."""
    job: Name = ""
    """Name of the Job."""
    downloaded_bytes: Count | None = None
    """Bytes on the volume. Absent: not known, or nothing is being downloaded."""
    total_bytes: Count | None = None
    """Bytes of all files."""
    bytes_per_second: Count | None = None
    """Latest rate of the download."""


class RevisionStatus(Part):
    """A revision of the pods."""

    hash: Word
    """Hash of the revision; its Deployment is named NAME-HASH."""
    replicas: Count = 0
    """Number of pods, without terminating ones."""
    ready_replicas: Count = 0
    """Number of ready pods."""


class MetricStatus(Part):
    """Latest value of a metric."""

    type: Word
    """Type of the metric in spec.scaling.metrics."""
    current: Annotated[str, Field(max_length=64)] = ""
    """Current value. Absent: it is not available."""
    target: Annotated[str, Field(max_length=64)] = ""
    """Target value."""


class ScalingStatus(Part):
    """State of the autoscaler."""

    actuator: Word = ""
    """hpa or keda."""
    desired_replicas: Count | None = None
    """Number of replicas that the autoscaler requests."""
    last_scale_time: Timestamp | None = None
    """Time of the last change of the number of replicas."""
    metrics: Annotated[
        tuple[MetricStatus, ...], Field(max_length=16, json_schema_extra=keyed_by("type"))
    ] = ()
    """Latest values of the metrics in spec.scaling.metrics."""


class ManagedResource(Part):
    """An object that the operator manages for the resource."""

    kind: Word
    """Kind of the object."""
    name: Name
    """Name of the object."""


class LastValid(Part):
    """The newest valid spec; it stays in effect while the current spec is invalid."""

    generation: Count = 0
    """Generation of the resource with that spec."""
    revision: Word = ""
    """Revision of its pods."""
    spec: Annotated[str, Field(max_length=1_048_576)] = ""
    """The spec as JSON, without spec.replicas, which is always read from the current spec."""
    profile: Annotated[str, Field(max_length=262_144)] = ""
    """Name and spec of the AutoGLMProfile in effect, as JSON. Absent: the spec names none."""


class Status(Part):
    """Observed state, written by the operator."""

    observed_generation: Count | None = None
    """Generation of the spec that the status describes."""
    phase: Word = ""
    """Summary: Pending, Loading, Ready, Updating, Degraded, Failed, Suspended, Idle (scaled to
    zero) or Terminating."""
    url: Annotated[str, Field(max_length=2048)] = ""
    """URL of the gateway, through which clients send requests to the model."""
    replicas: Count | None = None
    """Number of pods, without terminating ones."""
    ready_replicas: Count | None = None
    """Number of ready pods."""
    selector: Annotated[str, Field(max_length=1024)] = ""
    """Label selector of the pods, for autoscalers."""
    conditions: Annotated[
        tuple[Condition, ...], Field(max_length=32, json_schema_extra=keyed_by("type"))
    ] = ()
    """Conditions of the resource."""
    model: ModelStatus | None = None
    """State of the model."""
    weights: WeightsStatus | None = None
    """The Job that fills the cache. Absent: none does."""
    revisions: Annotated[
        tuple[RevisionStatus, ...], Field(max_length=32, json_schema_extra=keyed_by("hash"))
    ] = ()
    """The desired revision, with or without pods, then others that have replicas or pods. While no
    spec has been valid: the revisions of existing pods, sorted by hash."""
    scaling: ScalingStatus | None = None
    """State of the autoscaler. Absent: the number of replicas is fixed."""
    last_valid: LastValid | None = None
    """The spec in effect while the current one is invalid. Absent: no spec has been valid yet."""
    managed_resources: Annotated[tuple[ManagedResource, ...], Field(max_length=256)] = ()
    """Objects that the operator manages; they are deleted with the resource."""
