"""Small models with random weights that stand in for those that a page serves from a hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from tests.support import tiny_models


def _of(configure: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda directory: tiny_models.with_weights(configure(directory))


MODELS: Mapping[str, Callable[[Path], Path]] = MappingProxyType(
    {
        "Qwen/Qwen3-0.6B": _of(tiny_models.qwen3),
        "Qwen/Qwen3-8B": _of(tiny_models.qwen3),
        "your-org/qwen3-8b-sql-lora": tiny_models.qwen3_adapter,
        "BAAI/bge-m3": _of(tiny_models.embedder),
        "BAAI/bge-reranker-v2-m3": _of(tiny_models.reranker),
        "zai-org/AutoGLM-Phone-9B": _of(tiny_models.llava),
        "openai/whisper-large-v3-turbo": _of(tiny_models.whisper),
    }
)
"""By name on a hub; each writes a model into an empty directory."""


def make(name: str, directory: Path) -> str:
    """Return the path of the stand-in of a model, made at first use."""
    path = directory / name.rpartition("/")[2]
    if not path.exists():
        path.mkdir(parents=True)
        MODELS[name](path)
    return str(path)
