"""Translates a resource into flags of `autoglm inference`. Pure.

Shared by processes (`autoglm up`) and pods (the operator). The two differ in paths, which callers
resolve with `locate`, and in addresses and telemetry, which callers configure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from autoglm.api.deployment import AutoGLMDeployment, Spec

Locate = Callable[[str | None], str | None]


def engine_flags(resource: AutoGLMDeployment, locate: Locate) -> tuple[str, ...]:
    """Return all flags except addresses and telemetry. `locate` resolves a uri for the engine."""
    spec, model, engine = resource.spec, resource.spec.model, resource.spec.engine
    return flags(
        ("engine", engine.type),
        ("model-path", locate(model.uri)),
        ("model-name", resource.served_name),
        *(("model-alias", alias) for alias in model.aliases),
        *(("adapter", f"{a.name}={locate(a.uri)}") for a in model.adapters),
        ("max-model-len", model.max_model_len),
        ("max-num-seqs", engine.max_num_seqs),
        ("quantization", model.quantization.method),
        ("kv-cache-dtype", model.quantization.kv_cache_dtype),
        ("tensor-parallel-size", _beyond_one(engine.parallelism.tensor)),
        ("pipeline-parallel-size", _beyond_one(engine.parallelism.pipeline)),
        ("gpu-memory-utilization", engine.gpu_memory_utilization),
        ("tokenizer", locate(model.tokenizer)),
        ("revision", model.revision),
        *(("allowed-media-domain", domain) for domain in engine.media.allowed_domains),
        *_engine_args(spec),
        ("shutdown-grace-seconds", spec.drain.grace_period_seconds),
    )


def flags(*named: tuple[str, object]) -> tuple[str, ...]:
    """Return `--name=value` for each value that is not None.

    Each flag is one argument, so that no value that begins with `-` is parsed
    as a flag."""
    return tuple(f"--{name}={value}" for name, value in named if value is not None)


def _engine_args(spec: Spec) -> list[tuple[str, object]]:
    """Return flags for `engine.args`, and for vLLM also for fields without a flag of their own."""
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


def _beyond_one(count: int | None) -> int | None:
    return count if count is not None and count > 1 else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
