"""Writes the memory of each model into the table of examples/catalog/README.md.

    python -m scripts.catalog           prints the rows
    python -m scripts.catalog --write   writes them

The figures are those of `autoglm size` for the settings of each manifest: weights, KV cache of one
request of full length, and the smallest GPU on which a replica has room for eight of them. They are
computed from the dimensions in tests/data/models, since configurations of hubs are not here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoglm.api import AutoGLMDeployment
from autoglm.api.documents import load_documents
from autoglm.api.sizing import GIB, Load, Shape, fits, need, shape_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples/catalog"
README = FOLDER / "README.md"
REQUESTS = 8
_CONFIGS = ROOT / "tests/data/models"
_QWEN3_SMALL = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "tie_word_embeddings": True,
}
_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
# The configuration that each is like, and its own dimensions.
MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "autoglm-phone-9b": ("glm-4.1v-9b", {}),
    "bge-m3": ("bge-m3", {}),
    "bge-reranker-v2-m3": ("bge-m3", {}),
    "deepseek-r1-distill-qwen-7b": ("qwen2.5-7b", {"max_position_embeddings": 131072}),
    "gemma-3-12b": (
        "gemma-3-4b",
        {
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 3840,
                "intermediate_size": 15360,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "num_hidden_layers": 48,
                "sliding_window": 1024,
            }
        },
    ),
    "glm-4-9b": ("glm-4-9b-0414", {}),
    "gpt-oss-20b": ("gpt-oss-20b", {}),
    "llama-3.1-8b": ("llama-3.1-8b", {}),
    "llama-3.2-3b-sql": (
        "llama-3.1-8b",
        {
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 28,
            "num_attention_heads": 24,
            "tie_word_embeddings": True,
        },
    ),
    "mistral-small-3.2": ("mistral-small-3.1-24b", {}),
    "qwen2.5-vl-7b": ("qwen2.5-vl-7b", {}),
    "qwen3-0.6b": ("qwen3-8b", _QWEN3_SMALL),
    "qwen3-30b-a3b": (
        "qwen3-30b-a3b",
        {"max_position_embeddings": 262144, "quantization_config": _FP8},
    ),
    "qwen3-32b": (
        "qwen3-8b",
        {
            "hidden_size": 5120,
            "intermediate_size": 25600,
            "num_hidden_layers": 64,
            "num_attention_heads": 64,
        },
    ),
    "qwen3-8b": ("qwen3-8b", {}),
    "qwen3-embedding-0.6b": (
        "qwen3-8b",
        {**_QWEN3_SMALL, "vocab_size": 151669, "max_position_embeddings": 32768},
    ),
    "whisper-large-v3-turbo": ("whisper-large-v3", {"decoder_layers": 4}),
}


def shape(name: str) -> Shape:
    """Return the shape of the model of a manifest."""
    like, own = MODELS[name]
    config = json.loads((_CONFIGS / f"{like}.json").read_text())
    return shape_of({**config, **own})


def cells(name: str, resource: AutoGLMDeployment) -> list[str]:
    """Return weights, cache of one request, and the smallest GPU, as the README has them."""
    found, spec = shape(name), resource.spec
    method = spec.model.quantization.method
    load = Load(
        precision=method or found.served_precision,
        kv_precision=spec.model.quantization.kv_cache_dtype or found.kv_precision,
        context=spec.model.max_model_len or found.context,
        concurrency=REQUESTS,
    )
    needed = need(found, load)
    split = spec.engine.parallelism.tensor or 1
    gpu = next((f.gpu for f in fits(found, load) if f.tensor_parallel == split), None)
    cache = needed.kv_cache / REQUESTS / GIB
    return [
        f"{needed.weights / GIB:.1f} GiB",
        f"{cache:.1f} GiB" if cache >= 0.05 else "–" if found.is_encoder else "<0.1 GiB",
        (f"{split} × {gpu.name}" if split > 1 else gpu.name) if gpu else "none",
    ]


def rows(text: str) -> str:
    """Return the README with the last three cells of each model's row as computed."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("| ["):
            continue
        kept = [cell.strip() for cell in line.split("|")[1:-1]][:5]
        file = FOLDER / kept[0].partition("]")[0].lstrip("[")
        [resource] = load_documents(file.read_text(), str(file))
        lines[number] = f"| {' | '.join([*kept, *cells(file.stem, resource)])} |"
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    text = rows(README.read_text())
    if arguments == ["--write"]:
        README.write_text(text)
    else:
        print("\n".join(line for line in text.splitlines() if line.startswith("| [")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
