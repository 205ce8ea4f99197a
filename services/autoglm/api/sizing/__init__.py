"""Estimates the memory that a model needs, and the GPUs that have enough. Pure arithmetic.

`shape_of` reads the dimensions that determine a model's memory from its config.json; `need`, `fits`
and `host` compute with them. Called by `autoglm size` and `autoglm precheck`.
"""

from autoglm.api.sizing.fields import UnknownModel
from autoglm.api.sizing.fits import (
    GPUS,
    RUNTIME_BYTES,
    UTILIZATION,
    Fit,
    Gpu,
    Host,
    Load,
    Need,
    UnknownGpu,
    best_of,
    fits,
    fits_on,
    gpu_named,
    host,
    need,
)
from autoglm.api.sizing.model import CHECKED, shape_of
from autoglm.api.sizing.shape import BYTES, GIB, Layer, Shape, Weights

__all__ = [
    "BYTES",
    "CHECKED",
    "GIB",
    "GPUS",
    "RUNTIME_BYTES",
    "UTILIZATION",
    "Fit",
    "Gpu",
    "Host",
    "Layer",
    "Load",
    "Need",
    "Shape",
    "UnknownGpu",
    "UnknownModel",
    "Weights",
    "best_of",
    "fits",
    "fits_on",
    "gpu_named",
    "host",
    "need",
    "shape_of",
]
