"""Reads how a checkpoint stores its weights: the precision, and bytes of each parameter. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from autoglm.api.sizing.fields import Fields
from autoglm.api.sizing.shape import BYTES

_DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_GROUP = 128


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes of a parameter, by its place."""

    precision: str
    linear: float
    experts: float
    rest: float


def storage_of(config: Fields, text: Fields) -> Storage:
    """Return how the weights are stored."""
    named = str(config.get("dtype", "torch_dtype") or text.get("dtype", "torch_dtype"))
    plain = _DTYPES.get(named.removeprefix("torch."), "bf16")
    size = BYTES[plain]
    found = config.get("quantization_config") or text.get("quantization_config")
    found = found or config.get("compression_config")
    if not isinstance(found, Mapping):
        return Storage(plain, size, size, size)
    precision, packed = _packed(found)
    # Embeddings of a quantized model have 16 bits.
    kept = min(size, 2.0)
    if precision == "mxfp4" and not _is_everything_packed(found):
        return Storage(precision, kept, packed, kept)
    return Storage(precision, packed, packed, kept)


def _is_everything_packed(found: Mapping[str, Any]) -> bool:
    skipped = " ".join(map(str, found.get("modules_to_not_convert") or ()))
    return "self_attn" not in skipped and bool(skipped)


def _packed(found: Mapping[str, Any]) -> tuple[str, float]:
    """Return the precision and the bytes of a quantized parameter, with scales and zero points."""
    method = str(found.get("quant_method", "")).lower()
    if method == "compressed-tensors":
        return _compressed(found)
    if method in ("mxfp4", "gpt_oss_mxfp4"):
        return "mxfp4", 0.5 + 1 / 32
    if method == "modelopt" or "nvfp4" in str(found).lower():
        is_four = "fp4" in str(found).lower()
        return ("int4", 0.5 + 1 / 16) if is_four else ("fp8", 1.0)
    if "fp8" in method:
        return "fp8", 1 + _scale_of_block(found.get("weight_block_size"))
    if method == "bitsandbytes":
        return ("int4", 0.5 + 1 / 64) if found.get("load_in_4bit") else ("int8", 1.0)
    bits = _whole(found.get("bits") or found.get("w_bit"), 8 if "int8" in str(found) else 4)
    group = _whole(found.get("group_size") or found.get("q_group_size"), _GROUP)
    # A 16-bit scale and a zero point of each group.
    size = bits / 8 + ((2 + bits / 8) / group if group > 0 else 0)
    return ("int4" if bits <= 4 else "int8"), size


def _compressed(found: Mapping[str, Any]) -> tuple[str, float]:
    groups = found.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(weights, Mapping):
        return "int8", 1.0
    bits = _whole(weights.get("num_bits"), 8)
    group = _whole(weights.get("group_size"), 0)
    scale = 1 if weights.get("type") == "float" and bits == 4 else 2
    zero = 0 if weights.get("symmetric", True) else bits / 8
    size = bits / 8 + ((scale + zero) / group if group > 0 else 0)
    if bits <= 4:
        return "int4", size
    return ("fp8" if weights.get("type") == "float" else "int8"), size


def _scale_of_block(block: Any) -> float:
    """Return the bytes that a 32-bit scale of each block adds to a parameter."""
    if not isinstance(block, list) or not all(isinstance(n, int) and n > 0 for n in block):
        return 0.0
    return 4 / prod(block) if block else 0.0


def _whole(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
