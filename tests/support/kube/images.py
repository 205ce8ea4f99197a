"""Images for the node, as archives that containerd imports. No registry is contacted.

`program_image` wraps one static program, as the cluster's own add-ons are; `dockerfile_image`
builds a Dockerfile by `scripts/node_image`; `read_image` lists what an archive holds.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from tests.support.kube.daemon import output

_ROOT = Path(__file__).parents[3]
_NODE_IMAGE = _ROOT / "scripts/node_image"
ARCHIVES = _ROOT / "build/images"
"""Where `scripts/build_ahead` puts the images of deploy/images."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# A file of this name in a layer removes the one named after it.
_WHITEOUT = ".wh."


@dataclass(frozen=True, slots=True)
class Image:
    config: dict[str, Any]
    """What runs, as whom, with which labels: `config` of the OCI image configuration."""
    files: frozenset[str]
    """Paths in the result, without a leading slash."""
    layers: tuple[int, ...]
    """Bytes of each, lowest first."""


def program_image(name: str, executable: Path, archive: Path) -> Path:
    """Writes an image that holds nothing but the program and runs it."""
    layer = _layer(executable)
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/{executable.name}"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", layer)
    return archive


def dockerfile_image(
    name: str, dockerfile: Path, archive: Path, context: Path | None = None
) -> Path:
    """Builds it unless it is there; `context` is the checkout when none is given."""
    arguments = [name, str(dockerfile), str(archive), *([str(context)] if context else [])]
    output([str(_NODE_IMAGE), *arguments])
    return archive


@cache
def read_image(archive: Path) -> Image:
    """Of a docker archive with one image. Read once: later the file may be gone."""
    with tarfile.open(archive) as tar:
        (manifest,) = json.load(_member(tar, "manifest.json"))
        config = json.load(_member(tar, manifest["Config"]))["config"]
        files: set[str] = set()
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=_member(tar, name)) as layer:
                files = _with_layer(files, {str(PurePosixPath(m.name)) for m in layer})
        sizes = tuple(tar.getmember(name).size for name in manifest["Layers"])
    return Image(config, frozenset(files), sizes)


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.extractfile(name)
    assert found is not None, f"{name} is no file"
    return found


def _with_layer(below: set[str], layer: set[str]) -> set[str]:
    hidden = {p for p in map(PurePosixPath, layer) if p.name.startswith(_WHITEOUT)}
    removed = {p.with_name(p.name.removeprefix(_WHITEOUT)) for p in hidden}
    kept = {f for f in below if removed.isdisjoint((PurePosixPath(f), *PurePosixPath(f).parents))}
    return kept | (layer - set(map(str, hidden)))


def _layer(executable: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, executable.name, executable.read_bytes(), 0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
