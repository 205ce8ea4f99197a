"""Computes the memory of a replica, and the GPUs that have enough. Pure arithmetic.

vLLM measures the memory when it starts, and uses the rest for the KV cache.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from autoglm.api.labels import GPU
from autoglm.api.sizing.shape import GIB, Shape

UTILIZATION = 0.9
"""Share of a GPU's memory that the engine takes."""
RUNTIME_BYTES = 2 * GIB
"""Further memory on each GPU: context, compiled graphs, activations of one batch."""
_HOST_BYTES = 8 * GIB
SPLITS = (1, 2, 4, 8)


class UnknownGpu(ValueError):
    """Raised for a GPU that is not in the table, or a name of several."""


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    gib: float
    """Memory as the driver reports it, less than the nominal size."""
    models: tuple[str, ...] = ()
    """Names of the models, for `gpu_named`."""

    @property
    def resource(self) -> str:
        """Name of the resource that the vendor's device plugin offers."""
        return "amd.com/gpu" if self.name.startswith("MI") else GPU


GPUS = (
    Gpu("T4, V100 16 GB", 15.0, ("T4", "V100-16GB", "RTX 4080", "RTX 5080")),
    Gpu("L4, A10 24 GB", 22.5, ("L4", "A10", "A10G", "RTX A5000")),
    Gpu("RTX 4090 24 GB", 24.0, ("RTX 4090", "RTX 3090", "A30")),
    Gpu("RTX 5090 32 GB", 31.8, ("RTX 5090", "V100-32GB")),
    Gpu("A100 40 GB", 39.5, ("A100-40GB",)),
    Gpu("L40S 48 GB", 45.0, ("L40S", "L40", "A40", "RTX A6000", "RTX 6000 Ada")),
    Gpu("A100, H100 80 GB", 79.2, ("A100-80GB", "H100", "H800", "A800")),
    Gpu("RTX PRO 6000 96 GB", 93.6, ("RTX PRO 6000", "H100 NVL", "GH200", "H20")),
    Gpu("H200 141 GB", 140.0, ("H200",)),
    Gpu("B200 180 GB", 178.0, ("B200", "GB200")),
    Gpu("MI300X 192 GB", 191.0, ("MI300X",)),
    Gpu("MI325X 256 GB", 255.0, ("MI325X",)),
    Gpu("B300 288 GB", 268.0, ("B300", "GB300")),
    Gpu("MI355X 288 GB", 287.0, ("MI355X", "MI350X")),
)


def gpu_named(name: str) -> Gpu:
    """Return the GPU of a name such as L4, rtx4090 or A100-80GB. Raises UnknownGpu."""
    sought = _plain(name)
    models = {model: gpu for gpu in GPUS for model in gpu.models}
    for model, gpu in models.items():
        if _plain(model) == sought:
            return Gpu(model, gpu.gib)
    near = [model for model in models if sought and sought in _plain(model)]
    if len(near) == 1:
        return Gpu(near[0], models[near[0]].gib)
    known = ", ".join(near or models)
    raise UnknownGpu(
        f"{name!r} may be {known}; give one of these"
        if near
        else f"{name!r} is not in the table of GPUs, which has {known}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]|nvidia|geforce|amd|instinct", "", name.lower())


@dataclass(frozen=True, slots=True)
class Load:
    """Requirements on one replica."""

    precision: str | None
    """Precision of the served weights; None: as stored."""
    kv_precision: str
    context: int
    """Tokens of prompt and completion together of each request."""
    concurrency: int
    """Concurrent requests."""


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of one replica, in bytes, in total over its devices."""

    weights: float
    kv_cache: float
    kv_token: float
    """KV cache of one token."""

    @property
    def total(self) -> float:
        return self.weights + self.kv_cache + RUNTIME_BYTES


@dataclass(frozen=True, slots=True)
class Fit:
    """A GPU model, and how many of them one replica needs."""

    gpu: Gpu
    tensor_parallel: int | None
    """None if the model does not fit even with the largest split."""
    used: float = 0.0
    """Bytes on each GPU."""
    concurrency: int | None = None
    """Concurrent requests of full length that fit; None: their number takes no memory."""


@dataclass(frozen=True, slots=True)
class Host:
    """Resources that a replica's pod should request besides the GPUs."""

    cpu: int
    memory: float
    disk: float


def need(shape: Shape, load: Load) -> Need:
    """Return the memory of one replica."""
    one = shape.kv_bytes(load.context, load.kv_precision)
    token = sum(layer.numbers for layer in shape.layers)
    return Need(
        weights=shape.weight_bytes(load.precision),
        kv_cache=one * load.concurrency,
        kv_token=shape.kv_bytes(1, load.kv_precision) if token else 0.0,
    )


def fits(shape: Shape, load: Load) -> list[Fit]:
    """Return, for each known GPU, the smallest number that fits."""
    return [_fit(gpu, shape, load) for gpu in GPUS]


def fits_on(gpu: Gpu, shape: Shape, load: Load) -> list[Fit]:
    """Return what each number of GPUs of one model has room for; without those that don't fit."""
    found = (_split(gpu, split, shape, load) for split in SPLITS if not shape.heads % split)
    return [fit for fit in found if fit]


def host(shape: Shape, gpus: int) -> Host:
    """Return the host's resources; weights pass through its memory, and each GPU needs cores."""
    weights = shape.weight_bytes()
    return Host(cpu=2 + 2 * gpus, memory=weights + _HOST_BYTES, disk=1.1 * weights)


def best_of(found: Sequence[Fit]) -> Fit | None:
    """Return the fit with the fewest GPUs, among these the smallest GPU."""
    good = [fit for fit in found if fit.tensor_parallel is not None]
    return min(good, key=lambda fit: (fit.tensor_parallel or 0, fit.gpu.gib), default=None)


def _fit(gpu: Gpu, shape: Shape, load: Load) -> Fit:
    return next(iter(fits_on(gpu, shape, load)), Fit(gpu, None))


def _split(gpu: Gpu, split: int, shape: Shape, load: Load) -> Fit | None:
    # With more GPUs than KV heads, heads are copied.
    share = ceil(shape.kv_heads / split) / shape.kv_heads
    request = shape.kv_bytes(load.context, load.kv_precision) * share
    fixed = shape.weight_bytes(load.precision) / split + RUNTIME_BYTES
    room = gpu.gib * GIB * UTILIZATION - fixed
    if room < request * load.concurrency:
        return None
    most = int(room // request) if request else None
    return Fit(gpu, split, fixed + request * load.concurrency, most)
