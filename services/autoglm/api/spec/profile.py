"""`spec.profile`, and the spec of the AutoGLMProfile that it names: a kind of node and its engine
arguments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from autoglm.api.schema import Part
from autoglm.api.spec.engine import ArgName, Image, MaxNumSeqs, MemoryShare
from autoglm.api.spec.operations import Resources

ProfileName = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
LabelKey = Annotated[str, Field(pattern=r"^\S+$", max_length=317)]
LabelValue = Annotated[str, Field(max_length=63)]


class ProfileRef(Part):
    """The AutoGLMProfile of the nodes that replicas run on."""

    name: ProfileName
    """Name of an AutoGLMProfile, such as nvidia-l4; `kubectl get autoglmprofiles` lists them."""
    count: Annotated[int, Field(ge=1, le=64)] = 1
    """Multiplies the profile's resources for one replica: 4 of a profile with one GPU are four
    GPUs, over which the model is split unless spec.engine.parallelism.tensor is set."""


class Toleration(Part):
    """A toleration, as in a Kubernetes pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint. Absent: every key, with operator Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Exists matches any value of the key, Equal this one."""
    value: LabelValue | None = None
    """Value of the taint, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint. Absent: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """Seconds before eviction, with effect NoExecute. Absent: no eviction."""


class ProfileEngine(Part):
    """Settings of vLLM; the echo engine uses none of them."""

    image: Image | None = None
    """Container image, as spec.engine.image of an AutoGLMDeployment."""
    args: Annotated[dict[ArgName, Any], Field(max_length=128)] = {}
    """Arguments of vLLM by name, as spec.engine.args of an AutoGLMDeployment; an argument that is
    set there wins."""
    max_num_seqs: MaxNumSeqs | None = None
    """Maximum number of requests in one batch."""
    gpu_memory_utilization: MemoryShare | None = None
    """Share of the device's memory for weights and KV cache."""


class ProfileSpec(Part):
    """Defaults of the resources that name the profile; fields of a resource win."""

    resources: Resources = Resources()
    """Resources of one replica with spec.profile.count 1. A resource name that an AutoGLMDeployment
    sets itself, as a request or as a limit, is not taken from here."""
    node_selector: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = {}
    """Labels of the nodes. Merged with the node selector of spec.template, which wins."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Tolerations of the nodes' taints, in addition to those of spec.template."""
    engine: ProfileEngine = ProfileEngine()
    """Settings of vLLM on such nodes."""
