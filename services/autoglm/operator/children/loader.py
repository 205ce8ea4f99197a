"""The loader: the Job that fills the cache once, its claim and its network policy. Pure.

The same container is an init container where each node has a cache of its own. It runs in the image
of the replicas, with the environment of the engine, so that credentials, proxies and certificates
are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from autoglm.api import Spec
from autoglm.api.labels import COMPONENT, DEPLOYMENT, LOADER, METRICS_PORT, NAME, PRODUCT, WEIGHTS
from autoglm.operator.children.companions import account_name
from autoglm.operator.children.metadata import Body, Context, child, digest, labels
from autoglm.operator.children.pod_defaults import download_environment, download_volumes
from autoglm.operator.children.weights import CACHE, MODELS, downloader, downloads, key_of

CLAIM: Final = "PersistentVolumeClaim"
JOB: Final = "Job"
ENGINE: Final = "engine"
_SHARED_MEMORY: Final = "shm"
# About ten minutes with the Job's exponential back-off.
_ATTEMPTS: Final = 6
# Another attempt fails alike until something changes.
_FINAL_EXIT_CODES: Final = tuple(range(64, 80))
_RESOURCES: Final[Body] = {
    "requests": {"cpu": "500m", "memory": "1Gi"},
    "limits": {"memory": "4Gi"},
}
_OF_CONTAINERS: Final = (
    *("image", "imagePullPolicy", "envFrom", "securityContext"),
    *("terminationMessagePath", "terminationMessagePolicy"),
)
# So that a volume of one zone or node is where the replicas run.
_OF_PODS: Final = (
    *("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks"),
    *("securityContext", "imagePullSecrets", "priorityClassName", "schedulerName"),
    *("nodeSelector", "affinity", "tolerations", "runtimeClassName"),
    *("dnsConfig", "dnsPolicy", "hostAliases"),
)


def claim_name(context: Context) -> str:
    """Return the claim of the cache: the user's, or the operator's own."""
    return context.spec.model.cache.claim_name or f"{context.name}-weights"


def owns_claim(spec: Spec) -> bool:
    return spec.model.cache.type == "pvc" and spec.model.cache.size is not None


def claim(context: Context) -> Body:
    """Return the claim that the operator creates."""
    cache = context.spec.model.cache
    spec: Body = {
        "accessModes": [cache.access_mode or "ReadWriteMany"],
        "resources": {"requests": {"storage": cache.size}},
    }
    if cache.storage_class_name:
        spec["storageClassName"] = cache.storage_class_name
    return child(context, "v1", CLAIM, claim_name(context)) | {"spec": spec}


def needs_job(spec: Spec) -> bool:
    """Return whether a Job fills the cache before pods are created."""
    return downloader(spec) == "job" and bool(downloads(spec))


def job(context: Context, template: Body) -> Body:
    """Return the Job for a complete pod template. Another template is another Job, as they are
    immutable."""
    pod = _pod(context, template["spec"])
    body = child(context, "batch/v1", JOB, f"{context.name}-load-{digest(pod)[:5]}")
    body["metadata"]["labels"][WEIGHTS] = key_of(context.spec)
    body["spec"] = {
        "backoffLimit": _ATTEMPTS,
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": LOADER,
                        "operator": "In",
                        "values": list(_FINAL_EXIT_CODES),
                    },
                },
            ]
        },
        "template": {"metadata": {"labels": loader_labels(context)}, "spec": pod},
    }
    return body


def init_container(context: Context, engine: Body) -> Body:
    """Return the init container that fills the cache of a node or a pod, whose resources are within
    those of the engine."""
    own = engine.get("resources", {})
    kept = {
        kind: {name: q for name, q in own[kind].items() if name in ("cpu", "memory")}
        for kind in ("requests", "limits")
        if kind in own
    }
    return _container(context, engine) | ({"resources": kept} if any(kept.values()) else {})


def loader_labels(context: Context) -> dict[str, str]:
    """Return the labels of the pods of a Job, which no Service selects."""
    return labels(context.name) | {COMPONENT: LOADER}


def loader_selector(name: str) -> dict[str, str]:
    return {NAME: PRODUCT, COMPONENT: LOADER, DEPLOYMENT: name}


def _pod(context: Context, pod: Mapping[str, Any]) -> Body:
    engine = next(c for c in pod["containers"] if c["name"] == ENGINE)
    kept = {field: pod[field] for field in _OF_PODS if field in pod}
    volumes = [v for v in pod["volumes"] if v["name"] != _SHARED_MEMORY]
    names = {volume["name"] for volume in volumes}
    volumes += [v for v in download_volumes(context)[0] if v["name"] not in names]
    container = _container(context, engine) | {"resources": _RESOURCES}
    return {
        "serviceAccountName": account_name(context.name),
        **kept,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": volumes,
    }


def _container(context: Context, engine: Mapping[str, Any]) -> Body:
    spec = context.spec
    kept = {field: engine[field] for field in _OF_CONTAINERS if field in engine}
    flags = [f"--uri={one.uri}" for one in downloads(spec)]
    if revision := next((one.revision for one in downloads(spec) if one.revision), None):
        flags.append(f"--revision={revision}")
    return {
        "name": LOADER,
        **kept,
        "command": ["autoglm"],
        "args": ["load", f"--directory={MODELS}", *(flag.replace("$(", "$$(") for flag in flags)],
        "env": _environment(context, engine.get("env") or ()),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "volumeMounts": _mounts(context, engine.get("volumeMounts") or ()),
    }


def _environment(context: Context, of_engine: Iterable[Body]) -> list[Body]:
    own = {entry["name"]: entry for entry in of_engine}
    given = {entry.name for entry in context.spec.engine.env}
    if "HF_HUB_OFFLINE" not in given:
        own.pop("HF_HUB_OFFLINE", None)
    return list(
        {
            **own,
            **{k: v for k, v in download_environment(context).items() if k not in given},
        }.values()
    )


def _mounts(context: Context, of_engine: Iterable[Body]) -> list[Body]:
    kept = {m["mountPath"]: m for m in of_engine if m["name"] != _SHARED_MEMORY}
    kept[CACHE] = {"name": "cache", "mountPath": CACHE}
    return list(
        {m["mountPath"]: m for m in (*kept.values(), *download_volumes(context)[1])}.values()
    )
