"""Writes the file with endpoints and resources that the gateway reads (`--endpoints-file`).

The file is replaced atomically. Called by `runtime`.
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
    """Replace the file. Resources are written without defaults, which are the gateway's."""
    listing = {
        "endpoints": sorted(map(url_of, addresses)),
        "resources": [*map(_set_fields, resources)],
    }
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps(listing) + "\n")
    draft.replace(path)


def _set_fields(resource: AutoGLMDeployment) -> dict[str, Any]:
    parts = {"metadata": {"name", "namespace"}, "spec": {"model", "routing", "tenancy"}}
    return resource.model_dump(mode="json", by_alias=True, exclude_unset=True, include=parts)
