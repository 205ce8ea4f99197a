"""Translates a resource into processes with flags and environment. Pure.

`up` calls it for each resource of a manifest. `api.engine_flags` has the flags that processes share
with the operator's pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoglm.api import AutoGLMDeployment, Spec
from autoglm.api.engine_flags import engine_flags, flags
from autoglm.local.planning import Addresses, Process, Workload

# No resource can have this name, since names start with a letter.
GATEWAY = "_gateway"


@dataclass(frozen=True, slots=True)
class Placed:
    """A resource and the directory of its manifest, which its paths are relative to."""

    resource: AutoGLMDeployment
    directory: Path


def model_workload(placed: Placed, program: Sequence[str], traces: str | None) -> Workload:
    """Return the inference processes of a resource. `traces` overrides the resource's setting."""
    spec = placed.resource.spec
    process = Process(
        argv=(*program, "inference", *inference_flags(placed, traces)),
        env=tuple((e.name, e.value) for e in spec.engine.env if e.value is not None),
        grace_seconds=spec.drain.grace_period_seconds,
    )
    return Workload(placed.resource.name, placed.resource.desired_replicas, process)


def gateway_workload(
    placed: Iterable[Placed],
    program: Sequence[str],
    addresses: Addresses,
    endpoints_file: Path,
    user_flags: Sequence[str] = (),
) -> Workload:
    """Return the gateway for all resources, with the longest of their grace periods."""
    grace = max(p.resource.spec.drain.grace_period_seconds for p in placed)
    options = flags(("endpoints-file", endpoints_file), ("shutdown-grace-seconds", grace))
    process = Process(
        (*program, "gateway", *options, *user_flags),
        addresses=addresses,
        grace_seconds=grace,
        is_routed=False,
    )
    return Workload(GATEWAY, 1, process)


def inference_flags(placed: Placed, traces: str | None) -> tuple[str, ...]:
    """Return all flags of an inference process except its addresses."""
    own = engine_flags(placed.resource, lambda uri: located(uri, placed.directory))
    return (*own, *flags(*_tracing(placed.resource.spec, traces)))


def located(uri: str | None, directory: Path) -> str | None:
    """Make a path that is relative to the manifest absolute; return other uris unchanged."""
    if uri is None or not uri.startswith(("./", "../")):
        return uri
    return str((directory / uri).resolve())


def notices(resource: AutoGLMDeployment) -> list[str]:
    """Return a sentence for each field of the resource that takes effect only on a cluster."""
    spec = resource.spec
    facts = {
        "spec.scaling": (spec.scaling, f"runs {resource.desired_replicas} replicas (minReplicas)"),
        "spec.engine.image": (spec.engine.image, "runs the installed package"),
        "spec.resources": (spec.resources.requests or spec.resources.limits, "sets no limits"),
        "spec.template": (spec.template, "has no pod template"),
    }
    sentences = [
        f"{resource.name}: {path} takes effect on Kubernetes; `autoglm up` {instead}"
        for path, (is_set, instead) in facts.items()
        if is_set
    ]
    inherited = [variable.name for variable in spec.engine.env if variable.value_from is not None]
    if inherited:
        names = ", ".join(inherited)
        sentences.append(f"{resource.name}: {names} must be set in this shell's environment")
    return sentences


def _tracing(spec: Spec, traces: str | None) -> list[tuple[str, object]]:
    tracing = spec.observability.tracing
    if traces is not None or tracing.endpoint is None:
        return [("traces", traces)]
    return [("traces", f"otlp:{tracing.endpoint}"), ("trace-sample-ratio", tracing.sample_ratio)]
