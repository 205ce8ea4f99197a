"""Reads a checkpoint's configuration, and counts its weights by the headers of its files.

Never loads weights.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from autoglm.api.sizing import Shape, UnknownModel, shape_of

# A header lists the tensors; those of the largest models have some hundred kilobytes.
_MOST_HEADER_BYTES = 100 * 2**20
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_PLAIN = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Sized:
    """A shape, and what its weights are counted in."""

    shape: Shape
    source: str
    """Such as `2 files of weights`; empty where the weights are estimated."""


def read_local(path: Path) -> Sized:
    """Return the shape of a model by its directory or its config.json.

    Raises UnknownModel, ValueError and OSError.
    """
    file = path / "config.json" if path.is_dir() else path
    config = parse(file.read_text(encoding="utf-8"))
    shape = shape_of(config)
    files = sorted(file.parent.glob("*.safetensors"))
    return _counted(shape, [_header(each) for each in files])


def parse(text: str) -> dict[str, Any]:
    """Return a config.json. Raises ValueError."""
    config = json.loads(text)
    if not isinstance(config, dict):
        raise UnknownModel("config.json is not a mapping")
    return config


def with_index(shape: Shape, index: Mapping[str, Any]) -> Sized:
    """Return the shape with the weights' size in the index of its files."""
    metadata, names = index.get("metadata"), index.get("weight_map")
    size = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    # Layers for speculative decoding are counted there, and loaded on request only.
    if not isinstance(names, Mapping) or any(map(_is_beyond(shape), names)):
        return Sized(shape, "")
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 < size < 2**60:
        return Sized(shape, "")
    return Sized(shape.with_stored_bytes(int(size)), INDEX)


def _counted(shape: Shape, headers: list[dict[str, Any]]) -> Sized:
    entries = [
        entry
        for header in headers
        for name, entry in header.items()
        if name != "__metadata__" and not _is_beyond(shape)(name)
    ]
    if not entries:
        return Sized(shape, "")
    # The shape of packed numbers is not the number of parameters.
    if {entry.get("dtype") for entry in entries} <= _PLAIN:
        shape = shape.with_parameters(max(1, sum(prod(entry["shape"]) for entry in entries)))
    size = sum(end - begin for begin, end in (entry["data_offsets"] for entry in entries))
    files = "1 file" if len(headers) == 1 else f"{len(headers)} files"
    return Sized(shape.with_stored_bytes(max(1, size)), f"{files} of weights")


def _is_beyond(shape: Shape) -> Any:
    count = len(shape.layers)

    def is_beyond(name: str) -> bool:
        found = _LAYER.search(name)
        return bool(found and count and int(found[1]) >= count and "vis" not in name)

    return is_beyond


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        start = stream.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < size <= _MOST_HEADER_BYTES:
            raise ValueError(f"{file.name} is not a safetensors file; download it again")
        header = json.loads(stream.read(size))
    if not isinstance(header, dict) or not all(map(_is_entry, _tensors(header))):
        raise ValueError(f"{file.name} is not a safetensors file; download it again")
    return header


def _tensors(header: Mapping[str, Any]) -> Iterator[Any]:
    return (entry for name, entry in header.items() if name != "__metadata__")


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and all(
            isinstance(numbers := entry.get(name), list)
            and all(isinstance(n, int) and 0 <= n < 2**60 for n in numbers)
            for name in ("shape", "data_offsets")
        )
        and len(entry["data_offsets"]) == 2
    )
