"""The GPUs of this machine, and which of them each replica of `autoglm up` gets.

NVML and AMD SMI list them; the choice is pure. On a machine without GPUs nothing is chosen. Used by
`runtime` at each start of a replica, and by the commands before anything starts.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_CUDA, _HIP = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
_VARIABLES = (_CUDA, _HIP, "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True)
class Gpus:
    """Devices by the ids that `variable` lists them with, in order."""

    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    variable: str = _CUDA

    def place(self, count: int, taken: Iterable[str]) -> tuple[str, ...]:
        """Return `count` devices that the fewest replicas have, the first ones among equals.

        `taken` has a device once for each replica that has it. Fewer where there are fewer.
        """
        replicas = Counter(taken)
        order = {each: place for place, each in enumerate(self.ids)}
        found = sorted(self.ids, key=lambda each: (replicas[each], order[each]))[:count]
        return tuple(sorted(found, key=order.__getitem__))

    def too_few(self, wanted: Mapping[str, tuple[int, int]]) -> str:
        """Return what to do where the replicas want more devices; empty where there are enough.

        `wanted` has replicas, and the devices of each, by model.
        """
        total = sum(replicas * each for replicas, each in wanted.values())
        if not self.ids or total <= len(self.ids):
            return ""
        counts = " and ".join(
            f"{name} {replicas} x {each}" for name, (replicas, each) in wanted.items() if replicas
        )
        return (
            f"too few GPUs: {counts} is {total}, and this machine has {len(self.ids)} "
            f"({', '.join(dict.fromkeys(self.names))}); lower spec.replicas or "
            "spec.engine.parallelism"
        )


NO_GPUS = Gpus()


def uses_gpus(variables: Iterable[str]) -> bool:
    """Return whether a process with these variables leaves the choice of devices to us."""
    return not set(variables) & set(_VARIABLES)


def find(environment: Mapping[str, str] = os.environ) -> Gpus:
    """Return the devices that processes may use: those that the environment lists, or else all."""
    names, variable = _nvidia(), _CUDA
    if not names:
        names, variable = _amd(), _HIP
    if not names:
        return NO_GPUS
    listed = environment.get(variable)
    if listed is None:
        return Gpus(tuple(map(str, range(len(names)))), tuple(names), variable)
    ids = tuple(each.strip() for each in listed.split(",") if each.strip())
    known = [names[int(i)] if i.isdecimal() and int(i) < len(names) else names[0] for i in ids]
    return Gpus(ids, tuple(known), variable)


def _nvidia() -> Sequence[str]:
    """Return the names of NVIDIA's devices by index; none without a driver."""
    with suppress(ImportError):
        nvml: Any = importlib.import_module("pynvml")
        with suppress(nvml.NVMLError):
            nvml.nvmlInit()
            try:
                handles = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
                return [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]
            finally:
                nvml.nvmlShutdown()
    return ()


def _amd() -> Sequence[str]:
    """Return the names of AMD's devices by index; none without ROCm."""
    with suppress(ImportError):
        smi: Any = importlib.import_module("amdsmi")
        with suppress(smi.AmdSmiException):
            smi.amdsmi_init()
            try:
                handles = smi.amdsmi_get_processor_handles()
                return [str(smi.amdsmi_get_gpu_asic_info(h)["market_name"]) for h in handles]
            finally:
                smi.amdsmi_shut_down()
    return ()
