"""Kubernetes, as far as `autoglm deploy` needs it: apply a resource, read it again.

Decides in which words a failure reaches the user: every one names what to do. Never retries what
the API server refused.
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

from autoglm.api.deployment import GROUP, KIND, VERSION
from autoglm.api.labels import PLURAL
from autoglm.api.shallow import decoded

FIELD_MANAGER = "autoglm-cli"
NO_QUERY: Mapping[str, str] = MappingProxyType({})
_TIMEOUT_SECONDS = 30.0
_answers = msgspec.json.Decoder()


class ClusterError(click.ClickException):
    """What Kubernetes said no to; exits 1 like every refusal of a server."""

    def __init__(self, reason: str, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.passes = passes
        """Whether the same request may do later."""
        self.status = 0
        """The API server's HTTP code; 0 when none came."""

    def show(self, file: Any = None) -> None:
        click.echo(f"{self.reason}: {self.message}", file=file, err=True)


class Cluster:
    """The API server that a kubeconfig names; inside a pod, the pod's own."""

    def __init__(self, kubeconfig: str | None, context: str | None) -> None:
        try:
            # The client's functions for its configuration carry no types.
            if not kubeconfig and not context and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config()  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(kubeconfig, context)  # type: ignore[no-untyped-call]
            self.namespace = _namespace(kubeconfig, context)
        except (ConfigException, OSError) as error:
            message = f"no cluster is configured: {error}; give --kubeconfig, or set KUBECONFIG"
            raise ClusterError("NoCluster", message) from error
        retries = client.Configuration.get_default_copy()
        retries.retries = urllib3.Retry(total=0)
        self._api = client.ApiClient(retries)
        self._objects = client.CustomObjectsApi(self._api)

    def apply(self, manifest: Mapping[str, Any], *, dry_run: bool, force: bool) -> dict[str, Any]:
        """Server-side apply. The resource as it is now."""
        with _explained(_subject(manifest)):
            applied = self._objects.patch_namespaced_custom_object(
                *_place(manifest),
                body=dict(manifest),
                field_manager=FIELD_MANAGER,
                field_validation="Strict",
                force=force,
                dry_run="All" if dry_run else None,
                _content_type="application/apply-patch+yaml",
                _request_timeout=_TIMEOUT_SECONDS,
            )
        return cast(dict[str, Any], applied)

    def read(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        with _explained(_subject(manifest)):
            found = self._objects.get_namespaced_custom_object(
                *_place(manifest), _request_timeout=_TIMEOUT_SECONDS
            )
        return cast(dict[str, Any], found)

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] = NO_QUERY,
        body: object = None,
        timeout: float = _TIMEOUT_SECONDS,
    ) -> dict[str, Any]:
        """The JSON that a path of the API answers with."""
        with _explained(path):
            request = self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._api.call_api(*request[:4], _request_timeout=timeout)
            # The client's own answer has no types.
            text: bytes = answer.read()  # type: ignore[no-untyped-call]
            if not 200 <= answer.status < 300:
                raise ApiException(status=answer.status, reason=answer.reason, body=text.decode())
        return cast(dict[str, Any], decoded(_answers, text))


def _namespace(kubeconfig: str | None, context: str | None) -> str:
    try:
        # Carries no types.
        found = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
        contexts, active = found
    except ConfigException:
        return "default"
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str((chosen or {}).get("context", {}).get("namespace") or "default")


def _subject(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def _place(manifest: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    metadata = manifest["metadata"]
    return GROUP, VERSION, metadata["namespace"], PLURAL, metadata["name"]


@contextmanager
def _explained(subject: str) -> Iterator[None]:
    try:
        yield
    except ApiException as error:
        refusal = _refusal(error, subject)
        refusal.status = error.status or 0
        raise refusal from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        # The innermost cause is the one that says something.
        message = f"the API server can't be reached: {_cause(error)}; check the kubeconfig's server"
        raise ClusterError("NoCluster", message, passes=True) from error


def _cause(error: BaseException) -> BaseException:
    reason = getattr(error, "reason", None)
    return _cause(reason) if isinstance(reason, BaseException) else error


def _refusal(error: ApiException, subject: str) -> ClusterError:
    said = _message(error)
    if error.status == 401:
        return ClusterError("Unauthenticated", "the API server does not know you; log in again")
    if error.status == 403:
        return ClusterError("PermissionDenied", f"{said}; ask for that right, or use --namespace")
    if error.status == 404 and "page not found" in said:
        message = f"the cluster has no {KIND}; install Open-AutoGLM there first, with its CRD"
        return ClusterError("CrdMissing", message)
    if error.status == 404:
        return ClusterError("NotFound", f"{said}; create it, or choose another --namespace")
    if error.status == 409:
        message = f"{subject}: {said}; leave those fields out, or take them with --force-conflicts"
        return ClusterError("Conflict", message)
    if error.status in (400, 422):
        return ClusterError("Refused", said)
    message = f"{subject}: {error.status} {said}; try again"
    return ClusterError("ClusterFailed", message, passes=True)


def _message(error: ApiException) -> str:
    try:
        status = json.loads(error.body or "")
    except ValueError:
        return str(error.body or error.reason).strip()
    return str(status.get("message") or error.reason) if isinstance(status, dict) else str(status)
