"""Expands the short form of a deployment into a manifest. Pure.

    model: zai-org/GLM-4-9B-0414
    quantization: int8
    gpu: 2
    replicas: 2
    autoscale: {cpu_threshold: 70%, min: 2, max: 10}
    pipeline: [{task: text-classification, labels: [good, bad]}]

Chooses the names and defaults that the short form omits. The commands accept it, clusters do not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from autoglm.api.deployment import API_VERSION, KIND, ResourceName
from autoglm.api.labels import GPU
from autoglm.api.parse import parse_json, problem_of
from autoglm.api.problem import InvalidSpec, Problem
from autoglm.api.schema import Part, Quantity
from autoglm.api.spec.model import ContextLength
from autoglm.api.spec.profile import ProfileName

PIPELINE = "autoglm.io/pipeline"
"""Annotation with the tasks and labels that clients send with Predict, as JSON. Each request brings
its labels, so they do not affect the pods."""
# vLLM's methods that quantize any checkpoint while it is loaded, by precision.
_ONLINE = {"fp8": "fp8", "int8": "int8_per_channel_weight_only"}
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_PREQUANTIZED = {"int4", "fp4"}


def _percent(value: Any) -> Any:
    match = re.fullmatch(r"(\d{1,3})\s*%", value) if isinstance(value, str) else None
    return int(match[1]) if match else value


class Autoscale(Part):
    """Bounds and signal of autoscaling."""

    model_config = ConfigDict(alias_generator=None)

    cpu_threshold: Annotated[int, BeforeValidator(_percent), Field(ge=1, le=1000)] = 80
    """Mean CPU use to hold, in percent of the request: 70 or "70%"."""
    min: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Fewest replicas. Absent: replicas."""
    max: Annotated[int, Field(ge=1, le=10_000)]
    """Most replicas."""


class Task(Part):
    """A task of the model and its labels."""

    model_config = ConfigDict(alias_generator=None)

    task: Annotated[str, Field(min_length=1, max_length=256)]
    """The task, such as text-classification."""
    labels: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    """Labels that a text may get."""


class ShortForm(Part):
    """The document."""

    model_config = ConfigDict(alias_generator=None)

    model: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
    """A hub name, or a path in the pods."""
    quantization: Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "none"
    """int8, fp8, fp16, bf16, fp32, none, or any method of vLLM's own."""
    gpu: Annotated[int, Field(ge=1, le=64)] | None = None
    """GPUs of one replica, over which the model is split; with profile, the profile's count.
    Absent: what the profile has, or none that the manifest names."""
    profile: ProfileName | None = None
    """An AutoGLMProfile of the cluster, such as nvidia-l4."""
    memory: Quantity | None = None
    """Memory of one replica, such as 32Gi: reserved, and its limit."""
    max_model_len: ContextLength | None = None
    """Most tokens of prompt and completion together."""
    replicas: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Number of replicas; with autoscale and without min, the fewest."""
    autoscale: Autoscale | None = None
    """Scales the number of replicas with the load."""
    pipeline: Annotated[tuple[Task, ...], Field(max_length=64)] = ()
    """Tasks that clients send."""


def is_short_form(document: Any) -> bool:
    """Return whether a document is in the short form, valid or not."""
    return isinstance(document, Mapping) and not ({"apiVersion", "kind", "spec"} & set(document))


def to_manifest(document: Any, name: str = "") -> dict[str, Any]:
    """Return the manifest that a short form expands to. Raises InvalidSpec with all problems."""
    try:
        short = parse_json(ShortForm, document)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise InvalidSpec([problem_of(detail, ShortForm) for detail in details]) from error
    problems: list[Problem] = []
    model: dict[str, Any] = {"uri": short.model}
    spec: dict[str, Any] = {"model": model}
    if short.quantization in _PREQUANTIZED:
        message = (
            "is not available while loading; use a quantized checkpoint (awq, gptq) and remove it, "
            "or set int8 or fp8"
        )
        problems.append(Problem("quantization", message, short.quantization))
    elif short.quantization in _DTYPES:
        spec["engine"] = {"args": {"dtype": _DTYPES[short.quantization]}}
    elif short.quantization != "none":
        method = _ONLINE.get(short.quantization, short.quantization)
        model["quantization"] = {"method": method}
    if short.max_model_len is not None:
        model["maxModelLen"] = short.max_model_len
    resources = _resources(short)
    if short.profile is not None:
        spec["profile"] = {"name": short.profile, "count": short.gpu or 1}
    elif short.gpu is not None and short.gpu > 1:
        spec.setdefault("engine", {})["parallelism"] = {"tensor": short.gpu}
    if short.autoscale is None:
        spec["replicas"] = short.replicas
    else:
        low, high = short.autoscale.min, short.autoscale.max
        low = max(short.replicas, 1) if low is None else low
        if low > high:
            message = f"is under the fewest replicas ({low}); raise it"
            problems.append(Problem("autoscale.max", message, high))
        elif not low <= short.replicas <= high and "replicas" in short.model_fields_set:
            message = f"is not between autoscale.min ({low}) and autoscale.max ({high}); remove it"
            problems.append(Problem("replicas", message, short.replicas))
        # Kubernetes computes CPU use as a share of the request.
        if short.profile is None:
            resources.setdefault("requests", {})["cpu"] = "1"
        metric = {"type": "CPU", "target": short.autoscale.cpu_threshold}
        spec["scaling"] = {"minReplicas": low, "maxReplicas": high, "metrics": [metric]}
    if problems:
        raise InvalidSpec(problems)
    if resources:
        spec["resources"] = resources
    metadata: dict[str, Any] = {"name": name or name_of(short.model)}
    if short.pipeline:
        tasks = [task.model_dump(mode="json") for task in short.pipeline]
        metadata["annotations"] = {PIPELINE: json.dumps(tasks, ensure_ascii=False)}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _resources(short: ShortForm) -> dict[str, dict[str, str]]:
    """Return what the short form sets of spec.resources; a profile has the GPUs."""
    found: dict[str, dict[str, str]] = {}
    if short.gpu is not None and short.profile is None:
        found["limits"] = {GPU: str(short.gpu)}
    if short.memory is not None:
        for kind in ("requests", "limits"):
            found.setdefault(kind, {})["memory"] = short.memory
    return found


def name_of(model: str) -> str:
    """Return a resource name for a model: glm-4-9b-0414 for zai-org/GLM-4-9B-0414."""
    last = model.rstrip("/").rpartition("/")[2].lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).lstrip("-0123456789")[:52].strip("-")
    try:
        return TypeAdapter(ResourceName).validate_python(name)
    except ValidationError:
        return "model"
