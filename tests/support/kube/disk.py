"""Whether images and nodes fit on the disk, checked before the first is built.

`missing` decides, `places` looks; the ring `cluster` fails or skips with what comes of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_GB = 1000**3
_BUILD = Path(__file__).parents[3] / "build"
_STORAGE = _BUILD / "buildah"
_ARCHIVE = _BUILD / "images/inference-cpu.tar"
# What each place takes while images are built, and while nodes run with them. A layer is there
# three times while it is made, and the largest has 5 GB. Layers are kept for the next run, which
# CI has not; archives stay until they are imported, and nodes unpack each image.
_LAYERS = (25 * _GB, 17 * _GB)
_LAYERS_IN_CI = (25 * _GB, 7 * _GB)
_NODES = (1 * _GB, 13 * _GB)


@dataclass(frozen=True, slots=True)
class Place:
    """A directory, and what is going to be written there."""

    path: Path
    filesystem: int
    free: int
    """Bytes that may still be written to the filesystem, by whatever place on it."""
    needed: tuple[int, int]
    """Bytes, while images are built and while nodes run."""


def places() -> list[Place]:
    """Where the ring writes. Layers of an earlier run are there already, where they are kept, and
    archives that were built ahead."""
    if _ARCHIVE.exists():
        layers = (0, 0)
    elif os.environ.get("CI"):
        layers = _LAYERS_IN_CI
    else:
        layers = (0, 0) if (_STORAGE / "storage").exists() else _LAYERS
    return [_place(_STORAGE, layers), _place(Path(tempfile.gettempdir()), _NODES)]


def missing(found: Iterable[Place]) -> str:
    """Which filesystem is too small, and the way out; empty when everything fits."""
    shared: defaultdict[int, list[Place]] = defaultdict(list)
    for place in found:
        shared[place.filesystem].append(place)
    return "; ".join(filter(None, map(_shortage, shared.values())))


def _shortage(shared: list[Place]) -> str:
    needed = max(map(sum, zip(*(place.needed for place in shared), strict=True)))
    free = min(place.free for place in shared)
    if free >= needed:
        return ""
    where = " and ".join(str(place.path) for place in shared if any(place.needed))
    return (
        f"images and nodes need {needed / _GB:.0f} GB of free disk in {where}, which has "
        f"{free / _GB:.1f} GB: free some, or let TMPDIR name a directory on a larger disk"
    )


def _place(path: Path, needed: tuple[int, int]) -> Place:
    there = next(p for p in (path, *path.parents) if p.exists())
    return Place(path, there.stat().st_dev, shutil.disk_usage(there).free, needed)
