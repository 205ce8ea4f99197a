"""Copies the hub's token from the operator's namespace into those of models.

A pod can only use Secrets of its own namespace, so the one token of an installation is copied into
the namespaces of the setting `hubToken` that have a resource. A copy is owned by the resources of
its namespace and deleted with the last of them. The operator may read no other Secret, and writes
only those of that name: one that it did not create stays as it is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from autoglm.api import API_VERSION, KIND
from autoglm.api.labels import FIELD_MANAGER, MANAGED_BY, NAME, PRODUCT
from autoglm.kube.kinds import Key, Kind
from autoglm.kube.transport import NotLeading, Refused, Unreachable
from autoglm.kube.verbs import Kube
from autoglm.operator.model_defaults import HubToken
from autoglm.operator.types import Raw

# A Secret's type never changes, so none of another type is taken over, with or without a reader.
_TYPE: Final = "autoglm.io/hub-token"
_FOREIGN: Final = (409, 422)
SECRET: Final = Kind("v1", "Secret", "secrets")
_SECONDS: Final = 30.0
"""How soon another token, and a copy that was deleted, are noticed."""
# Owners of one copy; more add nothing.
_MOST_OWNERS: Final = 100
_OTHERS: Final = "another Secret has its name and stays; delete it, or rename models.hubToken"
_log = logging.getLogger("autoglm.operator")


def copies(token: HubToken, value: str, resources: Iterable[Raw]) -> dict[str, dict[str, Any]]:
    """Return the Secret of each namespace; pure. `value` is base64, as in the original."""
    owners: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for resource in resources:
        metadata = resource["metadata"]
        if token.reaches(metadata["namespace"]) and "deletionTimestamp" not in metadata:
            owner = {"apiVersion": API_VERSION, "kind": KIND}
            owner |= {"name": metadata["name"], "uid": metadata["uid"]}
            owners[metadata["namespace"]].append(owner)
    return {
        namespace: {
            "apiVersion": SECRET.api_version,
            "kind": SECRET.kind,
            "metadata": {
                "name": token.secret_name,
                "namespace": namespace,
                "labels": {NAME: PRODUCT, MANAGED_BY: FIELD_MANAGER},
                "ownerReferences": sorted(found, key=lambda o: o["name"])[:_MOST_OWNERS],
            },
            "type": _TYPE,
            "data": {token.key: value},
        }
        for namespace, found in sorted(owners.items())
    }


class HubTokenCopies:
    """Keeps the copies; `resources` returns the resources that are reconciled here."""

    def __init__(
        self,
        kube: Kube,
        token: HubToken,
        home: str,
        resources: Callable[[], Iterable[Raw]],
        is_leading: Callable[[], bool],
    ) -> None:
        self._kube = kube
        self._token = token
        self._home = home
        self._resources = resources
        self._is_leading = is_leading
        self._changed = asyncio.Event()
        self._problems: dict[str, str] = {}
        self._written: dict[str, Mapping[str, Any]] = {}

    def resource_changed(self, key: Key) -> None:
        """Write the copy of the namespace soon, if it has none."""
        if self._token.reaches(key.namespace) and key.namespace not in self._written:
            self._changed.set()

    async def run(self) -> None:
        """Copy until cancelled; at once where a namespace is new. Returns without a token."""
        while self._token.secret_name and self._token.namespaces:
            self._changed.clear()
            if self._is_leading():
                await self._copy()
            try:
                async with asyncio.timeout(_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                # Copies are written again, so that none that was changed or deleted stays so.
                self._written.clear()

    async def _copy(self) -> None:
        try:
            body = await self._kube.get(SECRET.path(self._home, self._token.secret_name))
        except (Refused, Unreachable) as error:
            self._report(self._home, f"cannot read the hub's token: {error}")
            return
        value = (msgspec.json.decode(body).get("data") or {}).get(self._token.key)
        if not value:
            self._report(self._home, f"the Secret has no key {self._token.key!r}")
            return
        self._report(self._home, "")
        for namespace, secret in copies(self._token, value, self._resources()).items():
            if self._written.get(namespace) == secret or namespace == self._home:
                continue
            try:
                await self._kube.apply(SECRET.path(namespace, self._token.secret_name), secret)
            except Refused as error:
                why = f"{_OTHERS} ({error.message})" if error.status in _FOREIGN else error.message
                self._report(namespace, f"cannot write a copy of the hub's token: {why}")
            except (NotLeading, Unreachable):
                return
            else:
                self._report(namespace, "")
            self._written[namespace] = secret

    def _report(self, namespace: str, problem: str) -> None:
        """Log a problem of a namespace when it begins; empty for none."""
        if problem and self._problems.get(namespace) != problem:
            fields = {"secret": f"{namespace}/{self._token.secret_name}", "error": problem}
            _log.warning("hub token not copied", extra={"fields": fields})
        self._problems[namespace] = problem
