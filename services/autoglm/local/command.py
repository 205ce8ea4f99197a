"""From a resource to the processes that run it: flags, environment, and what can't be had here.

Pure. `up` calls it on every resource of a manifest; the operator's pods get the same flags.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm.api import AutoGLMDeployment, Spec
from autoglm.local.planning import Addresses, Process, Workload

# No resource can have this name, since names start with a letter.
GATEWAY = "_gateway"


@dataclass(frozen=True, slots=True)
class Placed:
    """A resource and the directory of its manifest, to which its paths are relative."""

    resource: AutoGLMDeployment
    directory: Path


def model_workload(placed: Placed, program: Sequence[str], traces: str | None) -> Workload:
    """The inference processes of a resource. `traces` overrides the resource's own setting."""
    spec = placed.resource.spec
    process = Process(
        argv=(*program, "inference", *inference_flags(placed, traces)),
        env=tuple((e.name, e.value) for e in spec.engine.env if e.value is not None),
        grace_seconds=spec.drain.grace_period_seconds,
    )
    return Workload(placed.resource.name, placed.resource.desired_replicas, process)


def gateway_workload(
    placed: Iterable[Placed],
    program: Sequence[str],
    addresses: Addresses,
    endpoints_file: Path,
    traces: str | None,
) -> Workload:
    """The one gateway in front of all resources; it drains as long as the slowest of them."""
    grace = max(p.resource.spec.drain.grace_period_seconds for p in placed)
    flags = _flags(
        ("endpoints-file", endpoints_file), ("shutdown-grace-seconds", grace), ("traces", traces)
    )
    process = Process(
        (*program, "gateway", *flags),
        addresses=addresses,
        grace_seconds=grace,
        is_routed=False,
    )
    return Workload(GATEWAY, 1, process)


def inference_flags(placed: Placed, traces: str | None) -> tuple[str, ...]:
    """Everything a pod is told, except for its addresses."""
    resource, directory = placed.resource, placed.directory
    spec, model, engine = resource.spec, resource.spec.model, resource.spec.engine
    return _flags(
        ("engine", engine.type),
        ("model-path", located(model.uri, directory)),
        ("model-name", resource.served_name),
        *(("model-alias", alias) for alias in model.aliases),
        *(("adapter", f"{a.name}={located(a.uri, directory)}") for a in model.adapters),
        ("max-model-len", model.max_model_len),
        ("max-num-seqs", engine.max_num_seqs),
        ("quantization", model.quantization.method),
        ("kv-cache-dtype", model.quantization.kv_cache_dtype),
        ("tensor-parallel-size", _beyond_one(engine.parallelism.tensor)),
        ("pipeline-parallel-size", _beyond_one(engine.parallelism.pipeline)),
        ("gpu-memory-utilization", engine.gpu_memory_utilization),
        ("tokenizer", located(model.tokenizer, directory)),
        ("revision", model.revision),
        *_engine_args(spec),
        ("shutdown-grace-seconds", spec.drain.grace_period_seconds),
        *_tracing(spec, traces),
    )


def located(uri: str | None, directory: Path) -> str | None:
    """A path relative to the manifest as an absolute one; anything else as it is."""
    if uri is None or not uri.startswith(("./", "../")):
        return uri
    return str((directory / uri).resolve())


def notices(resource: AutoGLMDeployment) -> list[str]:
    """What the resource asks for that only a cluster can do, one sentence each."""
    spec = resource.spec
    facts = {
        "spec.scaling": (spec.scaling, f"runs minReplicas ({resource.desired_replicas}) replicas"),
        "spec.engine.image": (spec.engine.image, "runs the installed package"),
        "spec.resources": (spec.resources.requests or spec.resources.limits, "sets no limits"),
        "spec.template": (spec.template, "has no pod template"),
    }
    sentences = [
        f"{resource.name}: {path} takes effect on Kubernetes; `autoglm up` {instead}"
        for path, (is_set, instead) in facts.items()
        if is_set
    ]
    inherited = [variable.name for variable in spec.engine.env if variable.value_from is not None]
    if inherited:
        names = ", ".join(inherited)
        sentences.append(f"{resource.name}: {names} must come from this shell's environment")
    return sentences


def _engine_args(spec: Spec) -> list[tuple[str, object]]:
    """The engine's own arguments, and the fields that have no flag of the pod's."""
    engine = spec.engine
    args = {name.replace("-", "_"): _text(value) for name, value in engine.args.items()}
    if engine.type == "echo":
        return [(f"echo-{name.replace('_', '-')}", value) for name, value in args.items()]
    fields = {
        "data_parallel_size": _beyond_one(engine.parallelism.data),
        "enable_prefix_caching": engine.features.prefix_caching,
    }
    args |= {name: _text(value) for name, value in fields.items() if value is not None}
    return [("engine-arg", f"{name}={value}") for name, value in args.items()]


def _beyond_one(count: int) -> int | None:
    return count if count > 1 else None


def _tracing(spec: Spec, traces: str | None) -> list[tuple[str, object]]:
    tracing = spec.observability.tracing
    if traces is not None or tracing.endpoint is None:
        return [("traces", traces)]
    return [("traces", f"otlp:{tracing.endpoint}"), ("trace-sample-ratio", tracing.sample_ratio)]


def _flags(*flags: tuple[str, object]) -> tuple[str, ...]:
    """`--name=value` for each that has a value; one word, so that no value is read as a flag."""
    return tuple(f"--{name}={value}" for name, value in flags if value is not None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
