"""Resources of a replica, with the GPUs that its parallelism needs. Pure.

What the spec says of devices is kept; only where it says nothing are GPUs added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from autoglm.api import Problem, Spec
from autoglm.kube.quantities import amount
from autoglm.operator.children.metadata import Body

GPU = "nvidia.com/gpu"


def resources(spec: Spec) -> Body:
    requests, limits = dict(spec.resources.requests), dict(spec.resources.limits)
    # Kubernetes lends devices whole and demands a limit for them.
    limits |= {k: v for k, v in requests.items() if _is_device(k) and k not in limits}
    if devices(spec) > 1 and not any(map(_is_device, limits)):
        limits[GPU] = str(devices(spec))
    both = {"requests": requests, "limits": limits}
    return {key: value for key, value in both.items() if value}


def devices(spec: Spec) -> int:
    """How many one replica is spread over."""
    parallelism = spec.engine.parallelism
    return parallelism.tensor * parallelism.pipeline * parallelism.data


def problems(spec: Spec) -> Iterator[Problem]:
    """Fewer GPUs than the engine is told to use."""
    for field in ("limits", "requests"):
        given: Mapping[str, str] = getattr(spec.resources, field)
        for name, quantity in given.items():
            # 0 says that there are none, as for an engine that is spread over processor cores.
            if name.endswith("/gpu") and 0 < (amount(quantity) or 0) < devices(spec):
                message = (
                    f"spec.engine.parallelism needs {devices(spec)} GPUs for each replica; give as "
                    "many, or lower the parallelism"
                )
                yield Problem(f"spec.resources.{field}.{name}", message, quantity)


def _is_device(name: str) -> bool:
    """Extended resources have a domain, other than Kubernetes' own resources."""
    return "/" in name and not name.startswith("kubernetes.io/")
