"""The file by which the gateway learns where replicas are, and which rules hold for which names.

Rewritten whole and renamed into place, so that a reader sees the old list or the new one. Written
by `runtime`, read by the gateway (`--endpoints-file`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autoglm.api import AutoGLMDeployment
from autoglm.local.planning import Addresses


def url_of(addresses: Addresses) -> str:
    return f"grpc://{addresses.grpc}"


def write(
    path: Path, addresses: Iterable[Addresses], resources: Iterable[AutoGLMDeployment]
) -> None:
    """Replaces the lists. Of resources, what the manifest says: defaults are the gateway's."""
    listing = {"endpoints": sorted(map(url_of, addresses)), "resources": [*map(_said, resources)]}
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(listing) + "\n")
    draft.replace(path)


def _said(resource: AutoGLMDeployment) -> dict[str, Any]:
    parts = {"metadata": {"name", "namespace"}, "spec": {"model", "routing", "tenancy"}}
    return resource.model_dump(mode="json", by_alias=True, exclude_unset=True, include=parts)
