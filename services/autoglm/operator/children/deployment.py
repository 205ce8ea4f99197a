"""The Deployment of one revision: its pod template, and its replicas. Pure.

The pod template runs the engine's container under the restricted profile; `template` merges
spec.template into it. A revision's template never changes, so Kubernetes' own rolling update never
starts: a rollout replaces one Deployment by another, and `rollout` computes their replicas.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Final

from autoglm.api import Problem, Spec
from autoglm.api.engine_flags import engine_flags
from autoglm.api.labels import GPU, GRPC_PORT, HTTP_PORT, METRICS_PORT, REVISION
from autoglm.api.quantities import amount
from autoglm.api.uri import for_engine
from autoglm.operator.children.companions import account_annotations, account_name, telemetry
from autoglm.operator.children.loader import ENGINE, claim_name, init_container
from autoglm.operator.children.metadata import Body, Context, child, labels, revision_of, selector
from autoglm.operator.children.pod_defaults import (
    download_environment,
    download_volumes,
    placement,
)
from autoglm.operator.children.weights import (
    CACHE,
    downloader,
    downloads,
    engine_downloads,
    places,
    source_volumes,
    uses_modelscope,
)
from autoglm.operator.types import Raw

_USER = 10001
_CONFIG_HASH = "autoglm.io/config"
_MOST_DEVICE_GIB = 320
_EVERY_ADDRESS: Final = {"IPv4": "0.0.0.0", "IPv6": "[::]"}
# Gateways receive EndpointSlices within this time, and until then the pod keeps serving.
_PRE_STOP_SECONDS = 3
# For cancelling open requests and closing the engine, after the grace period.
_CLOSING_SECONDS = 10
_STARTUP_PERIOD_SECONDS = 2
# Kubernetes' value for none: a start that makes progress may take any time.
_NO_DEADLINE_SECONDS = 2**31 - 1
_CONTAINER_SECURITY: Final[Body] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Final[Body] = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _USER,
    "fsGroup": _USER,
    # Changing the owner of every file of a large volume would take minutes at each start.
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def deployment(context: Context, template: Body, revision: str, replicas: int) -> Body:
    """Return the Deployment of a revision."""
    metadata = template["metadata"]
    labelled = metadata | {"labels": metadata["labels"] | {REVISION: revision}}
    body = child(context, "apps/v1", "Deployment", f"{context.name}-{revision}")
    body["metadata"]["labels"][REVISION] = revision
    body["spec"] = {
        "replicas": replicas,
        "selector": {"matchLabels": selector(context.name) | {REVISION: revision}},
        # If a user edits the template, no replica terminates before another is ready.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
        "revisionHistoryLimit": 0,
        "progressDeadlineSeconds": _NO_DEADLINE_SECONDS,
        "template": template | {"metadata": labelled},
    }
    return body


def scaled(live: Raw, replicas: int) -> Body:
    """Return the Deployment of an earlier revision with another number of replicas.

    Its spec is not known any more, so the live object is used: omitting a field would remove it.
    """
    metadata = live["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "ownerReferences")}
    spec = copy.deepcopy(dict(live["spec"])) | {"replicas": replicas}
    spec["template"].get("metadata", {}).pop("creationTimestamp", None)
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": copy.deepcopy(kept),
        "spec": spec,
    }


def pod_template(context: Context) -> Body:
    """Return the pod template without spec.template and without the label of the revision."""
    spec = context.spec
    grace = math.ceil(spec.drain.grace_period_seconds)
    pre_stop = min(_PRE_STOP_SECONDS, grace)
    volumes: list[Body] = [{"name": "tmp", "emptyDir": {}}]
    if spec.engine.type == "vllm":
        memory = {"medium": "Memory", "sizeLimit": spec.engine.shared_memory}
        volumes += [{"name": "shm", "emptyDir": memory}, {"name": "cache", **_cache(context)}]
    if engine_downloads(spec) or (downloader(spec) == "init" and downloads(spec)):
        volumes += download_volumes(context)[0]
    volumes += source_volumes(spec)[0]
    engine = _engine(context, pre_stop)
    loaders = [init_container(context, engine)] if downloader(spec) == "init" else []
    return {
        "metadata": {
            "labels": labels(context.name),
            # Webhooks that give pods an identity read the account's annotations at creation only.
            "annotations": {
                _CONFIG_HASH: revision_of(telemetry(context) | account_annotations(context))
            },
        },
        "spec": {
            "serviceAccountName": account_name(context.name),
            "automountServiceAccountToken": False,
            # Variables of every Service would fill the environment, AUTOGLM_* names among them.
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "terminationGracePeriodSeconds": pre_stop + grace + _CLOSING_SECONDS,
            "topologySpreadConstraints": [
                {
                    "topologyKey": key,
                    "maxSkew": 1,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": selector(context.name)},
                }
                for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
            ],
            **({"initContainers": loaders} if loaders and downloads(spec) else {}),
            "containers": [engine],
            "volumes": volumes,
            **placement(context),
        },
    }


def secured(container: Body) -> Body:
    """Return a container of spec.template with defaults that meet the restricted profile."""
    given = container.get("securityContext")
    if given is not None and not isinstance(given, dict):
        return container
    return container | {"securityContext": _CONTAINER_SECURITY | (given or {})}


def _engine(context: Context, pre_stop: int) -> Body:
    spec, settings = context.spec, context.settings
    default = settings.echo_image if spec.engine.type == "echo" else settings.inference_image
    flags = _flags(context)
    ports = {"grpc": GRPC_PORT, "http": HTTP_PORT, "metrics": METRICS_PORT}
    mounts: list[Body] = [{"name": "tmp", "mountPath": "/tmp"}]
    if spec.engine.type == "vllm":
        cache: Body = {"name": "cache", "mountPath": CACHE}
        # A loader has written it, and replicas share it.
        read_only = {"readOnly": True} if downloads(spec) and not engine_downloads(spec) else {}
        mounts += [{"name": "shm", "mountPath": "/dev/shm"}, cache | read_only]
    container: Body = {
        "name": ENGINE,
        "image": spec.engine.image or default,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["autoglm"],
        # Kubernetes would expand $(NAME) in arguments.
        "args": ["inference", *(flag.replace("$(", "$$(") for flag in flags)],
        "env": _environment(context),
        "envFrom": [{"configMapRef": {"name": context.name}}],
        "ports": [{"name": n, "containerPort": p, "protocol": "TCP"} for n, p in ports.items()],
        "resources": resources(spec),
        "securityContext": _CONTAINER_SECURITY,
        # The engine's own diagnosis; without one, the end of the log.
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            *mounts,
            *(download_volumes(context)[1] if engine_downloads(spec) else ()),
            *source_volumes(spec)[1],
        ],
        **_probes(spec.startup.stall_seconds),
        "lifecycle": {"preStop": {"sleep": {"seconds": pre_stop}}} if pre_stop else {},
    }
    return {key: value for key, value in container.items() if value}


def _probes(stall_seconds: int) -> Body:
    """Return the probes. Liveness holds while the start makes progress, which no number of failures
    could express; readiness waits for the model."""
    # An engine's imports may take all of a small machine.
    page = {"path": "/health/live", "port": METRICS_PORT}
    alive: Body = {"httpGet": page, "timeoutSeconds": 10}
    attempts = math.ceil(stall_seconds / _STARTUP_PERIOD_SECONDS)
    startup = {"periodSeconds": _STARTUP_PERIOD_SECONDS, "failureThreshold": attempts}
    health: Body = {"grpc": {"port": GRPC_PORT}, "timeoutSeconds": 5}
    return {
        "startupProbe": alive | startup,
        "readinessProbe": health | {"periodSeconds": 2, "failureThreshold": 5},
        "livenessProbe": alive | {"periodSeconds": 10, "failureThreshold": 6},
    }


def _flags(context: Context) -> tuple[str, ...]:
    """Return the engine's flags, with the paths at which pods find what is not where it says."""
    found, resource = places(context.spec), context.resource
    if resource.spec.model.uri and for_engine(resource.spec.model.uri) in found:
        # A revision is one of the hub.
        model = resource.spec.model.model_copy(update={"revision": None})
        spec = resource.spec.model_copy(update={"model": model})
        resource = resource.model_copy(update={"spec": spec})
    return engine_flags(resource, lambda uri: found.get(uri, uri) if uri else uri)


def _environment(context: Context) -> list[Body]:
    spec, every = context.spec, _EVERY_ADDRESS[context.settings.ip_family]
    own = {
        "AUTOGLM_GRPC_ADDRESS": f"{every}:{GRPC_PORT}",
        "AUTOGLM_HTTP_ADDRESS": f"{every}:{HTTP_PORT}",
        "AUTOGLM_METRICS_ADDRESS": f"{every}:{METRICS_PORT}",
        # The root is read-only, and the image may lack the user.
        "HOME": "/tmp",
        "USER": "autoglm",
        "XDG_CACHE_HOME": "/tmp/.cache",
    }
    if spec.engine.type == "vllm":
        is_loaded = downloads(spec) and not engine_downloads(spec)
        own |= {
            "HF_HOME": "/tmp/huggingface" if is_loaded else f"{CACHE}/huggingface",
            "VLLM_NO_USAGE_STATS": "1",
        }
        if uses_modelscope(spec) and not is_loaded:
            own["MODELSCOPE_CACHE"] = f"{CACHE}/modelscope"
        # The policy blocks the hub then, and requests to it would only time out.
        own |= {} if engine_downloads(spec) else {"HF_HUB_OFFLINE": "1"}
    given = {e.name: e.model_dump(by_alias=True, exclude_none=True) for e in spec.engine.env}
    plain = {name: {"name": name, "value": value} for name, value in own.items()}
    network = download_environment(context) if engine_downloads(spec) else {}
    return list({**plain, **network, **given}.values())


def _cache(context: Context) -> Body:
    spec, cache = context.spec, context.spec.model.cache
    match cache.type:
        case "pvc":
            return {"persistentVolumeClaim": {"claimName": claim_name(context)}}
        case "hostPath":
            return {"hostPath": {"path": cache.path, "type": "DirectoryOrCreate"}}
    return {"emptyDir": {"sizeLimit": cache.size_limit or most_weights(spec)}}


def most_weights(spec: Spec) -> str:
    """Return what the weights of one replica can take at most, so that a download does not fill the
    node's disk: they have to fit into its devices, of which none has more memory."""
    return f"{_MOST_DEVICE_GIB * spec.engine.parallelism.devices}Gi"


def resources(spec: Spec) -> Body:
    """Return requests and limits of the engine's container. GPUs are added for the parallelism
    only if the spec has no device."""
    requests, limits = dict(spec.resources.requests), dict(spec.resources.limits)
    # Kubernetes requires a limit for devices, equal to the request.
    limits |= {k: v for k, v in requests.items() if _is_device(k) and k not in limits}
    if spec.engine.parallelism.devices > 1 and not any(map(_is_device, limits)):
        limits[GPU] = str(spec.engine.parallelism.devices)
    both = {"requests": requests, "limits": limits}
    return {key: value for key, value in both.items() if value}


def requests_nothing(spec: Spec) -> bool:
    """Return whether the scheduler may put a replica that loads a model on any node."""
    if spec.engine.type == "echo" or resources(spec):
        return False
    pod = spec.template.get("spec") or {}
    own = (c for c in pod.get("containers") or () if c.get("name") == ENGINE)
    return not pod.get("resourceClaims") and not any(c.get("resources") for c in own)


def resource_problems(spec: Spec) -> Iterator[Problem]:
    """Yield a problem for fewer GPUs than the parallelism needs."""
    needed = spec.engine.parallelism.devices
    for field in ("limits", "requests"):
        given: Mapping[str, str] = getattr(spec.resources, field)
        for name, quantity in given.items():
            # 0 means no GPU, as for an engine that runs on processor cores.
            if name.endswith("/gpu") and 0 < (amount(quantity) or 0) < needed:
                message = (
                    f"spec.engine.parallelism needs {needed} GPUs for each replica; give as "
                    "many, or lower the parallelism"
                )
                yield Problem(f"spec.resources.{field}.{name}", message, quantity)


def _is_device(name: str) -> bool:
    """Return whether it is an extended resource, whose name has a domain."""
    return "/" in name and not name.startswith("kubernetes.io/")
