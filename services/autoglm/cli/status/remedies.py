"""What to do about a failed replica, in the words of the resource. Pure.

The engine's own message speaks of its flags; whoever reads a status has a manifest before them.
Called by `autoglm status` and `autoglm explain`.
"""

from __future__ import annotations

from typing import Final

from autoglm.api.labels import COMPONENT, GATEWAY
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
    ExitCode.MISSING_COMPILER: "use an image with g++, or leave enforce-eager: false out of "
    "spec.engine.args",
    ExitCode.ENGINE_DEAD: "nothing, if the replica is back; if it happens again, read the log",
}
_GATEWAY = f"see whether the gateway runs: kubectl get pods -A -l {COMPONENT}={GATEWAY}"
_LOG = "read the log of the last run"
# The operator's reasons (docs/conditions.md).
BY_REASON: Final = {
    "ImagePullBackOff": "check spec.engine.image (or the operator's image settings), the way to "
    "the registry, and imagePullSecrets in spec.template",
    "InvalidImageName": "correct spec.engine.image, which is no image reference",
    "OOMKilled": "raise the memory in spec.resources.limits, or lower spec.model.maxModelLen; "
    "`autoglm size` computes what the model needs",
    "Unschedulable": "compare spec.resources and spec.template with what nodes have: "
    "autoglm precheck -f MANIFEST",
    "CreateContainerConfigError": "create the Secret or ConfigMap that spec.engine.env names",
    "FailedCreate": "raise the quota or correct spec.template, as the message says",
    "ReplicaSetCreateError": "raise the quota, as the message says",
    "FailedMount": "check the volumes that spec.model.cache and spec.template name",
    "Refused": "correct the field that the message names",
    "InvalidSpec": "correct the fields that the message names",
    "Conflict": "let the other applier leave the field out, or set it in this resource",
    "ContainerFailed": _LOG,
    "SidecarFailed": _LOG,
    "NoGateway": _GATEWAY,
    "NotInEveryGateway": _GATEWAY,
}


def remedy(reason: str, exit_code: int | None = None) -> str:
    """Empty where only the message itself can help."""
    if exit_code in set(ExitCode):
        return BY_EXIT_CODE[ExitCode(exit_code)]
    return BY_REASON.get(reason, "")
