"""AutoGLMDeployment v1alpha1: the custom resource.

Types and defaults only; `rules` has the rules between fields, `parse` parses documents. Used by
every service; the CRD is generated from it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from autoglm.api.schema import Part
from autoglm.api.spec.engine import Engine
from autoglm.api.spec.model import Model
from autoglm.api.spec.operations import (
    Disruption,
    Network,
    Observability,
    Resources,
    Rollout,
    Scaling,
    ServiceAccount,
    Startup,
)
from autoglm.api.spec.profile import ProfileRef
from autoglm.api.spec.traffic import Drain, Routing, Tenancy

GROUP = "autoglm.io"
VERSION = "v1alpha1"
KIND = "AutoGLMDeployment"
SHORT_NAME = "agd"
API_VERSION = f"{GROUP}/{VERSION}"


# A child is named after the resource, with a revision hash appended, and the name is also the value
# of a label, which has at most 63 characters.
ResourceName = Annotated[str, Field(max_length=52, pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")]


class Metadata(Part):
    """Standard object metadata; the fields that Open-AutoGLM reads."""

    model_config = ConfigDict(extra="ignore")

    name: ResourceName
    """Name of the resource: lower-case letters, digits and dashes, starting with a letter, at most
    52 characters."""
    namespace: str = "default"
    """Namespace of the resource."""
    labels: dict[str, str] = {}
    """Labels of the resource."""
    annotations: dict[str, str] = {}
    """Annotations of the resource."""
    uid: str = ""
    """Set by the API server."""
    generation: int = 0
    """Set by the API server; grows with each change of the spec."""


class Spec(Part):
    """Desired state of the deployment."""

    model: Model
    """The model to serve."""
    engine: Engine = Engine()
    """The engine that runs the model."""
    profile: ProfileRef | None = None
    """An AutoGLMProfile of the cluster, merged under this spec: what this spec sets wins. `autoglm
    up` uses one that is in the same manifests."""
    resources: Resources = Resources()
    """Resources of one replica."""
    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Number of replicas. Omit it in a manifest with scaling: the autoscaler sets it through the
    scale subresource, within minReplicas and maxReplicas."""
    startup: Startup = Startup()
    """The start of a replica."""
    scaling: Scaling | None = None
    """Autoscaling of the number of replicas. Absent: the number is fixed."""
    routing: Routing = Routing()
    """How the gateway chooses a replica, and its timeouts, retries and recovery."""
    tenancy: Tenancy = Tenancy()
    """Isolation of tenants from each other."""
    rollout: Rollout = Rollout()
    """How a new revision replaces the old one."""
    drain: Drain = Drain()
    """How a replica shuts down."""
    disruption: Disruption = Disruption()
    """Limits on voluntary disruptions, such as node drains."""
    network: Network = Network()
    """Network access to and from the replicas."""
    service_account: ServiceAccount = ServiceAccount()
    """The ServiceAccount of the replicas."""
    observability: Observability = Observability()
    """Traces and metrics of the replicas."""
    template: dict[str, Any] = {}
    """Overrides of the pod template, applied as a strategic merge patch; the engine's container is
    named `engine`. For tolerations, node selectors, volumes and similar fields."""
    suspend: bool = False
    """True removes all replicas and keeps all other objects; false starts replicas again."""
    operator_class: Annotated[
        str, Field(max_length=63, pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")
    ] = ""
    """Class of the operator that reconciles the resource (its --operator-class); operators of other
    classes ignore it. Empty: the default class."""


class AutoGLMDeployment(Part):
    """AutoGLMDeployment serves a model."""

    api_version: Literal["autoglm.io/v1alpha1"] = "autoglm.io/v1alpha1"
    """Version of this schema."""
    kind: Literal["AutoGLMDeployment"] = "AutoGLMDeployment"
    """Kind of the resource."""
    metadata: Metadata
    """Standard object metadata."""
    spec: Spec
    """Desired state of the deployment."""
    status: dict[str, Any] = {}
    """Observed state, written by the operator; ignored in a manifest."""

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def served_name(self) -> str:
        """Return the model name in requests."""
        return self.spec.model.served_name or self.metadata.name

    @property
    def served_names(self) -> tuple[str, ...]:
        """Return all names for requests: of the model, its aliases and its adapters."""
        adapters = (adapter.name for adapter in self.spec.model.adapters)
        return (self.served_name, *self.spec.model.aliases, *adapters)

    @property
    def desired_replicas(self) -> int:
        """Return the number of replicas that should run now."""
        if self.spec.suspend:
            return 0
        scaling, replicas = self.spec.scaling, self.spec.replicas
        if scaling is None:
            return replicas
        return max(scaling.min_replicas, min(replicas, scaling.max_replicas))
