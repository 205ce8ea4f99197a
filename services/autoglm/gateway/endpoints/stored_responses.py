"""Ids of stored responses, which encode the tenant that may read them and the pod. Pure.

The gateway makes the id of every response of the Responses API and the pod uses it, so that any
gateway with the same key finds the pod and verifies the tenant. To clients an id is opaque: the
pod's URL in it is hashed with the key, too.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache

from msgspec.structs import replace

from autoglm.common.errors import ResponseNotFound
from autoglm.gateway.endpoints.endpoint import EndpointView
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.request.request import GatewayRequest

_POD, _RANDOM, _TAG = 12, 32, 32
_FORM = re.compile(f"resp_([0-9a-f]{{{_POD}}})([0-9a-f]{{{_RANDOM}}})([0-9a-f]{{{_TAG}}})")
_MOST_PODS = 16_384


class ResponseIds:
    """Makes and verifies ids with `key`, which all gateways share."""

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"stored responses", "sha256")
        self._pod = lru_cache(_MOST_PODS)(lambda url: self._mac("pod", url)[:_POD])

    def new(self, tenant: str, url: str) -> str:
        """Return an id for a new response of the pod at the URL to the tenant."""
        pod, random = self._pod(url), secrets.token_hex(_RANDOM // 2)
        return f"resp_{pod}{random}{self._tag(tenant, pod, random)}"

    def find(
        self, name: str, tenant: str, views: Iterable[EndpointView]
    ) -> tuple[bool, EndpointView | None]:
        """Return whether the id is the tenant's, and its pod, if that still exists."""
        found = _FORM.fullmatch(name)
        if found is None:
            return False, None
        pod, random, tag = found.groups()
        if not hmac.compare_digest(tag, self._tag(tenant, pod, random)):
            return False, None
        return True, next((view for view in views if self._pod(view.url) == pod), None)

    def _tag(self, tenant: str, pod: str, random: str) -> str:
        return self._mac("response", pod, random, tenant)[:_TAG]

    def _mac(self, *parts: str) -> str:
        text = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, "sha256").hexdigest()


def follow(request: GatewayRequest, snapshot: Snapshot, ids: ResponseIds) -> GatewayRequest:
    """Return the request, bound to the pod with the stored response it refers to.

    Raises ResponseNotFound, for another tenant's id as well as for an invalid one.
    """
    info = request.info
    if info is None or not info.stored:
        return request
    is_own, view = ids.find(info.stored, request.principal.tenant, snapshot.endpoints)
    served = snapshot.models.get(request.model)
    if not is_own and served is not None and any(v.endpoint.kind != "pod" for v in served.http):
        # OpenAI servers make their own ids.
        return request
    model = info.model
    if view is not None and not model:
        # Any model of the pod that the caller may use; the response's own is unknown here.
        names = (m.name for m in view.state.models)
        model = next((name for name in names if request.principal.may_use(name)), "")
    field = "previous_response_id" if request.model else "response_id"
    if not is_own or (view is not None and not model):
        raise ResponseNotFound(f"response {info.stored[:100]!r} is not found", field=field)
    if view is None:
        raise ResponseNotFound(
            f"response {info.stored[:100]!r} is lost: the pod that stored it no longer exists",
            field=field,
        )
    return replace(request, info=replace(info, model=model), only=view.url)
