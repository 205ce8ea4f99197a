"""Rules between the fields of a resource, which no field can check alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from autoglm.api.problem import Problem
from autoglm.api.rules.document import Document, Rule, at, engine_of, list_at
from autoglm.api.spec.model import Cache
from autoglm.api.spec.operations import Scaling

# Arguments of vLLM that are fields of the resource; setting both would be ambiguous.
FIELD_OF_ARG = {
    "model": "spec.model.uri",
    "revision": "spec.model.revision",
    "served_model_name": "spec.model.servedName",
    "tokenizer": "spec.model.tokenizer",
    "max_model_len": "spec.model.maxModelLen",
    "quantization": "spec.model.quantization.method",
    "kv_cache_dtype": "spec.model.quantization.kvCacheDtype",
    "enable_lora": "spec.model.adapters",
    "tensor_parallel_size": "spec.engine.parallelism.tensor",
    "pipeline_parallel_size": "spec.engine.parallelism.pipeline",
    "data_parallel_size": "spec.engine.parallelism.data",
    "max_num_seqs": "spec.engine.maxNumSeqs",
    "gpu_memory_utilization": "spec.engine.gpuMemoryUtilization",
    "enable_prefix_caching": "spec.engine.features.prefixCaching",
    "otlp_traces_endpoint": "spec.observability.tracing.endpoint",
}
# Fields of spec.model.cache that belong to one type only.
CACHE_FIELDS = {
    "sizeLimit": "emptyDir",
    "claimName": "pvc",
    "size": "pvc",
    "storageClassName": "pvc",
    "accessMode": "pvc",
    "path": "hostPath",
}
# Fields of a claim that the operator creates.
CLAIM_FIELDS = ("storageClassName", "accessMode")
ONE_CLAIM = "needs either claimName, an existing claim, or size, of a claim that the operator makes"
# Fields of spec.model that an engine without weights does not use.
WEIGHTS_FIELDS = ("uri", "revision", "tokenizer", "quantization", "adapters", "cache")
# Arguments of the echo engine.
ECHO_ARGS = frozenset({"token_rate", "prefill_rate", "kv_blocks", "fail"})


def _min_at_most_max(document: Document) -> Iterator[Problem]:
    low, high = _min_replicas(document), at(document, "spec.scaling.maxReplicas")
    if isinstance(low, int) and isinstance(high, int) and low > high >= 1:
        message = f"is over spec.scaling.maxReplicas ({high}); lower it or raise the other"
        yield Problem("spec.scaling.minReplicas", message, low)


def _zero_needs_keda(document: Document) -> Iterator[Problem]:
    path = "spec.scaling.minReplicas"
    if _min_replicas(document) != 0:
        return
    if at(document, "spec.scaling.actuator") != "keda":
        yield Problem(path, "needs spec.scaling.actuator: keda; set that, or at least 1", 0)
    metrics = list_at(document, "spec.scaling.metrics")
    if all(at(metric, "type") in ("CPU", "Memory") for metric in metrics):
        message = "needs a metric that works without pods, such as QueueDepth; CPU and Memory are"
        yield Problem(path, f"{message} measured in pods", 0)


def _targets_can_be_held(document: Document) -> Iterator[Problem]:
    for index, metric in enumerate(list_at(document, "spec.scaling.metrics")):
        kind, target = at(metric, "type"), at(metric, "target")
        if isinstance(target, bool) or not isinstance(target, int | float):
            continue
        path = f"spec.scaling.metrics[{index}].target"
        if kind in ("CPU", "Memory") and target != target // 1:
            yield Problem(path, f"{kind} takes whole percent; round it", target)
        if kind == "KVCacheUsage" and target > 100:
            yield Problem(path, "is percent of the KV cache; give at most 100", target)


def _cache_fits_its_type(document: Document) -> Iterator[Problem]:
    cache = at(document, "spec.model.cache")
    if not isinstance(cache, Mapping):
        return
    chosen = cache.get("type", Cache.model_fields["type"].default)
    for field, kind in CACHE_FIELDS.items():
        path, value = f"spec.model.cache.{field}", cache.get(field)
        if value is not None and chosen != kind:
            yield Problem(path, f"is for type {kind} only; remove it or set type: {kind}", value)
    if chosen == "hostPath" and cache.get("path") is None:
        message = "is required for type hostPath; set it or choose another type"
        yield Problem("spec.model.cache.path", message)
    if chosen != "pvc":
        return
    if (cache.get("claimName") is None) == (cache.get("size") is None):
        yield Problem("spec.model.cache", f"type pvc {ONE_CLAIM}", dict(cache))
    for field in CLAIM_FIELDS:
        if cache.get(field) is not None and cache.get("size") is None:
            message = "is for a claim that the operator makes; set size, or remove it"
            yield Problem(f"spec.model.cache.{field}", message, cache[field])


def _vllm_needs_weights(document: Document) -> Iterator[Problem]:
    model = at(document, "spec.model")
    if engine_of(document) == "vllm" and isinstance(model, Mapping) and model.get("uri") is None:
        message = "is required; give a hub name such as zai-org/GLM-4-9B-0414, or a path"
        yield Problem("spec.model.uri", message)


def _echo_has_no_weights(document: Document) -> Iterator[Problem]:
    if engine_of(document) != "echo":
        return
    for field in WEIGHTS_FIELDS:
        value = at(document, f"spec.model.{field}")
        # The API server fills in defaults, so a default was not necessarily given.
        if value and value != {"type": Cache.model_fields["type"].default}:
            message = "is not used by the echo engine; remove it, or set spec.engine.type: vllm"
            yield Problem(f"spec.model.{field}", message, value)


def _echo_arguments_exist(document: Document) -> Iterator[Problem]:
    args = at(document, "spec.engine.args")
    if engine_of(document) != "echo" or not isinstance(args, Mapping):
        return
    for name, value in args.items():
        if str(name).replace("-", "_") not in ECHO_ARGS:
            message = f"the echo engine has no such argument; it has {', '.join(sorted(ECHO_ARGS))}"
            yield Problem(f"spec.engine.args.{name}", message, value)


def _arguments_have_one_place(document: Document) -> Iterator[Problem]:
    args = at(document, "spec.engine.args")
    if engine_of(document) != "vllm" or not isinstance(args, Mapping):
        return
    for name, value in args.items():
        field = FIELD_OF_ARG.get(str(name).replace("-", "_"))
        if field:
            message = f"has a field of its own; set {field} instead"
            yield Problem(f"spec.engine.args.{name}", message, value)


def _environment_has_one_value(document: Document) -> Iterator[Problem]:
    for index, variable in enumerate(list_at(document, "spec.engine.env")):
        if isinstance(variable, Mapping) and ("value" in variable) == ("valueFrom" in variable):
            yield Problem(f"spec.engine.env[{index}]", "needs either value or valueFrom", variable)


def _names_are_distinct(document: Document) -> Iterator[Problem]:
    served = at(document, "spec.model.servedName") or at(document, "metadata.name")
    names = [("spec.model.servedName", served)]
    names += [
        (f"spec.model.aliases[{i}]", n)
        for i, n in enumerate(list_at(document, "spec.model.aliases"))
    ]
    names += _keyed(document, "spec.model.adapters")
    yield from _twice(names)
    yield from _twice(_keyed(document, "spec.engine.env"))
    yield from _twice(_keyed(document, "spec.scaling.metrics", "type"))


def _min_replicas(document: Document) -> Any:
    low = at(document, "spec.scaling.minReplicas")
    return Scaling.model_fields["min_replicas"].default if low is None else low


def _keyed(document: Document, path: str, key: str = "name") -> list[tuple[str, Any]]:
    items = enumerate(list_at(document, path))
    return [(f"{path}[{index}].{key}", at(item, key)) for index, item in items]


def _twice(names: list[tuple[str, Any]]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for path, name in names:
        if not isinstance(name, str):
            continue
        if name in first:
            yield Problem(path, f"is the same as {first[name]}; choose another or remove it", name)
        first.setdefault(name, path)


BETWEEN: tuple[Rule, ...] = (
    _min_at_most_max,
    _zero_needs_keda,
    _targets_can_be_held,
    _cache_fits_its_type,
    _vllm_needs_weights,
    _echo_has_no_weights,
    _echo_arguments_exist,
    _arguments_have_one_place,
    _environment_has_one_value,
    _names_are_distinct,
)
