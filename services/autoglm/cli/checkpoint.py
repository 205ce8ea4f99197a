"""Reads a checkpoint for `autoglm size`: its configuration, and the headers of its weights.

Never loads weights, and trusts no file: what is no checkpoint ends with a sentence.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from autoglm.api.sizing.shape import Shape, UnknownModel, counted, shape_of

# A header lists tensors; the largest models have some hundred kilobytes of it.
_MOST_HEADER_BYTES = 100 * 2**20


def read_shape(model: Path, parameters: int | None) -> Shape:
    """What decides the memory of a model, by its directory or its config.json."""
    path = model / "config.json" if model.is_dir() else model
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise UnknownModel("config.json holds no mapping")
        return shape_of(config, parameters or _counted(path.parent))
    except FileNotFoundError as error:
        advice = f"`hf download {model} config.json --local-dir DIR` gets it from the hub"
        raise click.ClickException(f"--model {model}: there is no {path}; {advice}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise click.ClickException(f"--model {model}: {error}") from error


def _counted(directory: Path) -> int | None:
    """Parameters in the checkpoint's weights; None where it has none here, or packed ones."""
    files = list(directory.glob("*.safetensors"))
    headers = [_header(file) for file in files]
    kinds = {entry.get("dtype") for header in headers for entry in _tensors(header)}
    # Packed numbers have shapes of their own, which say nothing of the parameters.
    if not files or not kinds <= {"F64", "F32", "F16", "BF16", "F8_E4M3"}:
        return None
    return sum(map(counted, headers))


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        start = stream.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < size <= _MOST_HEADER_BYTES:
            raise ValueError(f"{file.name} is no safetensors file; download it again")
        header = json.loads(stream.read(size))
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} is no safetensors file; download it again")
    return header


def _tensors(header: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (entry for name, entry in header.items() if name != "__metadata__")
