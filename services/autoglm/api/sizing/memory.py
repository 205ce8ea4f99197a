"""Estimates the memory that a model needs, and the GPUs that have enough. Pure arithmetic.

vLLM measures the memory when it starts, and uses the rest for the KV cache. Called by `autoglm
size`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from autoglm.api.sizing.shape import BYTES, Shape

GIB = 2**30
UTILIZATION = 0.9
"""Share of a GPU's memory that the engine takes."""
RUNTIME_BYTES = 2 * GIB
"""Further memory on each GPU: context, compiled graphs, activations of one batch."""
_HOST_BYTES = 8 * GIB
_SPLITS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    gib: float
    """Memory as the driver reports it, less than the nominal size."""


GPUS = (
    Gpu("T4 16 GB", 15.0),
    Gpu("L4, A10 24 GB", 22.5),
    Gpu("RTX 4090 24 GB", 24.0),
    Gpu("A100 40 GB", 39.5),
    Gpu("L40S 48 GB", 45.0),
    Gpu("A100, H100 80 GB", 79.2),
    Gpu("H200 141 GB", 140.0),
    Gpu("B200 180 GB", 178.0),
    Gpu("MI300X 192 GB", 191.0),
)


@dataclass(frozen=True, slots=True)
class Load:
    """Requirements on one replica."""

    precision: str
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
    concurrency: int = 0
    """Concurrent requests of full length that fit."""


@dataclass(frozen=True, slots=True)
class Host:
    """Resources that a replica's pod should request besides the GPUs."""

    cpu: int
    memory: float
    disk: float


def need(shape: Shape, load: Load) -> Need:
    """Return the memory of one replica."""
    one = shape.kv_bytes(load.context, load.kv_precision)
    return Need(
        weights=shape.parameters * BYTES[load.precision],
        kv_cache=one * load.concurrency,
        kv_token=shape.kv_bytes(1, load.kv_precision),
    )


def fits(shape: Shape, load: Load) -> list[Fit]:
    """Return, for each known GPU, the smallest number that fits."""
    return [_fit(gpu, shape, load) for gpu in GPUS]


def host(shape: Shape, load: Load, gpus: int) -> Host:
    """Return the host's resources; weights pass through its memory, and each GPU needs cores."""
    weights = shape.parameters * BYTES[load.precision]
    return Host(cpu=2 + 2 * gpus, memory=weights + _HOST_BYTES, disk=1.1 * weights)


def _fit(gpu: Gpu, shape: Shape, load: Load) -> Fit:
    weights = shape.parameters * BYTES[load.precision]
    for split in _SPLITS:
        if shape.heads % split:
            continue
        # With more GPUs than KV heads, heads are copied.
        share = ceil(shape.kv_heads / split) / shape.kv_heads
        request = shape.kv_bytes(load.context, load.kv_precision) * share
        fixed = weights / split + RUNTIME_BYTES
        room = gpu.gib * GIB * UTILIZATION - fixed
        if room >= request * load.concurrency:
            most = int(room // request) if request else load.concurrency
            return Fit(gpu, split, fixed + request * load.concurrency, most)
    return Fit(gpu, None)
