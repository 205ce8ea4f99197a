"""The pod template of a replica: the engine's container under the restricted profile. Pure.

Builds the template before the overrides of spec.template, which `template` merges.
"""

from __future__ import annotations

import math
from typing import Final

from autoglm.api import Spec
from autoglm.api.engine_flags import engine_flags
from autoglm.api.labels import GRPC_PORT, HTTP_PORT, METRICS_PORT
from autoglm.operator.children.companions import account_name, telemetry
from autoglm.operator.children.metadata import Body, Context, labels, selector
from autoglm.operator.children.resources import resources
from autoglm.operator.children.sources import needs_hub
from autoglm.operator.revision import revision_of

ENGINE: Final = "engine"
USER: Final = 10001
CONFIG_HASH: Final = "autoglm.io/config"
_CACHE = "/cache"
# Gateways receive EndpointSlices within this time, and until then the pod keeps serving.
_PRE_STOP_SECONDS = 3
# For cancelling open requests and closing the engine, after the grace period.
_CLOSING_SECONDS = 10
# A large model loads for most of an hour from slow storage; spec.template can raise it.
STARTUP_SECONDS: Final = 3600
_CONTAINER_SECURITY: Final[Body] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Final[Body] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    # Changing the owner of every file of a large volume would take minutes at each start.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
_SPREAD_OVER = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")


def pod_template(context: Context) -> Body:
    """Return the pod template without spec.template and without the label of the revision."""
    spec = context.spec
    return {
        "metadata": {
            "labels": labels(context.name),
            "annotations": {CONFIG_HASH: revision_of(telemetry(context))},
        },
        "spec": {
            "serviceAccountName": account_name(context.name),
            "automountServiceAccountToken": False,
            # Variables of every Service would fill the environment, AUTOGLM_* names among them.
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "terminationGracePeriodSeconds": termination_grace(spec),
            "topologySpreadConstraints": [_spread(key, context.name) for key in _SPREAD_OVER],
            "containers": [_engine(context)],
            "volumes": _volumes(spec),
        },
    }


def secured(container: Body) -> Body:
    """Return a container of spec.template with defaults that meet the restricted profile."""
    given = container.get("securityContext")
    if given is not None and not isinstance(given, dict):
        return container
    return container | {"securityContext": _CONTAINER_SECURITY | (given or {})}


def termination_grace(spec: Spec) -> int:
    """Return the drain's grace period plus the time before and after it, in seconds."""
    grace = math.ceil(spec.drain.grace_period_seconds)
    return _pre_stop(spec) + grace + _CLOSING_SECONDS


def _pre_stop(spec: Spec) -> int:
    return min(_PRE_STOP_SECONDS, math.ceil(spec.drain.grace_period_seconds))


def _engine(context: Context) -> Body:
    spec, settings = context.spec, context.settings
    default = settings.echo_image if spec.engine.type == "echo" else settings.inference_image
    container: Body = {
        "name": ENGINE,
        "image": spec.engine.image or default,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["autoglm"],
        "args": ["inference", *map(_literal, engine_flags(context.resource, lambda uri: uri))],
        "env": _environment(spec),
        "envFrom": [{"configMapRef": {"name": context.name}}],
        "ports": _ports(),
        "resources": resources(spec),
        "securityContext": _CONTAINER_SECURITY,
        # The engine's own diagnosis; without one, the end of the log.
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(spec),
        **_probes(),
    }
    if seconds := _pre_stop(spec):
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": seconds}}}
    return {key: value for key, value in container.items() if value}


def _literal(argument: str) -> str:
    """Escape $(NAME), which Kubernetes would expand in arguments."""
    return argument.replace("$(", "$$(")


def _environment(spec: Spec) -> list[Body]:
    own = {
        "AUTOGLM_GRPC_ADDRESS": f"0.0.0.0:{GRPC_PORT}",
        "AUTOGLM_HTTP_ADDRESS": f"0.0.0.0:{HTTP_PORT}",
        "AUTOGLM_METRICS_ADDRESS": f"0.0.0.0:{METRICS_PORT}",
        # The root is read-only, and the image may lack the user.
        "HOME": "/tmp",
        "USER": "autoglm",
        "XDG_CACHE_HOME": "/tmp/.cache",
    }
    if spec.engine.type == "vllm":
        own |= {"HF_HOME": f"{_CACHE}/huggingface", "VLLM_NO_USAGE_STATS": "1"}
        # The policy blocks the hub then, and requests to it would only time out.
        own |= {} if needs_hub(spec) else {"HF_HUB_OFFLINE": "1"}
    given = {e.name: e.model_dump(by_alias=True, exclude_none=True) for e in spec.engine.env}
    merged = {name: {"name": name, "value": value} for name, value in own.items()} | given
    return list(merged.values())


def _ports() -> list[Body]:
    ports = {"grpc": GRPC_PORT, "http": HTTP_PORT, "metrics": METRICS_PORT}
    return [{"name": n, "containerPort": p, "protocol": "TCP"} for n, p in ports.items()]


def _probes() -> Body:
    """Return the probes. The startup probe waits for the model; liveness starts after it."""
    health: Body = {"grpc": {"port": GRPC_PORT}, "timeoutSeconds": 5}
    period = 2
    return {
        "startupProbe": health
        | {"periodSeconds": period, "failureThreshold": STARTUP_SECONDS // period},
        "readinessProbe": health | {"periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": health | {"periodSeconds": 10, "failureThreshold": 6},
    }


def _volumes(spec: Spec) -> list[Body]:
    volumes: list[Body] = [{"name": "tmp", "emptyDir": {}}]
    if spec.engine.type == "vllm":
        memory = {"medium": "Memory", "sizeLimit": spec.engine.shared_memory}
        volumes += [{"name": "shm", "emptyDir": memory}, {"name": "cache", **_cache(spec)}]
    return volumes


def _cache(spec: Spec) -> Body:
    cache = spec.model.cache
    match cache.type:
        case "pvc":
            return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
        case "hostPath":
            return {"hostPath": {"path": cache.path, "type": "DirectoryOrCreate"}}
    return {"emptyDir": {"sizeLimit": cache.size_limit} if cache.size_limit else {}}


def _mounts(spec: Spec) -> list[Body]:
    paths = {"tmp": "/tmp"}
    if spec.engine.type == "vllm":
        paths |= {"shm": "/dev/shm", "cache": _CACHE}
    return [{"name": name, "mountPath": path} for name, path in paths.items()]


def _spread(key: str, name: str) -> Body:
    return {
        "topologyKey": key,
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(name)},
    }
