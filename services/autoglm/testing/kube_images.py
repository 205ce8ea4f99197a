"""Images for the node, as archives that containerd imports. No registry is asked.

`program_image` wraps one static program, as the cluster's own add-ons are; `dockerfile_image`
builds a Dockerfile by `scripts/node_image`.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

from autoglm.testing.kube_daemon import output

_NODE_IMAGE = Path(__file__).parents[3] / "scripts/node_image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


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
    """Builds it; `context` is the checkout when none is given."""
    arguments = [name, str(dockerfile), str(archive), *([str(context)] if context else [])]
    output([str(_NODE_IMAGE), *arguments])
    return archive


def _layer(executable: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, executable.name, executable.read_bytes(), 0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
