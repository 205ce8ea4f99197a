"""Puts what the installation gives to every model into a pod. Pure.

Callers add what downloads need where a container downloads. What the resource sets itself wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from autoglm.operator.children.metadata import Body, Context

_CA_VOLUME: Final = "ca-bundle"
_CA_DIRECTORY: Final = "/etc/autoglm/ca"
# By these the clients of hubs and of S3 find certificates.
_CA_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")
_HUB_TOKEN: Final = "HF_TOKEN"


def download_environment(context: Context) -> Mapping[str, Body]:
    """Return the variables of a container that downloads, by name."""
    defaults = context.settings.models
    proxy, bundle, token = defaults.proxy, defaults.ca_bundle, defaults.hub_token
    values = {"HTTPS_PROXY": proxy.https_proxy, "HTTP_PROXY": proxy.http_proxy}
    if any(values.values()):
        values["NO_PROXY"] = proxy.no_proxy
    if bundle.config_map_name:
        values |= dict.fromkeys(_CA_VARIABLES, f"{_CA_DIRECTORY}/{bundle.key}")
    found: dict[str, Body] = {
        name: {"name": name, "value": value} for name, value in values.items() if value
    }
    if token.reaches(context.namespace):
        source = {"secretKeyRef": {"name": token.secret_name, "key": token.key}}
        found[_HUB_TOKEN] = {"name": _HUB_TOKEN, "valueFrom": source}
    return found


def download_volumes(context: Context) -> tuple[list[Body], list[Body]]:
    """Return the volumes of a pod that downloads, and their mounts."""
    bundle = context.settings.models.ca_bundle
    if not bundle.config_map_name:
        return [], []
    volume = {"name": _CA_VOLUME, "configMap": {"name": bundle.config_map_name}}
    mount = {"name": _CA_VOLUME, "mountPath": _CA_DIRECTORY, "readOnly": True}
    return [volume], [mount]


def placement(context: Context) -> Body:
    """Return the fields of a pod's spec that every pod of a model gets."""
    defaults = context.settings.models
    fields: dict[str, Any] = {
        "imagePullSecrets": [{"name": name} for name in defaults.image_pull_secrets],
        "tolerations": list(defaults.tolerations),
        "priorityClassName": defaults.priority_class_name,
    }
    return {name: value for name, value in fields.items() if value}
