"""Remedies for failed replicas in terms of the resource's fields. Pure.

The engine's own messages name its flags instead. Called by `autoglm status` and `autoglm explain`.
"""

from __future__ import annotations

from typing import Final

from autoglm.api.labels import COMPONENT, GATEWAY
from autoglm.api.own_images import pull_remedy
from autoglm.common.process import ExitCode
from autoglm.operator.status.causes import creation_remedy, placement_remedy

BY_EXIT_CODE: Final = {
    ExitCode.BAD_SETTINGS: "correct spec.engine.args or the field in the message",
    ExitCode.BAD_MANIFEST: "correct the fields in the message",
    ExitCode.ADDRESS_IN_USE: "remove containers that use ports 50051, 8000 or 9090 from "
    "spec.template",
    ExitCode.MODEL_NOT_FOUND: "check spec.model.uri, spec.model.revision, and the hub's token "
    "(HF_TOKEN; MODELSCOPE_API_TOKEN for ms://) in spec.engine.env; a path must be on a volume "
    "that spec.template mounts",
    ExitCode.GATED_MODEL: "accept the licence on the model's page of the hub, and set HF_TOKEN "
    "(MODELSCOPE_API_TOKEN for ms://) in spec.engine.env to a token of the same account",
    ExitCode.UNTRUSTED_CODE: "read the model's code, and set trust_remote_code: true in "
    "spec.engine.args, or choose a model that vLLM knows",
    ExitCode.DISK_FULL: "raise ephemeral-storage in spec.resources, or cache the weights on a "
    "larger volume by spec.model.cache",
    ExitCode.START_STALLED: "check the log; raise spec.startup.stallSeconds if the start "
    "only takes long",
    ExitCode.HUB_UNREACHABLE: "none if the hub responds again; if it recurs, check egress to it, "
    "HTTPS_PROXY and HF_ENDPOINT (MODELSCOPE_ENDPOINT for ms://) in spec.engine.env",
    ExitCode.NOT_A_MODEL: "set spec.model.uri to the directory of a checkpoint with config.json "
    "that vLLM supports",
    ExitCode.UNSUPPORTED_QUANTIZATION: "omit spec.model.quantization, or set a method that device "
    "and checkpoint support",
    ExitCode.OUT_OF_MEMORY: "lower spec.engine.gpuMemoryUtilization or spec.model.maxModelLen, "
    "quantize, raise spec.engine.parallelism.tensor, or raise spec.resources; "
    "`autoglm size` computes what the model needs",
    ExitCode.MISSING_PACKAGE: "set spec.engine.image to an image with the package",
    ExitCode.UNSUPPORTED_DEVICE: "request nvidia.com/gpu in spec.resources.limits, or set "
    "spec.engine.image to the CPU image",
    ExitCode.CONTEXT_TOO_LONG: "lower or omit spec.model.maxModelLen",
    ExitCode.START_FAILED: "check the log for the cause",
    ExitCode.MISSING_COMPILER: "set spec.engine.image to an image with g++, or omit "
    "enforce-eager: false in spec.engine.args",
    ExitCode.ENGINE_DEAD: "none if the replica is ready again; if it recurs, check the log",
}
_GATEWAY = f"check that the gateway runs: kubectl get pods -A -l {COMPONENT}={GATEWAY}"
_LOG = "check the log of the last run"
_PRECHECK = "autoglm precheck -f MANIFEST compares it with the nodes"
# The operator's reasons (docs/conditions.md).
BY_REASON: Final = {
    "ImagePullBackOff": "check spec.engine.image (or the operator's image settings), access to "
    "the registry, and imagePullSecrets in spec.template",
    "InvalidImageName": "correct spec.engine.image, which is not an image reference",
    "OOMKilled": "raise the memory in spec.resources.limits, or lower spec.model.maxModelLen; "
    "`autoglm size` computes what the model needs",
    "CreateContainerConfigError": "create the Secret or ConfigMap in spec.engine.env",
    "FailedMount": "check the volumes in spec.model.cache and spec.template",
    "NoResources": "set nvidia.com/gpu, or cpu and memory, in spec.resources",
    "Terminating": "remove the finalizers in the message by the controllers that set them",
    "Rejected": "correct the field in the message",
    "InvalidSpec": "correct the fields in the message",
    "Conflict": "omit the field in the other controller, or set it in this resource",
    "ContainerFailed": _LOG,
    "SidecarFailed": _LOG,
    "NoGateway": _GATEWAY,
    "NotInEveryGateway": _GATEWAY,
}


def remedy(reason: str, exit_code: int | None = None, message: str = "") -> str:
    """Return the remedy for a failure, empty if only its message helps."""
    if exit_code in set(ExitCode):
        return BY_EXIT_CODE[ExitCode(exit_code)]
    match reason:
        case "ImagePullBackOff" if own := pull_remedy(message):
            return own
        case "FailedCreate" | "ReplicaSetCreateError":
            return creation_remedy(message)
        case "Unschedulable":
            return f"{placement_remedy(message)}; {_PRECHECK}"
    return BY_REASON.get(reason, "")
