"""Names the commands that build an image of ours, and bring it into a cluster. Pure.

No registry publishes them: they are built from a clone by `make images`, whose IMAGES are the
directories of deploy/images. Said by the operator in conditions, by `autoglm status` and `explain`.
"""

from __future__ import annotations

import re
from typing import Final

_REFERENCE: Final = re.compile(
    r"(?<![\w./:-])(?P<registry>[\w.-]+(?::\d+)?/(?:[\w.-]+/)*)?"
    r"(?P<name>open-autoglm(?:-inference)?)(?::(?P<tag>\w[\w.-]*\w))?(?![\w/-])"
)
# What a runtime puts before a name without a registry.
_NO_REGISTRY: Final = (None, "docker.io/library/")


def pull_remedy(text: str) -> str:
    """Return the remedy for the first image of ours that `text` names; empty if it names none."""
    found = _REFERENCE.search(text)
    if found is None:
        return ""
    image = f"{found['name']}:{found['tag']}" if found["tag"] else found["name"]
    directory = _directory(found["name"], found["tag"] or "")
    if found["registry"] in _NO_REGISTRY:
        return (
            f"no registry publishes {image}: build it in a clone by `make images "
            f"IMAGES={directory}`, and bring it into kind, k3d, minikube or k3s by `make "
            f"cluster-load IMAGES={directory}`; for another cluster add REGISTRY=... to the first, "
            "and set image.registry of the chart"
        )
    registry = found["registry"].rstrip("/")
    return (
        f"build and push {registry}/{image} by `make images IMAGES={directory} "
        f"REGISTRY={registry}` in a clone; if it is there, name a pull secret in imagePullSecrets "
        "of the chart"
    )


def _directory(name: str, tag: str) -> str:
    """Return the directory of deploy/images that an image is built from."""
    if name == "open-autoglm":
        return name
    return "inference-cpu" if tag.endswith("-cpu") else "inference"
