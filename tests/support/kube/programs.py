"""Where the programs of a Kubernetes are, and what to say when they are not there.

They are built by `scripts/kube_tools`. A test ring calls `lacking` before it starts anything: in CI
a missing prerequisite fails, elsewhere the ring is skipped with the sentence returned here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

CONTROL_PLANE = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubectl", "kwok", "helm"),
)


def directory() -> Path:
    """build/bin of the checkout, or what AUTOGLM_KUBE_TOOLS names."""
    built = Path(__file__).parents[3] / "build/bin"
    return Path(os.environ.get("AUTOGLM_KUBE_TOOLS", built))


def program(name: str) -> str:
    return str(directory() / name)


def lacking(programs: Iterable[str] = CONTROL_PLANE, way_out: str = "scripts/kube_tools") -> str:
    """A sentence that names what is missing and the way out; empty when all is there."""
    missing = [name for name in programs if not os.access(program(name), os.X_OK)]
    if not missing:
        return ""
    return f"{', '.join(missing)} not in {directory()}: run {way_out} (needs Go 1.26)"
