"""What to do about a failed replica, in the words of the resource. Pure.

The engine's own message speaks of its flags; whoever reads a status has a manifest before them.
Called by `autoglm status` and `autoglm explain`.
"""

from __future__ import annotations

from typing import Final

from autoglm.inference.diagnosis import ExitCode

BY_EXIT_CODE: Final = {
    ExitCode.BAD_SETTINGS: "correct spec.engine.args or the field that the message names",
    ExitCode.ADDRESS_IN_USE: "take containers that use ports 50051, 8000 or 9090 out of "
    "spec.template",
    ExitCode.MODEL_NOT_FOUND: "check spec.model.uri and spec.model.revision, the way to the hub, "
    "and HF_TOKEN in spec.engine.env; a path must be on a volume that spec.template mounts",
    ExitCode.NOT_A_MODEL: "let spec.model.uri name the directory of a checkpoint with config.json "
    "that vLLM can load",
    ExitCode.UNSUPPORTED_QUANTIZATION: "leave spec.model.quantization out, or choose what device "
    "and checkpoint support",
    ExitCode.OUT_OF_MEMORY: "lower spec.engine.gpuMemoryUtilization or spec.model.maxModelLen, "
    "quantize, raise spec.engine.parallelism.tensor, or give more in spec.resources; "
    "`autoglm size` computes what the model needs",
    ExitCode.MISSING_PACKAGE: "use an image in spec.engine.image that has the package",
    ExitCode.UNSUPPORTED_DEVICE: "ask for nvidia.com/gpu in spec.resources.limits, or use the CPU "
    "image in spec.engine.image",
    ExitCode.CONTEXT_TOO_LONG: "lower spec.model.maxModelLen, or leave it out",
    ExitCode.START_FAILED: "read the log for the cause",
    ExitCode.MISSING_COMPILER: "use an image with g++, or set enforce-eager: true in "
    "spec.engine.args",
    ExitCode.ENGINE_DEAD: "nothing, if the replica is back; if it happens again, read the log",
}
_IMAGE = "check the image's name and tag (spec.engine.image, or the operator's --inference-image), "
_PULL = _IMAGE + "the way to the registry, and imagePullSecrets in spec.template"
BY_REASON: Final = {
    "ErrImagePull": _PULL,
    "ImagePullBackOff": _PULL,
    "InvalidImageName": _IMAGE + "which is no image reference",
    "ErrImageNeverPull": "load the image on the node, or let the operator pull it "
    "(--image-pull-policy)",
    "OOMKilled": "raise the memory in spec.resources.limits, or lower spec.model.maxModelLen; "
    "`autoglm size` computes what the model needs",
    "Unschedulable": "compare spec.resources and spec.template with what nodes have free: "
    "`autoglm precheck -f MANIFEST`",
    "Evicted": "raise the requests in spec.resources to what is used, or free the node's disk or "
    "memory",
    "CreateContainerConfigError": "create the Secret or ConfigMap that spec.engine.env refers to",
    "FailedCreate": "raise the quota or correct spec.template, as the message says",
    "CrashLoopBackOff": "read the log of the last run",
    "InvalidSpec": "correct the fields that the message names",
}
_KILLED = 137


def remedy(reason: str, exit_code: int | None = None) -> str:
    """Empty where only the message itself can help."""
    if exit_code in set(ExitCode):
        return BY_EXIT_CODE[ExitCode(exit_code)]
    if reason not in BY_REASON and exit_code == _KILLED:
        return BY_REASON["OOMKilled"]
    return BY_REASON.get(reason, "")
