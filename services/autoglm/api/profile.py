"""AutoGLMProfile v1alpha1: what resources on one kind of node have in common. Pure.

Cluster-scoped. The operator merges the profile that a resource names under its spec; `autoglm up`
and `autoglm validate` do the same with a profile of the same manifests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import ValidationError

from autoglm.api.deployment import AutoGLMDeployment, Metadata, Spec
from autoglm.api.parse import parse_json, problem_of
from autoglm.api.problem import InvalidSpec, Problem
from autoglm.api.rules import FIELD_OF_ARG
from autoglm.api.schema import Part
from autoglm.api.spec.operations import Resources
from autoglm.api.spec.profile import ProfileName, ProfileSpec

PROFILE_KIND: Final = "AutoGLMProfile"
PROFILE_PLURAL: Final = "autoglmprofiles"
OWN_ARGS: Final = {
    "max_num_seqs": "spec.engine.maxNumSeqs",
    "gpu_memory_utilization": "spec.engine.gpuMemoryUtilization",
}
"""Arguments of vLLM that are fields of the profile."""
_GPU = "/gpu"
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class ProfileMetadata(Metadata):
    """Standard object metadata of a profile."""

    name: ProfileName
    """Name of the profile, which spec.profile.name of an AutoGLMDeployment has."""


class AutoGLMProfile(Part):
    """AutoGLMProfile describes one kind of node: resources, placement and engine arguments that
    AutoGLMDeployments take by spec.profile."""

    api_version: Literal["autoglm.io/v1alpha1"] = "autoglm.io/v1alpha1"
    """Version of this schema."""
    kind: Literal["AutoGLMProfile"] = "AutoGLMProfile"
    """Kind of the resource."""
    metadata: ProfileMetadata
    """Standard object metadata."""
    spec: ProfileSpec = ProfileSpec()
    """What an AutoGLMDeployment gets that names the profile."""


def parse_profile(document: Any) -> AutoGLMProfile:
    """Return the profile that a document describes. Raises InvalidSpec with all problems."""
    try:
        profile = parse_json(AutoGLMProfile, document)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise InvalidSpec([problem_of(detail, AutoGLMProfile) for detail in details]) from error
    if problems := list(_argument_problems(profile.spec)):
        raise InvalidSpec(problems)
    return profile


def place_of_arg(name: str) -> str:
    """Return where an argument with a field of its own belongs, as the end of a sentence."""
    if own := OWN_ARGS.get(name):
        return f"{own} instead"
    return f"{FIELD_OF_ARG[name]} of the AutoGLMDeployment instead"


def _argument_problems(spec: ProfileSpec) -> Iterable[Problem]:
    for name, value in spec.engine.args.items():
        flag = name.replace("-", "_")
        if flag in FIELD_OF_ARG:
            message = f"has a field of its own; set {place_of_arg(flag)}"
            yield Problem(f"spec.engine.args.{name}", message, value)


def with_profile(resource: AutoGLMDeployment, profile: ProfileSpec) -> AutoGLMDeployment:
    """Return the resource with a profile merged under its spec, and without spec.profile: what the
    resource sets wins."""
    spec = resource.spec
    count = spec.profile.count if spec.profile else 1
    resources = _resources(spec.resources, profile.resources, count)
    template = _template(spec, profile)
    update: dict[str, Any] = {"profile": None, "resources": resources, "template": template}
    if spec.engine.type == "vllm":
        update["engine"] = _engine(spec, profile, resources)
    return resource.model_copy(update={"spec": spec.model_copy(update=update)})


def _resources(own: Resources, given: Resources, count: int) -> Resources:
    """Return both; a name that the resource sets in either list is its own in both."""
    names = own.requests.keys() | own.limits.keys()

    def merged(mine: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
        taken = {k: times(v, count) for k, v in theirs.items() if k not in names}
        return dict(sorted((taken | dict(mine)).items()))

    requests, limits = merged(own.requests, given.requests), merged(own.limits, given.limits)
    return own.model_copy(update={"requests": requests, "limits": limits})


def times(quantity: str, count: int) -> str:
    """Return a multiple of a quantity, in the same unit."""
    match = _NUMBER.match(quantity)
    if match is None or count == 1:
        return quantity
    return f"{Decimal(match[0]) * count:f}{quantity[match.end() :]}"


def _engine(spec: Spec, profile: ProfileSpec, resources: Resources) -> Any:
    own, given = spec.engine, profile.engine
    mine = {name.replace("-", "_") for name in own.args}
    taken = {k: v for k, v in given.args.items() if k.replace("-", "_") not in mine}
    update: dict[str, Any] = {"args": taken | dict(own.args)}
    for field in ("image", "max_num_seqs", "gpu_memory_utilization"):
        if getattr(own, field) is None:
            update[field] = getattr(given, field)
    if own.parallelism.tensor is None:
        split = own.parallelism
        tensor = _tensor(resources, split.pipeline * split.data)
        update["parallelism"] = split.model_copy(update={"tensor": tensor})
    return own.model_copy(update=update)


def _tensor(resources: Resources, others: int) -> int | None:
    """Return the tensor parallelism that uses all GPUs; None where they cannot be divided."""
    both = {**resources.requests, **resources.limits}
    gpus = sum(int(v) for k, v in both.items() if k.endswith(_GPU) and v.isdigit())
    return gpus // others if gpus and gpus % others == 0 else None


def _template(spec: Spec, profile: ProfileSpec) -> dict[str, Any]:
    """Return spec.template with the profile's placement. A malformed one is returned as it is."""
    template = dict(spec.template)
    pod = template.get("spec", {})
    if not isinstance(pod, Mapping):
        return template
    labels, tolerations = pod.get("nodeSelector", {}), pod.get("tolerations", [])
    placed: dict[str, Any] = {}
    if profile.node_selector and isinstance(labels, Mapping):
        placed["nodeSelector"] = {**profile.node_selector, **labels}
    if profile.tolerations and isinstance(tolerations, list):
        given = [t.model_dump(by_alias=True, exclude_none=True) for t in profile.tolerations]
        placed["tolerations"] = [*given, *(t for t in tolerations if t not in given)]
    return template | {"spec": {**pod, **placed}} if placed else template
