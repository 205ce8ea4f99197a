"""Estimates the memory that a model needs, and the GPUs that have enough. Pure arithmetic.

`shape_of` reads the dimensions that determine a model's memory from its config.json; `need`, `fits`
and `host` compute with them. vLLM measures the memory when it starts, and uses the rest for the KV
cache. Called by `autoglm size`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

GIB = 2**30
UTILIZATION = 0.9
"""Share of a GPU's memory that the engine takes."""
RUNTIME_BYTES = 2 * GIB
"""Further memory on each GPU: context, compiled graphs, activations of one batch."""
_HOST_BYTES = 8 * GIB
_SPLITS = (1, 2, 4, 8)
BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "fp8": 1.0, "int4": 0.5}
"""Bytes per number by precision."""
_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_MOST_LAYERS = 10_000


class UnknownModel(ValueError):
    """Raised for a config.json without the fields that the estimate needs."""


@dataclass(frozen=True, slots=True)
class Layer:
    """KV cache of a layer for each token."""

    numbers: int
    """Numbers in the keys and values of one token."""
    window: int | None = None
    """Most tokens that are kept; None keeps all."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a model that determine its memory."""

    parameters: int
    layers: tuple[Layer, ...]
    heads: int
    kv_heads: int
    """1 if each GPU keeps the whole cache (latent attention)."""
    precision: str
    """Precision of the stored weights."""
    context: int

    def kv_bytes(self, tokens: int, precision: str) -> float:
        """Return the KV cache of a request of `tokens` tokens, in bytes."""
        numbers = sum(layer.numbers * min(tokens, layer.window or tokens) for layer in self.layers)
        return numbers * BYTES[precision]


def shape_of(config: Mapping[str, Any], parameters: int | None = None) -> Shape:
    """Return the shape of a model by its config.json; `parameters` overrides their estimate.

    Raises UnknownModel with the missing field.
    """
    # Multimodal models have the language model's configuration in a field of its own.
    nested = config.get("text_config") or config.get("llm_config")
    text = {**config, **nested} if isinstance(nested, Mapping) else config
    count = _number(text, "num_hidden_layers", "num_layers", "n_layer")
    if count > _MOST_LAYERS:
        raise UnknownModel(f"config.json: {count} layers, at most {_MOST_LAYERS} are supported")
    heads = _number(text, "num_attention_heads", "n_head")
    kv_heads = _kv_heads(text, heads)
    layers = tuple(_layer(text, index, heads, kv_heads) for index in range(count))
    latent = "kv_lora_rank" in text and text["kv_lora_rank"]
    return Shape(
        parameters=_parameters(text, count, heads, kv_heads) if parameters is None else parameters,
        layers=layers,
        heads=heads,
        kv_heads=1 if latent else kv_heads,
        precision=_precision(text),
        context=_number(text, "max_position_embeddings", "seq_length", "n_positions"),
    )


def counted(headers: Mapping[str, Any]) -> int:
    """Return the number of parameters in a header of a safetensors file, by tensor shapes."""
    tensors = (entry for name, entry in headers.items() if name != "__metadata__")
    return sum(prod(entry["shape"]) for entry in tensors)


def _kv_heads(text: Mapping[str, Any], heads: int) -> int:
    if text.get("multi_query_attention") is False:
        return heads
    found = text.get("num_key_value_heads") or text.get("multi_query_group_num")
    return heads if found is None else _whole("num_key_value_heads", found)


def _layer(text: Mapping[str, Any], index: int, heads: int, kv_heads: int) -> Layer:
    if text.get("kv_lora_rank"):
        rope = _whole("qk_rope_head_dim", text.get("qk_rope_head_dim", 0), least=0)
        return Layer(_whole("kv_lora_rank", text["kv_lora_rank"]) + rope)
    kinds = text.get("layer_types")
    kind = kinds[index] if isinstance(kinds, list) and index < len(kinds) else "full_attention"
    if kind == "linear_attention":
        return Layer(0)
    numbers = 2 * kv_heads * _head_dim(text, heads)
    is_sliding = kind == "sliding_attention" and text.get("sliding_window")
    return Layer(numbers, _whole("sliding_window", text["sliding_window"]) if is_sliding else None)


def _head_dim(text: Mapping[str, Any], heads: int) -> int:
    found = text.get("head_dim") or text.get("kv_channels")
    if found is not None:
        return _whole("head_dim", found)
    return _number(text, "hidden_size", "n_embd") // heads


def _parameters(text: Mapping[str, Any], layers: int, heads: int, kv_heads: int) -> int:
    """Estimate the parameters by matrix sizes; within a few percent for decoder-only models."""
    hidden = _number(text, "hidden_size", "n_embd")
    vocabulary = _number(text, "vocab_size", "padded_vocab_size")
    tables = 1 if text.get("tie_word_embeddings") else 2
    attention = 2 * hidden * _head_dim(text, heads) * (heads + kv_heads)
    experts = (
        text.get("num_experts") or text.get("n_routed_experts") or text.get("num_local_experts")
    )
    if experts:
        inner = _number(text, "moe_intermediate_size", "intermediate_size")
        shared = text.get("n_shared_experts") or 0
        mlp = 3 * hidden * inner * (_whole("experts", experts) + _whole("shared", shared, least=0))
    else:
        mlp = 3 * hidden * _number(text, "intermediate_size", "ffn_hidden_size", "n_inner")
    return vocabulary * hidden * tables + layers * (attention + mlp)


def _precision(text: Mapping[str, Any]) -> str:
    quantized = text.get("quantization_config")
    if isinstance(quantized, Mapping):
        if "fp8" in str(quantized.get("quant_method")):
            return "fp8"
        bits = quantized.get("bits") or (4 if quantized.get("load_in_4bit") else 8)
        return "int4" if bits == 4 else "int8"
    return _DTYPES.get(str(text.get("dtype") or text.get("torch_dtype")), "bf16")


def _number(text: Mapping[str, Any], *names: str) -> int:
    for name in names:
        if text.get(name) is not None:
            return _whole(name, text[name])
    raise UnknownModel(f"config.json has no {names[0]}; only language models are supported")


def _whole(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**9:
        raise UnknownModel(f"config.json: {name} = {value!r} is out of range")
    return value


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    gib: float
    """Memory as the driver reports it, less than the nominal size."""


GPUS = (
    Gpu("T4 16 GB", 15.0),
    Gpu("L4, A10 24 GB", 22.5),
    Gpu("RTX 4090 24 GB", 24.0),
    Gpu("A100 40 GB", 39.5),
    Gpu("L40S 48 GB", 45.0),
    Gpu("A100, H100 80 GB", 79.2),
    Gpu("H200 141 GB", 140.0),
    Gpu("B200 180 GB", 178.0),
    Gpu("MI300X 192 GB", 191.0),
)


@dataclass(frozen=True, slots=True)
class Load:
    """Requirements on one replica."""

    precision: str
    kv_precision: str
    context: int
    """Tokens of prompt and completion together of each request."""
    concurrency: int
    """Concurrent requests."""


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of one replica, in bytes, in total over its devices."""

    weights: float
    kv_cache: float
    kv_token: float
    """KV cache of one token."""

    @property
    def total(self) -> float:
        return self.weights + self.kv_cache + RUNTIME_BYTES


@dataclass(frozen=True, slots=True)
class Fit:
    """A GPU model, and how many of them one replica needs."""

    gpu: Gpu
    tensor_parallel: int | None
    """None if the model does not fit even with the largest split."""
    used: float = 0.0
    """Bytes on each GPU."""
    concurrency: int = 0
    """Concurrent requests of full length that fit."""


@dataclass(frozen=True, slots=True)
class Host:
    """Resources that a replica's pod should request besides the GPUs."""

    cpu: int
    memory: float
    disk: float


def need(shape: Shape, load: Load) -> Need:
    """Return the memory of one replica."""
    one = shape.kv_bytes(load.context, load.kv_precision)
    return Need(
        weights=shape.parameters * BYTES[load.precision],
        kv_cache=one * load.concurrency,
        kv_token=shape.kv_bytes(1, load.kv_precision),
    )


def fits(shape: Shape, load: Load) -> list[Fit]:
    """Return, for each known GPU, the smallest number that fits."""
    return [_fit(gpu, shape, load) for gpu in GPUS]


def host(shape: Shape, load: Load, gpus: int) -> Host:
    """Return the host's resources; weights pass through its memory, and each GPU needs cores."""
    weights = shape.parameters * BYTES[load.precision]
    return Host(cpu=2 + 2 * gpus, memory=weights + _HOST_BYTES, disk=1.1 * weights)


def _fit(gpu: Gpu, shape: Shape, load: Load) -> Fit:
    weights = shape.parameters * BYTES[load.precision]
    for split in _SPLITS:
        if shape.heads % split:
            continue
        # With more GPUs than KV heads, heads are copied.
        share = ceil(shape.kv_heads / split) / shape.kv_heads
        request = shape.kv_bytes(load.context, load.kv_precision) * share
        fixed = weights / split + RUNTIME_BYTES
        room = gpu.gib * GIB * UTILIZATION - fixed
        if room >= request * load.concurrency:
            most = int(room // request) if request else load.concurrency
            return Fit(gpu, split, fixed + request * load.concurrency, most)
    return Fit(gpu, None)
