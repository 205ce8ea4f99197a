"""Reads a checkpoint for `autoglm size`: its configuration, and the headers of its weights.

Never loads weights. An invalid file raises ClickException with the file and the problem.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from autoglm.api.sizing.shape import Shape, UnknownModel, counted, shape_of

# A header lists the tensors; those of the largest models have some hundred kilobytes.
_MOST_HEADER_BYTES = 100 * 2**20


def read_shape(model: Path, parameters: int | None) -> Shape:
    """Return the shape of a model by its directory or its config.json. Raises ClickException."""
    path = model / "config.json" if model.is_dir() else model
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise UnknownModel("config.json is not a mapping")
        return shape_of(config, parameters or _counted(path.parent))
    except FileNotFoundError as error:
        advice = f"`hf download {model} config.json --local-dir DIR` downloads it from the hub"
        raise click.ClickException(f"--model {model}: {path} not found; {advice}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise click.ClickException(f"--model {model}: {error}") from error


def _counted(directory: Path) -> int | None:
    """Return the number of parameters in the weights, None if they are absent or packed."""
    files = list(directory.glob("*.safetensors"))
    headers = [_header(file) for file in files]
    kinds = {entry.get("dtype") for header in headers for entry in _tensors(header)}
    # The shape of packed numbers is not the number of parameters.
    if not files or not kinds <= {"F64", "F32", "F16", "BF16", "F8_E4M3"}:
        return None
    return sum(map(counted, headers))


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        start = stream.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < size <= _MOST_HEADER_BYTES:
            raise ValueError(f"{file.name} is not a safetensors file; download it again")
        header = json.loads(stream.read(size))
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} is not a safetensors file; download it again")
    return header


def _tensors(header: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (entry for name, entry in header.items() if name != "__metadata__")
