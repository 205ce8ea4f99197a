"""Checks pod templates against the restricted Pod Security Standard. Pure.

https://kubernetes.io/docs/concepts/security/pod-security-standards/. The API server enforces it
only in namespaces with its label; the operator enforces it everywhere. Volumes that the operator
adds are not checked: a cache on the node has a field and a flag of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from autoglm.api import Problem

VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
# Sources of a projected volume. The others (serviceAccountToken, podCertificate) are credentials
# of the pod's account.
PROJECTED = frozenset({"clusterTrustBundle", "configMap", "downwardAPI", "secret"})
SECCOMP = ("RuntimeDefault", "Localhost")
_SELINUX = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HOOKS = ("postStart", "preStop")


def violations(
    spec: Mapping[str, Any], path: str, own_volumes: Collection[Any]
) -> Iterator[Problem]:
    """Yield every field of a pod's spec that the profile forbids. `path` is that of the spec."""
    yield from _shared(spec.get("securityContext"), f"{path}.securityContext")
    for volume in (v for v in spec.get("volumes", []) if v not in own_volumes):
        where = f"{path}.volumes[name={volume['name']}]"
        for kind in sorted(volume.keys() - VOLUMES - {"name"}):
            message = f"such volumes are not allowed; use one of {', '.join(sorted(VOLUMES))}"
            yield Problem(f"{where}.{kind}", message, volume[kind])
        for index, source in enumerate(_mappings(_at(volume, "projected", "sources"))):
            for kind in sorted(source.keys() - PROJECTED):
                message = (
                    "replicas get no credential of the Kubernetes API; remove it. A projected "
                    f"volume may have {', '.join(sorted(PROJECTED))}"
                )
                yield Problem(f"{where}.projected.sources[{index}].{kind}", message, source[kind])
    for field in ("containers", "initContainers"):
        for container in spec.get(field, []):
            yield from _container(container, f"{path}.{field}[name={container['name']}]")


def _container(container: Mapping[str, Any], path: str) -> Iterator[Problem]:
    security, where = container.get("securityContext"), f"{path}.securityContext"
    yield from _shared(security, where)
    if isinstance(security, Mapping):
        yield from _privileges(security, where)
    for port in _mappings(container.get("ports")):
        if port.get("hostPort"):
            message = "replicas take no port of their node; remove it and use the Service"
            yield Problem(f"{path}.ports.hostPort", message, port["hostPort"])
    handlers = [(probe,) for probe in PROBES] + [("lifecycle", hook) for hook in HOOKS]
    for keys in handlers:
        for handler in ("httpGet", "tcpSocket"):
            if host := _at(container, *keys, handler, "host"):
                where = ".".join((path, *keys, handler, "host"))
                yield Problem(where, "must not be set; remove it", host)


def _privileges(security: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if security.get("privileged"):
        yield Problem(f"{path}.privileged", "must be false; remove it", security["privileged"])
    if security.get("allowPrivilegeEscalation") is not False:
        value = security.get("allowPrivilegeEscalation")
        yield Problem(f"{path}.allowPrivilegeEscalation", "must be false; remove it", value)
    if "ALL" not in _texts(_at(security, "capabilities", "drop")):
        value = security.get("capabilities")
        yield Problem(f"{path}.capabilities.drop", "must hold ALL; remove it", value)
    if added := _texts(_at(security, "capabilities", "add")) - {"NET_BIND_SERVICE"}:
        message = "no capability may be added but NET_BIND_SERVICE; remove it"
        yield Problem(f"{path}.capabilities.add", message, sorted(added))
    if security.get("procMount", "Default") != "Default":
        yield Problem(f"{path}.procMount", "must be Default; remove it", security["procMount"])


def _shared(security: Any, path: str) -> Iterator[Problem]:
    """Yield violations of fields that pods and containers share."""
    if security is None:
        return
    if not isinstance(security, Mapping):
        yield Problem(path, "must be a mapping", security)
        return
    if security.get("runAsNonRoot", True) is not True:
        yield Problem(f"{path}.runAsNonRoot", "must be true; remove it", security["runAsNonRoot"])
    if security.get("runAsUser") == 0:
        yield Problem(f"{path}.runAsUser", "must not be root; set another user or remove it", 0)
    profile = _at(security, "seccompProfile", "type")
    if profile is not None and profile not in SECCOMP:
        message = f"must be one of {', '.join(SECCOMP)}; remove it"
        yield Problem(f"{path}.seccompProfile.type", message, profile)
    linux = security.get("seLinuxOptions") or {}
    if not isinstance(linux, Mapping) or linux.get("user") or linux.get("role"):
        yield Problem(f"{path}.seLinuxOptions", "may have type and level only", linux)
    elif linux.get("type", "") not in _SELINUX:
        yield Problem(f"{path}.seLinuxOptions.type", "must be a container's; remove it", linux)
    if _at(security, "appArmorProfile", "type") == "Unconfined":
        message = "must be RuntimeDefault or Localhost; remove it"
        yield Problem(f"{path}.appArmorProfile.type", message, "Unconfined")
    for field in ("sysctls", "windowsOptions"):
        if security.get(field):
            yield Problem(f"{path}.{field}", "is not allowed; remove it", security[field])


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> set[str]:
    return {str(v) for v in value} if isinstance(value, list) else set()


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []
