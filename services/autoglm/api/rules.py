"""What the parts of a resource must agree on, which no field can check alone.

Rules read the raw document, so that they speak up even where some other field is wrong. The CRD
says the same in CEL. Called by `parse` only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from autoglm.api.engine import Engine
from autoglm.api.problem import Problem
from autoglm.api.scaling import Scaling

Document = Mapping[str, Any]
# Arguments of vLLM with a field of their own; two places for one setting would contradict.
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


# Arguments of the echo engine.
ECHO_ARGS = frozenset({"token_rate", "prefill_rate", "kv_blocks", "fail"})


def problems_within(document: Document) -> list[Problem]:
    """Every broken rule of one document."""
    return [problem for rule in _RULES for problem in rule(document)]


def at(document: Any, path: str) -> Any:
    """The value at a dotted path; None where the document ends before it."""
    for key in path.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def _engine(document: Document) -> Any:
    default: str = Engine.model_fields["type"].default
    return at(document, "spec.engine.type") or default


def _one_source_of_replicas(document: Document) -> Iterator[Problem]:
    replicas = at(document, "spec.replicas")
    if replicas is not None and at(document, "spec.scaling") is not None:
        message = "spec.scaling decides the number of replicas; remove one of the two"
        yield Problem("spec.replicas", message, replicas)


def _min_at_most_max(document: Document) -> Iterator[Problem]:
    low = at(document, "spec.scaling.minReplicas")
    low = Scaling.model_fields["min_replicas"].default if low is None else low
    high = at(document, "spec.scaling.maxReplicas")
    if isinstance(low, int) and isinstance(high, int) and low > high >= 1:
        message = f"is over spec.scaling.maxReplicas ({high}); lower it or raise the other"
        yield Problem("spec.scaling.minReplicas", message, low)


def _vllm_needs_weights(document: Document) -> Iterator[Problem]:
    model = at(document, "spec.model")
    if _engine(document) == "vllm" and isinstance(model, Mapping) and model.get("uri") is None:
        message = "is required; give a hub name such as zai-org/GLM-4-9B-0414, or a path"
        yield Problem("spec.model.uri", message)


def _echo_has_no_weights(document: Document) -> Iterator[Problem]:
    if _engine(document) != "echo":
        return
    for field in ("quantization", "adapters", "tokenizer", "revision"):
        value = at(document, f"spec.model.{field}")
        if value:
            message = "means nothing to the echo engine; remove it, or set spec.engine.type: vllm"
            yield Problem(f"spec.model.{field}", message, value)


def _echo_arguments_exist(document: Document) -> Iterator[Problem]:
    args = at(document, "spec.engine.args")
    if _engine(document) != "echo" or not isinstance(args, Mapping):
        return
    for name, value in args.items():
        if str(name).replace("-", "_") not in ECHO_ARGS:
            message = f"the echo engine has no such argument; it has {', '.join(sorted(ECHO_ARGS))}"
            yield Problem(f"spec.engine.args.{name}", message, value)


def _arguments_have_one_place(document: Document) -> Iterator[Problem]:
    args = at(document, "spec.engine.args")
    if _engine(document) != "vllm" or not isinstance(args, Mapping):
        return
    for name, value in args.items():
        field = FIELD_OF_ARG.get(str(name).replace("-", "_"))
        if field:
            message = f"has a field of its own; set {field} instead"
            yield Problem(f"spec.engine.args.{name}", message, value)


def _environment_has_one_value(document: Document) -> Iterator[Problem]:
    for index, variable in enumerate(_list(document, "spec.engine.env")):
        if isinstance(variable, Mapping) and ("value" in variable) == ("valueFrom" in variable):
            yield Problem(f"spec.engine.env[{index}]", "needs either value or valueFrom", variable)


def _names_are_distinct(document: Document) -> Iterator[Problem]:
    served = at(document, "spec.model.servedName") or at(document, "metadata.name")
    names = [("spec.model.servedName", served)]
    names += [
        (f"spec.model.aliases[{i}]", n) for i, n in enumerate(_list(document, "spec.model.aliases"))
    ]
    names += _keyed(document, "spec.model.adapters")
    yield from _twice(names)
    yield from _twice(_keyed(document, "spec.engine.env"))


def _list(document: Document, path: str) -> list[Any]:
    value = at(document, path)
    return value if isinstance(value, list) else []


def _keyed(document: Document, path: str) -> list[tuple[str, Any]]:
    items = enumerate(_list(document, path))
    return [(f"{path}[{index}].name", at(item, "name")) for index, item in items]


def _twice(names: list[tuple[str, Any]]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for path, name in names:
        if not isinstance(name, str):
            continue
        if name in first:
            yield Problem(path, f"is the same as {first[name]}; choose another or remove it", name)
        first.setdefault(name, path)


_RULES: tuple[Callable[[Document], Iterator[Problem]], ...] = (
    _one_source_of_replicas,
    _min_at_most_max,
    _vllm_needs_weights,
    _echo_has_no_weights,
    _echo_arguments_exist,
    _arguments_have_one_place,
    _environment_has_one_value,
    _names_are_distinct,
)
