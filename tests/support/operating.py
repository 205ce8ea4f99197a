"""Operators in this process, with a way to the API server that tests can count on and break.

`Cluster` is a namespace of a real control plane as a test sees it, by a client of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry
from tests.support.kube.fake_api_server import Faults

from autoglm.kube.kinds import CHILDREN, LEASE, RESOURCE, Kind
from autoglm.kube.transport import JSON, MERGE, Refused, Request, Transport
from autoglm.operator.app import Operator
from autoglm.operator.settings import OperatorSettings

Object = dict[str, Any]
Condition = Callable[[], bool] | Callable[[], Awaitable[bool]]


async def until(condition: Condition, what: str, limit: float = 60.0) -> float:
    """Seconds until `condition` holds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        result = condition()
        if result if isinstance(result, bool) else await result:
            return loop.time() - began
        assert loop.time() - began < limit, f"not within {limit} s: {what}"
        await asyncio.sleep(0.1)


def is_work(request: Request) -> bool:
    """A write that is not the Lease's."""
    return request.is_write and f"/{LEASE.plural}" not in request.path


@dataclass
class Running:
    """An operator, and its requests to the API server."""

    operator: Operator
    faults: Faults
    task: asyncio.Task[None]

    @property
    def writes(self) -> list[Request]:
        return [r for r in self.faults.seen if is_work(r)]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))


@dataclass
class Cluster:
    """The test's namespace, seen by the test's own client."""

    configuration: Configuration
    client: Transport
    namespace: str
    _operators: list[Running] = field(default_factory=list)

    async def start(self, **settings: Any) -> Running:
        defaults: dict[str, Any] = {
            "namespace": (self.namespace,),
            "lease_namespace": self.namespace,
            "gateway_namespace": self.namespace,
            "metrics_address": "127.0.0.1:0",
            "leader_election": False,
            "echo_image": "fake",
        }
        faults: list[Faults] = []

        def wrap(below: Transport) -> Transport:
            faults.append(Faults(below))
            return faults[0]

        operator = Operator(
            OperatorSettings(**(defaults | settings)),
            self.configuration,
            wrap=wrap,
            registry=CollectorRegistry(),
        )
        running = Running(operator, faults[0], asyncio.create_task(operator.run()))
        self._operators.append(running)
        return running

    async def stop_all(self) -> None:
        for running in self._operators:
            await running.stop()

    async def send(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        content_type: str = JSON,
        query: tuple[tuple[str, str], ...] = (),
    ) -> Object:
        request = Request(method, path, query, body, content_type)
        result: Object = json.loads(await self.client.send(request, 20))
        return result

    async def change(self, name: str, spec: Object) -> None:
        """Merges into the spec of the resource."""
        path = RESOURCE.path(self.namespace, name)
        await self.send("PATCH", path, {"spec": spec}, content_type=MERGE)

    async def create(self, name: str, **spec: Any) -> Object:
        body = {
            "apiVersion": RESOURCE.api_version,
            "kind": RESOURCE.kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": {}, "engine": {"type": "echo"}, "replicas": 1} | spec,
        }
        return await self.send("POST", RESOURCE.path(self.namespace), body)

    async def get(self, kind: Kind, name: str) -> Object | None:
        try:
            return await self.send("GET", kind.path(self.namespace, name))
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def resource(self, name: str) -> Object:
        found = await self.get(RESOURCE, name)
        assert found is not None
        return found

    async def children(self, name: str) -> dict[str, Object]:
        """Everything that the resource owns, by kind and name."""
        found = {}
        for kind in CHILDREN:
            listed = await self.send("GET", kind.path(self.namespace))
            for item in listed["items"]:
                owners = item["metadata"].get("ownerReferences") or []
                if any(o["name"] == name and o["kind"] == RESOURCE.kind for o in owners):
                    found[f"{kind.kind}/{item['metadata']['name']}"] = item
        return found

    async def phase(self, name: str) -> str:
        found = await self.get(RESOURCE, name)
        return str(((found or {}).get("status") or {}).get("phase"))

    async def settled(self, name: str) -> dict[str, Object]:
        """The children, once the resource's replicas are ready and nothing changes any more."""
        await until(lambda: self.is_settled(name), f"{name} settled")
        return await self.children(name)

    async def is_ready(self, name: str) -> bool:
        """Replicas are ready, and the status reports it."""
        status = (await self.resource(name)).get("status") or {}
        return bool(status.get("readyReplicas", 0) > 0)

    async def is_settled(self, name: str) -> bool:
        """Replicas are ready and nothing changes for a second."""
        return await self.is_ready(name) and await self._is_quiet(name)

    async def _is_quiet(self, name: str) -> bool:
        before = await self.versions(name)
        await asyncio.sleep(1)
        return before == await self.versions(name)

    async def versions(self, name: str) -> dict[str, str]:
        """Resource versions of the resource and its children: they change with every write."""
        objects = await self.children(name) | {"": await self.resource(name)}
        return {key: o["metadata"]["resourceVersion"] for key, o in objects.items()}
