"""AutoGLMDeployment v1alpha1: the resource as a whole.

Holds types and defaults only; what parts must agree on is in `rules`, reading a document in
`parse`. Used by every service, and the source of the CRD.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from autoglm.api.schema import Part
from autoglm.api.spec.engine import Engine
from autoglm.api.spec.model import Model
from autoglm.api.spec.operations import Disruption, Network, Observability, Resources, Rollout
from autoglm.api.spec.scaling import Scaling
from autoglm.api.spec.traffic import Drain, Routing, Tenancy

GROUP = "autoglm.io"
VERSION = "v1alpha1"
KIND = "AutoGLMDeployment"
SHORT_NAME = "agd"
API_VERSION = f"{GROUP}/{VERSION}"


# Children append a revision hash, and a label value holds 63 characters.
ResourceName = Annotated[str, Field(max_length=52, pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")]


class Metadata(Part):
    """Kubernetes' own metadata; the fields that Open-AutoGLM reads."""

    model_config = ConfigDict(extra="ignore")

    name: ResourceName
    """Name of the resource: lower-case letters, digits and dashes, a letter first, at most 52."""
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
    """What should run."""

    model: Model
    """What is served."""
    engine: Engine = Engine()
    """What runs the model."""
    resources: Resources = Resources()
    """Resources of one replica."""
    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """How many replicas run. A manifest with scaling leaves it out: the autoscaler writes it then,
    through the scale subresource, and it counts within minReplicas and maxReplicas."""
    scaling: Scaling | None = None
    """Lets the number of replicas follow the load. Absent: the number is fixed."""
    routing: Routing = Routing()
    """How the gateway chooses a replica and how long it waits for it."""
    tenancy: Tenancy = Tenancy()
    """What tenants share."""
    rollout: Rollout = Rollout()
    """How a new revision replaces the old one."""
    drain: Drain = Drain()
    """How a replica ends."""
    disruption: Disruption = Disruption()
    """What planned evictions must leave standing."""
    network: Network = Network()
    """Who may talk to the replicas."""
    observability: Observability = Observability()
    """What can be seen of the replicas."""
    template: dict[str, Any] = {}
    """Overrides of the pod template, merged strategically; the engine's container is called
    `engine`. For tolerations, node selectors, volumes and the like."""
    suspend: bool = False
    """True ends all replicas and keeps everything else, so that going on is one change."""
    operator_class: Annotated[
        str, Field(max_length=63, pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$")
    ] = ""
    """Class of the operator that runs the resource, as its --operator-class; operators of other
    classes do nothing with it. Empty: the default class."""


class AutoGLMDeployment(Part):
    """A model, served."""

    api_version: Literal["autoglm.io/v1alpha1"] = "autoglm.io/v1alpha1"
    """Version of this schema."""
    kind: Literal["AutoGLMDeployment"] = "AutoGLMDeployment"
    """Kind of the resource."""
    metadata: Metadata
    """Kubernetes' own metadata."""
    spec: Spec
    """What should run."""
    status: dict[str, Any] = {}
    """What does run. Written by the operator; ignored in a manifest."""

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def served_name(self) -> str:
        """The model name in requests."""
        return self.spec.model.served_name or self.metadata.name

    @property
    def served_names(self) -> tuple[str, ...]:
        """Every name that requests may use: the model's, its aliases, its adapters'."""
        adapters = (adapter.name for adapter in self.spec.model.adapters)
        return (self.served_name, *self.spec.model.aliases, *adapters)

    @property
    def desired_replicas(self) -> int:
        """How many replicas should run now."""
        if self.spec.suspend:
            return 0
        scaling, replicas = self.spec.scaling, self.spec.replicas
        if scaling is None:
            return replicas
        return max(scaling.min_replicas, min(replicas, scaling.max_replicas))
