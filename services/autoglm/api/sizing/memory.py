"""How much memory a model needs, and which GPUs have it. Pure arithmetic over a model's shape.

An estimate before anything runs: vLLM measures by itself when it starts, and takes what is left for
the KV cache. Called by `autoglm size`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from autoglm.api.sizing.shape import BYTES, Shape

GIB = 2**30
UTILIZATION = 0.9
"""Share of a GPU's memory that the engine takes."""
RUNTIME_BYTES = 2 * GIB
"""What each GPU needs besides: context, compiled graphs, activations of one batch."""
_HOST_BYTES = 8 * GIB
_SPLITS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    gib: float
    """As the driver reports it, which is less than what is on the box."""


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
    """What is asked of one replica."""

    precision: str
    kv_precision: str
    context: int
    """Tokens of prompt and answer together, of each request."""
    concurrency: int
    """Requests at the same time."""


@dataclass(frozen=True, slots=True)
class Need:
    """Memory of one replica, in bytes, on however many devices."""

    weights: float
    kv_cache: float
    kv_token: float
    """KV cache of one more token."""

    @property
    def total(self) -> float:
        return self.weights + self.kv_cache + RUNTIME_BYTES


@dataclass(frozen=True, slots=True)
class Fit:
    """A kind of GPU, and how many of them one replica needs."""

    gpu: Gpu
    tensor_parallel: int | None
    """None where even the largest split is too little."""
    used: float = 0.0
    """Bytes on each GPU."""
    concurrency: int = 0
    """Requests of full length that fit at the same time."""


@dataclass(frozen=True, slots=True)
class Host:
    """What a replica's pod should ask for beside the GPUs."""

    cpu: int
    memory: float
    disk: float


def need(shape: Shape, load: Load) -> Need:
    one = shape.kv_bytes(load.context, load.kv_precision)
    return Need(
        weights=shape.parameters * BYTES[load.precision],
        kv_cache=one * load.concurrency,
        kv_token=shape.kv_bytes(1, load.kv_precision),
    )


def fits(shape: Shape, load: Load) -> list[Fit]:
    """Every known GPU with the fewest of it that do."""
    return [_fit(gpu, shape, load) for gpu in GPUS]


def host(shape: Shape, load: Load, gpus: int) -> Host:
    """Weights pass through the host's memory once; each GPU wants a core that feeds it."""
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
