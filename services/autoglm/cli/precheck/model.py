"""Checks of a model on this machine: its files, the disk for a download, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click

from autoglm.api import AutoGLMDeployment
from autoglm.api.sizing import BYTES, GIB, Load, Shape, UnknownModel, need
from autoglm.api.sizing.fits import RUNTIME_BYTES, UTILIZATION
from autoglm.cli.precheck.view import Check
from autoglm.cli.weights.checkpoint import read_local
from autoglm.cli.weights.hub import HubError
from autoglm.cli.weights.modelscope import on_a_hub, read_from_a_hub
from autoglm.common.process import ExitCode
from autoglm.inference.diagnosis import model_path_problem
from autoglm.inference.disk import disk_of
from autoglm.inference.settings import InferenceSettings
from autoglm.local.manifest import Placed, gpus_of, located


@dataclass(frozen=True, slots=True)
class Weights:
    """Facts about a model of the manifest."""

    name: str
    engine: str
    path: str
    replicas: int
    problem: str = ""
    """Why it cannot be loaded; empty if nothing is known against it before loading."""
    warning: str = ""
    """Why it may not be loaded, such as a hub that cannot be reached."""
    size: int | None = None
    """Bytes of the weights; None if unknown."""
    cache: int = 0
    """Bytes of the KV cache of one request of full length, the least that an engine starts with."""
    disk: str = ""
    """Why a download does not fit on the disk; empty where it does, or where there is none."""
    missing: int = 0
    """Bytes to download."""
    gpus: int = 0
    """GPUs of a replica; 0 where the engine chooses."""
    needs_gpu: bool = False
    """Whether the manifest requests GPUs."""
    utilization: float = UTILIZATION
    """Share of a GPU's memory that the engine may take."""

    @property
    def per_gpu(self) -> float:
        """Return the bytes that a replica needs on each of its GPUs."""
        return ((self.size or 0) + self.cache) / max(1, self.gpus) + RUNTIME_BYTES


def observe(placed: Placed) -> Weights:
    """Read the facts about a model, on the hub where it is not here."""
    resource = placed.resource
    spec = resource.spec
    path = located(spec.model.uri, placed.directory) or ""
    settings = InferenceSettings.load({"engine": spec.engine.type, "model_path": path})
    found = model_path_problem(settings)
    limits = (spec.resources.limits if spec.resources else None) or {}
    weights = Weights(
        name=resource.name,
        engine=spec.engine.type,
        path=path,
        replicas=resource.desired_replicas,
        gpus=gpus_of(resource),
        needs_gpu=gpus_of(resource) > 1 or any(each.endswith("/gpu") for each in limits),
        utilization=spec.engine.gpu_memory_utilization or UTILIZATION,
    )
    if found or spec.engine.type != "vllm":
        return replace(weights, problem=found.message if found else "")
    try:
        directory, revision = Path(path).expanduser(), spec.model.revision or ""
        here = directory.is_dir()
        sized = read_local(directory) if here else read_from_a_hub(path, revision)
    except HubError as error:
        if error.exit_code == ExitCode.HUB_UNREACHABLE:
            return replace(weights, warning=error.message)
        return replace(weights, problem=error.message)
    except (UnknownModel, ValueError, OSError) as error:
        return replace(weights, warning=f"its memory is unknown: {error}")
    size, cache = _memory(sized.shape, resource)
    missing, disk = (0, "") if here else _download(path, revision)
    return replace(weights, size=size, cache=cache, missing=missing, disk=disk)


def _memory(shape: Shape, resource: AutoGLMDeployment) -> tuple[int, int]:
    """Return the bytes of the weights and of one request's KV cache, as `autoglm size` does."""
    method = resource.spec.model.quantization.method
    context = min(resource.spec.model.max_model_len or shape.context, shape.context)
    precision = method if method in BYTES else shape.served_precision
    needed = need(shape, Load(precision, shape.kv_precision, context, concurrency=1))
    return int(needed.weights), int(needed.kv_cache)


def _download(name: str, revision: str) -> tuple[int, str]:
    """Return the bytes that are not in the hub's cache, and why they do not fit on its disk."""
    try:
        model = on_a_hub(name, revision, "")
    except click.ClickException:
        # Its configuration was read, so it may be in the cache whole.
        return 0, ""
    existing, free = disk_of(model.root)
    return model.listing.missing, model.listing.too_large(free, str(existing))


def checks(model: Weights) -> Iterator[Check]:
    """Yield the checks of a model itself. Pure."""
    title = f"model {model.name}"
    if model.problem:
        yield Check(title, "fail", model.problem, "correct spec.model.uri")
    elif model.engine == "echo":
        yield Check(title, "ok", "echo, which has no weights")
    elif model.warning:
        remedy = "check access to the hub; `autoglm pull` fetches it before"
        yield Check(title, "warn", model.warning, remedy)
    elif model.size is None:
        yield Check(title, "ok", model.path)
    else:
        fetched = f", {gib(model.missing)} of files to download" if model.missing else ""
        yield Check(title, "ok", f"{model.path}, {gib(model.size)} of weights{fetched}")
    if model.disk:
        yield Check(f"disk {model.name}", "fail", model.disk, "see `autoglm pull --dry-run`")


def gib(size: float) -> str:
    """Return a size as `15.3 GiB`."""
    return f"{size / GIB:.1f} GiB"
