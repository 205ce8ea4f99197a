"""Translates a resource into flags of `autoglm inference`. Pure.

Shared by processes (`autoglm up`) and pods (the operator). The two differ in paths, which callers
resolve with `locate`, and in addresses and telemetry, which callers configure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final

from autoglm.api.deployment import AutoGLMDeployment, Spec
from autoglm.api.spec.operations import Startup
from autoglm.api.uri import for_engine

Locate = Callable[[str | None], str | None]
FIELDS: Final = MappingProxyType(
    {
        "model-path": "spec.model.uri",
        "model-name": "spec.model.servedName",
        "model-alias": "spec.model.aliases",
        "adapter": "spec.model.adapters",
        "max-model-len": "spec.model.maxModelLen",
        "max-num-seqs": "spec.engine.maxNumSeqs",
        "quantization": "spec.model.quantization.method",
        "kv-cache-dtype": "spec.model.quantization.kvCacheDtype",
        "tensor-parallel-size": "spec.engine.parallelism.tensor",
        "pipeline-parallel-size": "spec.engine.parallelism.pipeline",
        "gpu-memory-utilization": "spec.engine.gpuMemoryUtilization",
        "tokenizer": "spec.model.tokenizer",
        "revision": "spec.model.revision",
        "allowed-media-domain": "spec.engine.media.allowedDomains",
        "shutdown-grace-seconds": "spec.drain.gracePeriodSeconds",
        "startup-stall-seconds": "spec.startup.stallSeconds",
    }
)
"""The field of a resource that each flag is made of."""
_FLAG = re.compile(r"--([a-z][a-z-]*[a-z])")
_ENGINE_ARG = re.compile(r"--engine-arg (\w+)=(\w+)")


def in_words_of_a_resource(message: str) -> str:
    """Return a message of the engine with the resource's fields in place of flags."""
    message = _ENGINE_ARG.sub(r"spec.engine.args.\1: \2", message)
    message = message.replace("engine_args.", "spec.engine.args.")
    return _FLAG.sub(lambda found: FIELDS.get(found[1], found[0]), message)


def engine_flags(resource: AutoGLMDeployment, locate: Locate) -> tuple[str, ...]:
    """Return all flags except addresses and telemetry. `locate` resolves a uri for the engine."""
    spec, model, engine = resource.spec, resource.spec.model, resource.spec.engine

    def place(uri: str | None) -> str | None:
        return locate(uri if uri is None else for_engine(uri))

    return flags(
        ("engine", engine.type),
        ("model-path", place(model.uri)),
        ("model-name", resource.served_name),
        *(("model-alias", alias) for alias in model.aliases),
        *(("adapter", f"{a.name}={place(a.uri)}") for a in model.adapters),
        ("max-model-len", model.max_model_len),
        ("max-num-seqs", engine.max_num_seqs),
        ("quantization", model.quantization.method),
        ("kv-cache-dtype", model.quantization.kv_cache_dtype),
        ("tensor-parallel-size", _beyond_one(engine.parallelism.tensor)),
        ("pipeline-parallel-size", _beyond_one(engine.parallelism.pipeline)),
        ("gpu-memory-utilization", engine.gpu_memory_utilization),
        ("tokenizer", place(model.tokenizer)),
        ("revision", model.revision),
        *(("allowed-media-domain", domain) for domain in engine.media.allowed_domains),
        *_engine_args(spec),
        ("shutdown-grace-seconds", spec.drain.grace_period_seconds),
        ("startup-stall-seconds", _unless_default(spec.startup.stall_seconds)),
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


def _unless_default(stall_seconds: int) -> int | None:
    """Return the setting; None for the pod's own default, so that its flags stay as they are."""
    return None if stall_seconds == Startup().stall_seconds else stall_seconds


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
