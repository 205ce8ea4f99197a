"""Chooses the files of a checkpoint that vLLM 0.32 loads, by their names. Pure.

Read by the progress of a start, and by `autoglm pull`, so that a start finds what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Final

# In the order in which vLLM looks for weights; the first kind that there is wins.
_WEIGHTS: Final = ("consolidated*.safetensors", "*.safetensors", "*.bin", "*.pt")
PICKLES: Final = ("*.bin", "*.pt")
"""Weights in a format that can carry code."""
# Weights for other engines, and what no engine reads.
_OTHERS: Final = (
    *_WEIGHTS, "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot",
    "*.tflite", "*.mlmodel", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.mp3", "*.mp4",
    "*.wav", "*.pdf", "original/*", "onnx/*", "openvino/*", "coreml/*", ".git*",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """A file of a model."""

    name: str
    size: int
    sha256: str = ""
    """As the source states it; empty where it states none."""
    is_here: bool = False
    """Whether it was fetched before."""


def weights_of(names: Iterable[str]) -> list[str]:
    """Return the names of the weights that vLLM loads; none where there are none that it can."""
    listed = list(names)
    for pattern in _WEIGHTS:
        found = [name for name in listed if fnmatch(name, pattern)]
        # Directories have copies of the same weights, such as `original`.
        if found:
            return [name for name in found if "/" not in name] or found
    return []


def files_of(names: Iterable[str]) -> list[str]:
    """Return the names of the weights, and of all that configures model and tokenizer."""
    listed = list(names)
    weights = set(weights_of(listed))
    return [
        name
        for name in listed
        if name in weights or not any(fnmatch(name, pattern) for pattern in _OTHERS)
    ]


def is_pickle(name: str) -> bool:
    """Return whether weights are in a format that can carry code."""
    return any(fnmatch(name, pattern) for pattern in PICKLES)


def size_of(files: Iterable[tuple[str, int]]) -> int:
    """Return the bytes of the weights that vLLM loads, of files with their sizes."""
    sizes = dict(files)
    return sum(sizes[name] for name in weights_of(sizes))
