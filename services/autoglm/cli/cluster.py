"""The Kubernetes API for the commands: apply, read, and plain requests.

Maps errors to ClusterError, whose messages contain the remedy. Never retries a request.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, cast

import click
import msgspec
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from autoglm.api.deployment import KIND
from autoglm.api.shallow import decoded
from autoglm.kube.kinds import RESOURCE, Key
from autoglm.kube.transport import APPLY, JSON

FIELD_MANAGER = "autoglm-cli"
NO_QUERY: Mapping[str, str] = MappingProxyType({})
_TIMEOUT_SECONDS = 30.0
_decoder = msgspec.json.Decoder()


class ClusterError(click.ClickException):
    """A failed request to the API server; the command exits with 1."""

    def __init__(self, reason: str, message: str, *, is_temporary: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_temporary = is_temporary
        """Whether the same request may succeed later."""
        self.status = 0
        """HTTP status of the response; 0 without a response."""

    def show(self, file: Any = None) -> None:
        click.echo(f"{self.reason}: {self.message}", file=file, err=True)


class Cluster:
    """The API server of a kubeconfig; inside a pod, the pod's own."""

    def __init__(self, kubeconfig: str | None, context: str | None) -> None:
        try:
            # The client's functions for its configuration carry no types.
            if not kubeconfig and not context and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config()  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(kubeconfig, context)  # type: ignore[no-untyped-call]
            self.namespace = _namespace(kubeconfig, context)
        except (ConfigException, OSError) as error:
            message = f"no cluster is configured: {error}; set --kubeconfig or KUBECONFIG"
            raise ClusterError("NoCluster", message) from error
        retries = client.Configuration.get_default_copy()
        retries.retries = urllib3.Retry(total=0)
        self._api = client.ApiClient(retries)

    def apply(self, manifest: Mapping[str, Any], *, dry_run: bool, force: bool) -> dict[str, Any]:
        """Apply a manifest server-side and return the resource."""
        query = {
            "fieldManager": FIELD_MANAGER,
            "fieldValidation": "Strict",
            "force": "true" if force else "false",
        }
        query |= {"dryRun": "All"} if dry_run else {}
        path, subject = _resource(manifest)
        return self.send("PATCH", path, query, dict(manifest), APPLY, subject=subject)

    def read(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Return the resource of a manifest as it is on the cluster."""
        path, subject = _resource(manifest)
        return self.send("GET", path, subject=subject)

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] = NO_QUERY,
        body: object = None,
        content_type: str = JSON,
        *,
        subject: str = "",
        timeout: float = _TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        """Send a request and return the JSON of the response.

        Messages of errors name the `subject`, or the path without one.
        """
        with _mapped_errors(subject or path):
            request = self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": JSON, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._api.call_api(*request[:4], _request_timeout=timeout)
            # The client's response has no types.
            text: bytes = response.read()  # type: ignore[no-untyped-call]
            if not 200 <= response.status < 300:
                raise ApiException(
                    status=response.status, reason=response.reason, body=text.decode()
                )
        return cast(dict[str, Any], decoded(_decoder, text))


def _namespace(kubeconfig: str | None, context: str | None) -> str:
    try:
        # Carries no types.
        found = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
        contexts, active = found
    except ConfigException:
        return "default"
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str((chosen or {}).get("context", {}).get("namespace") or "default")


def _resource(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Return the path of a resource, and its name for messages."""
    metadata = manifest["metadata"]
    key = Key(metadata["namespace"], metadata["name"])
    return RESOURCE.path(key.namespace, key.name), str(key)


@contextmanager
def _mapped_errors(subject: str) -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        mapped = _cluster_error(error, subject)
        mapped.status = error.status or 0
        raise mapped from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # Only the innermost cause is specific.
        message = f"the API server is unreachable: {_cause(error)}; check the kubeconfig's server"
        raise ClusterError("NoCluster", message, is_temporary=True) from error


def _cause(error: BaseException) -> BaseException:
    reason = getattr(error, "reason", None)
    return _cause(reason) if isinstance(reason, BaseException) else error


def _cluster_error(error: ApiException, subject: str) -> ClusterError:
    try:
        status = json.loads(error.body or "")
    except ValueError:
        text = str(error.body or error.reason).strip()
    else:
        is_status = isinstance(status, dict)
        text = str(status.get("message") or error.reason) if is_status else str(status)
    if error.status == 401:
        message = "the API server rejected the credentials; log in again"
        return ClusterError("Unauthenticated", message)
    if error.status == 403:
        message = f"{text}; request the permission, or use --namespace"
        return ClusterError("PermissionDenied", message)
    if error.status == 404 and "page not found" in text:
        message = f"the cluster has no {KIND}; install Open-AutoGLM with its CRD first"
        return ClusterError("CrdMissing", message)
    if error.status == 404:
        return ClusterError("NotFound", f"{text}; create it, or choose another --namespace")
    if error.status == 409:
        message = f"{subject}: {text}; omit these fields, or take them over with --force-conflicts"
        return ClusterError("Conflict", message)
    if error.status in (400, 422):
        return ClusterError("Rejected", text)
    message = f"{subject}: {error.status} {text}; retry"
    return ClusterError("ClusterFailed", message, is_temporary=True)
