"""`status`: what runs, as the operator reports it.

Types only. The operator writes them, the CRD's schema is generated from them, the CLI reads them.
Words that later versions may add to (phases, reasons) are text and not enumerations, so that an
older CRD refuses no newer operator.
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
    """One word for the whole resource; the conditions say more."""

    PENDING = "Pending"
    """Nothing runs yet."""
    LOADING = "Loading"
    """Replicas start and none is ready."""
    READY = "Ready"
    """Every wanted replica takes requests."""
    UPDATING = "Updating"
    """Requests are answered while replicas are added, removed or replaced."""
    DEGRADED = "Degraded"
    """Requests are answered, but something is wrong."""
    FAILED = "Failed"
    """Nothing answers, and it will not get better by itself."""
    SUSPENDED = "Suspended"
    """spec.suspend is true."""
    IDLE = "Idle"
    """Scaled to zero."""


class ConditionType(StrEnum):
    """What is said of a resource, each True, False or Unknown."""

    READY = "Ready"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    MODEL_LOADED = "ModelLoaded"
    ROUTABLE = "Routable"
    SCALING_ACTIVE = "ScalingActive"
    ROLLOUT_HEALTHY = "RolloutHealthy"
    MONITORING_ACTIVE = "MonitoringActive"


class Condition(Part):
    """One statement about the resource, as in all of Kubernetes."""

    type: Annotated[str, Field(max_length=316)]
    """What the statement is about: Ready, Available, Progressing, Degraded, ModelLoaded, Routable,
    ScalingActive, RolloutHealthy or MonitoringActive."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=1024)]
    """Why, in one word for programs."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, in a sentence with the way out."""
    last_transition_time: Timestamp
    """When status changed last."""
    observed_generation: Count | None = None
    """The generation of the resource that the statement is about."""


class LastFailure(Part):
    """What was wrong with a pod the last time something was."""

    reason: Word
    """One word, such as ImagePullBackOff, OOMKilled or the engine's own ModelNotFound."""
    message: Sentence = ""
    """What happened and what to do."""
    exit_code: int | None = None
    """Exit code of the engine, where it ended; docs/exit-codes.md explains them."""
    pod: Name = ""
    """The pod it happened to."""


class ModelStatus(Part):
    """The model itself."""

    state: Word = ""
    """Pending, Loading, Loaded or Failed."""
    last_failure: LastFailure | None = None
    """What went wrong last. Absent: nothing, or it has been overcome."""


class RevisionStatus(Part):
    """One version of the pods."""

    hash: Word
    """Identifies the version; the Deployment is called NAME-HASH."""
    replicas: Count = 0
    """Pods there are."""
    ready_replicas: Count = 0
    """Pods that are ready."""


class MetricStatus(Part):
    """One signal, as it was read last."""

    type: Word
    """The type of the metric in spec.scaling.metrics."""
    current: Annotated[str, Field(max_length=64)] = ""
    """Its value. Absent: it could not be read."""
    target: Annotated[str, Field(max_length=64)] = ""
    """The value to hold."""


class ScalingStatus(Part):
    """What the autoscaler does."""

    actuator: Word = ""
    """hpa or keda."""
    desired_replicas: Count | None = None
    """Replicas that it asks for."""
    last_scale_time: Timestamp | None = None
    """When it changed their number last."""
    metrics: Annotated[
        tuple[MetricStatus, ...], Field(max_length=16, json_schema_extra=keyed_by("type"))
    ] = ()
    """Signals, as they were read last."""


class ManagedResource(Part):
    """An object that belongs to the resource."""

    kind: Word
    """Its kind."""
    name: Name
    """Its name."""


class LastValid(Part):
    """The newest spec that met every rule; it stays in effect while the current one does not."""

    generation: Count = 0
    """The generation of the resource that had it."""
    revision: Word = ""
    """The revision of the pods that it makes."""
    spec: Annotated[str, Field(max_length=1_048_576)] = ""
    """The spec as JSON text, without spec.replicas, which is read from the current one."""


class Status(Part):
    """What does run. Written by the operator."""

    observed_generation: Count | None = None
    """The generation of the spec that the rest of the status is about."""
    phase: Word = ""
    """One word for the whole: Pending, Loading, Ready, Updating, Degraded, Failed, Suspended or
    Idle (scaled to zero)."""
    url: Annotated[str, Field(max_length=2048)] = ""
    """Where clients reach the model."""
    replicas: Count | None = None
    """Pods there are."""
    ready_replicas: Count | None = None
    """Pods that are ready."""
    selector: Annotated[str, Field(max_length=1024)] = ""
    """Label selector of the pods, for autoscalers."""
    conditions: Annotated[
        tuple[Condition, ...], Field(max_length=32, json_schema_extra=keyed_by("type"))
    ] = ()
    """Statements about the resource."""
    model: ModelStatus | None = None
    """The model itself."""
    revisions: Annotated[
        tuple[RevisionStatus, ...], Field(max_length=32, json_schema_extra=keyed_by("hash"))
    ] = ()
    """Versions of the pods that exist, the wanted one first."""
    scaling: ScalingStatus | None = None
    """What the autoscaler does. Absent: the number of replicas is fixed."""
    last_valid: LastValid | None = None
    """What is in effect while the spec is invalid. Absent: the spec never was valid."""
    managed_resources: Annotated[tuple[ManagedResource, ...], Field(max_length=256)] = ()
    """Objects that belong to the resource and end with it."""
