"""Resources of a replica, with the GPUs that its parallelism needs. Pure.

Devices in the spec are kept; GPUs are added only if the spec has no device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from autoglm.api import Problem, Spec
from autoglm.kube.quantities import amount
from autoglm.operator.children.metadata import Body

GPU = "nvidia.com/gpu"


def resources(spec: Spec) -> Body:
    """Return requests and limits of the engine's container."""
    requests, limits = dict(spec.resources.requests), dict(spec.resources.limits)
    # Kubernetes requires a limit for devices, equal to the request.
    limits |= {k: v for k, v in requests.items() if _is_device(k) and k not in limits}
    if devices(spec) > 1 and not any(map(_is_device, limits)):
        limits[GPU] = str(devices(spec))
    both = {"requests": requests, "limits": limits}
    return {key: value for key, value in both.items() if value}


def devices(spec: Spec) -> int:
    """Return the number of devices of one replica."""
    parallelism = spec.engine.parallelism
    return parallelism.tensor * parallelism.pipeline * parallelism.data


def problems(spec: Spec) -> Iterator[Problem]:
    """Yield a problem for fewer GPUs than the parallelism needs."""
    for field in ("limits", "requests"):
        given: Mapping[str, str] = getattr(spec.resources, field)
        for name, quantity in given.items():
            # 0 means no GPU, as for an engine that runs on processor cores.
            if name.endswith("/gpu") and 0 < (amount(quantity) or 0) < devices(spec):
                message = (
                    f"spec.engine.parallelism needs {devices(spec)} GPUs for each replica; give as "
                    "many, or lower the parallelism"
                )
                yield Problem(f"spec.resources.{field}.{name}", message, quantity)


def _is_device(name: str) -> bool:
    """Return whether it is an extended resource, whose name has a domain."""
    return "/" in name and not name.startswith("kubernetes.io/")
