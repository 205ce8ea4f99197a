"""Counts models of tests/data/models by transformers' own classes, on torch's meta device.

    PYTHONPATH=. python -m tests.support.meta_models      writes tests/data/counted_models.json

Nothing is downloaded or allocated. The unit ring compares `autoglm.api.sizing` with the file, the
integration ring the file with transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
MODELS, COUNTED = DATA / "models", DATA / "counted_models.json"
TOKENS = 32768
"""Length of the requests whose KV cache is recorded."""
# All their layers have the window, where there is one.
_WINDOWED = ("mistral", "phi3", "starcoder2", "phimoe", "mixtral")
_UNQUANTIZED = ("lm_head", "embed", "router", "visual", "vision", "tower", "projector", "mlp.gate.")


def configs() -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(MODELS.glob("*.json"))}


def counted(config: dict[str, Any]) -> dict[str, Any]:
    """Parameters, bytes of the checkpoint, and numbers in the KV cache of one request."""
    import torch
    import transformers

    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    parsed = transformers.AutoConfig.for_model(**plain)
    cls = getattr(transformers, config["architectures"][0])
    with torch.device("meta"):
        model: Any = cls(parsed)
    text = parsed.get_text_config()
    tensors = _distinct(model)
    return {
        "parameters": sum(tensor.numel() for _, tensor in tensors),
        "bytes": round(sum(_bytes(name, tensor, config) for name, tensor in tensors)),
        "kv_numbers": sum(_kv_numbers(model, text)),
    }


def _distinct(model: Any) -> list[tuple[str, Any]]:
    """Parameters, tied ones once."""
    model.tie_weights()
    return list(model.named_parameters(remove_duplicate=True))


def _bytes(name: str, tensor: Any, config: dict[str, Any]) -> float:
    """Bytes of a tensor in a checkpoint of the configuration's quantization."""
    text = config.get("text_config") or {}
    dtype = config.get("dtype") or config.get("torch_dtype") or text.get("dtype")
    plain = 4 if dtype == "float32" else 2
    found = config.get("quantization_config")
    count: int = tensor.numel()
    is_expert = ".experts." in name and tensor.ndim == 3
    is_linear = is_expert or (tensor.ndim == 2 and not any(word in name for word in _UNQUANTIZED))
    if found is None or not is_linear:
        return float(count * plain)
    method = found["quant_method"]
    if method == "mxfp4":
        return float(count / 2 + count / 32 if is_expert else count * plain)
    if method == "fp8":
        return float(count + 4 * count / 128**2)
    if method == "compressed-tensors":
        return float(_compressed(count, found))
    # A scale and a zero point of each group; GPTQ also has the group of each input.
    order = 4 * int(tensor.shape[1]) if method == "gptq" else 0
    return float(count / 2 + count / 128 * 2.5 + order)


def _compressed(count: int, found: dict[str, Any]) -> float:
    weights = found["config_groups"]["group_0"]["weights"]
    if weights["num_bits"] == 8:
        return float(count)
    return float(count / 2 + 2 * count / weights["group_size"])


def _kv_numbers(model: Any, text: Any) -> Iterator[int]:
    """Numbers that each layer's attention keeps of a request of TOKENS tokens."""
    name = type(model).__name__
    if not name.endswith(("CausalLM", "ConditionalGeneration", "LMHeadModel")):
        return
    kinds = getattr(text, "layer_types", None)
    if text.model_type in _WINDOWED and text.sliding_window:
        kinds = ["sliding_attention"] * text.num_hidden_layers
    found = (_of_attention(name, module, text) for name, module in model.named_modules())
    numbers = [each for each in found if each is not None]
    kept = [
        kind for kind in kinds or ["full_attention"] * len(numbers) if kind != "linear_attention"
    ]
    windows = {
        "sliding_attention": getattr(text, "sliding_window", None),
        "chunked_attention": getattr(text, "attention_chunk_size", None),
    }
    for each, kind in zip(numbers, kept, strict=True):
        yield each * min(TOKENS, windows.get(kind) or TOKENS)


def _of_attention(name: str, module: Any, text: Any) -> int | None:
    """Numbers of a token, None where the module is no self-attention of the text."""
    if any(word in name for word in ("vision", "visual", "tower", "encoder.", "encoder_attn")):
        return None
    if hasattr(module, "kv_a_proj_with_mqa"):
        extra = 66 if hasattr(module, "indexer") else 0
        return int(module.kv_a_proj_with_mqa.out_features) + extra
    if hasattr(module, "indexer") or name.endswith("indexer"):
        return None
    if hasattr(module, "k_proj") and hasattr(module, "v_proj"):
        return int(module.k_proj.out_features + module.v_proj.out_features)
    width = text.hidden_size
    for fused in ("qkv_proj", "query_key_value"):
        if hasattr(module, fused):
            return int(getattr(module, fused).out_features - width)
    if hasattr(module, "c_attn") and hasattr(module, "c_proj"):
        return int(module.c_attn.nf - width)
    return None


def main() -> None:
    found = {name: counted(config) for name, config in configs().items()}
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    COUNTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
