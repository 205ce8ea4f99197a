"""A small Kubernetes API server in this process: lists in pages, watches, bookmarks and 410.

    async with FakeKube() as kube:
        kube.put(agd("glm"))
        kube.put(endpoint_slice("glm", {"glm-1": "10.0.0.1"}))

Knows no validation, no authentication and no other verbs; tests write objects with `put` and
`delete`. For tests of what reads Kubernetes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web

from autoglm.api.deployment import API_VERSION, KIND
from autoglm.api.labels import DEPLOYMENT, PLURAL, SERVICE_NAME, pods_service
from autoglm.gateway.endpoints.kubernetes_watch import checked

Object = dict[str, Any]
_SLICES = "discovery.k8s.io/v1"
_PLURALS = {KIND: PLURAL, "EndpointSlice": "endpointslices"}


def agd(name: str, namespace: str = "default", **parts: Any) -> Object:
    """An AutoGLMDeployment; `created` sorts by age."""
    created = parts.pop("created", "2026-01-01T00:00:00Z")
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    spec = {"model": {}} | parts.pop("spec", {})
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec, **parts}


def endpoint_slice(
    deployment: str,
    pods: Mapping[str, str],
    *,
    namespace: str = "default",
    name: str = "",
    port: int = 50051,
    port_name: str = "grpc",
    conditions: Mapping[str, Mapping[str, bool]] | None = None,
) -> Object:
    """`pods` are addresses by pod name; `conditions` are those that are not plainly ready."""
    service, families = pods_service(deployment), {":" in host for host in pods.values()}
    labels = {DEPLOYMENT: deployment, SERVICE_NAME: service}
    return {
        "apiVersion": _SLICES,
        "kind": "EndpointSlice",
        "metadata": {"name": name or f"{service}-1", "namespace": namespace, "labels": labels},
        "addressType": "IPv6" if families == {True} else "IPv4",
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [host],
                "conditions": {"ready": True} | dict((conditions or {}).get(pod, {})),
                "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace},
            }
            for pod, host in pods.items()
        ],
    }


@dataclass
class FakeKube:
    """`requests` are the paths and queries that have come."""

    page_objects: int = 500
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    refuse: int = 0
    """The status of every response; 0 is the proper one."""
    port: int = 0

    def __post_init__(self) -> None:
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._log: list[tuple[int, str, Object]] = []
        self._version, self._forgotten = 0, 0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._is_serving = False
        self._watchers: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """On the same port again after a `stop`."""
        app = web.Application()
        app.router.add_get("/apis/{path:.+}", self._respond)
        self._is_serving = True
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Every connection is cut, in the middle of what it carries."""
        self._is_serving = False
        for transport in self._watchers:
            transport.abort()
        self._watchers.clear()
        async with self._changed:
            self._changed.notify_all()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Reader]:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self.port}") as session:
            yield Reader(session)

    async def put(self, thing: Object) -> None:
        key = _key(thing)
        kind = "MODIFIED" if key in self._objects else "ADDED"
        await self._change(kind, thing)
        self._objects[key] = thing

    async def delete(self, thing: Object) -> None:
        await self._change("DELETED", self._objects.pop(_key(thing)))

    async def say(self, kind: str, thing: Object) -> None:
        """An event that changes nothing here, such as an ERROR."""
        await self._change(kind, thing)

    def forget(self) -> None:
        """What has happened until now is history that no watch may begin with."""
        self._forgotten = self._version + 1
        self._version += 1

    async def _change(self, kind: str, thing: Object) -> None:
        self._version += 1
        thing.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        self._log.append((self._version, kind, json.loads(json.dumps(thing))))
        async with self._changed:
            self._changed.notify_all()

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.query)))
        if self.refuse:
            return web.json_response({"code": self.refuse, "message": "no"}, status=self.refuse)
        *_, plural = parts = request.path.strip("/").split("/")
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts else ""
        if request.query.get("watch"):
            return await self._watch(request, plural, namespace)
        return self._list(request, plural, namespace)

    def _list(self, request: web.Request, plural: str, namespace: str) -> web.Response:
        keys = [k for k in sorted(self._objects) if k[0] == plural and namespace in ("", k[1])]
        begin = int(request.query.get("continue", "0"))
        end = begin + min(self.page_objects, int(request.query.get("limit", "500")))
        more = {"continue": str(end)} if end < len(keys) else {}
        metadata = {"resourceVersion": str(self._version), **more}
        items = [self._objects[key] for key in keys[begin:end]]
        return web.json_response({"metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self._forgotten:
            return web.json_response({"code": 410, "message": "too old"}, status=410)
        response = web.StreamResponse()
        await response.prepare(request)
        assert request.transport is not None
        self._watchers.add(request.transport)
        while self._is_serving:
            for version, kind, thing in [entry for entry in self._log if entry[0] > since]:
                since = version
                if kind in ("ERROR", "BOOKMARK") or _is_in(thing, plural, namespace):
                    event = json.dumps({"type": kind, "object": thing})
                    await response.write(event.encode() + b"\n")
            async with self._changed:
                if self._is_serving and (not self._log or self._log[-1][0] <= since):
                    await self._changed.wait()
        return response


class Reader:
    """What a reflector reads with."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=silence)
        return await checked(await self._session.get(path, params=query, timeout=timeout))


def _key(thing: Object) -> tuple[str, str, str]:
    return (_PLURALS[thing["kind"]], thing["metadata"]["namespace"], thing["metadata"]["name"])


def _is_in(thing: Object, plural: str, namespace: str) -> bool:
    found, within, _ = _key(thing)
    return found == plural and namespace in ("", within)
