"""A Kubernetes API server in memory, for tests: objects, versions, lists and watches.

It merges what is applied and knows no schema, no owners and no controllers; the ring `controlplane`
has a real one. Faults are put in front of it with `Faults`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from autoglm.kube.transport import Refused, Request, TimedOut, Transport, Unreachable

Object = dict[str, Any]


@dataclass
class FakeApiServer:
    """A Transport. `objects` by path."""

    objects: dict[str, Object] = field(default_factory=dict)
    writes: list[Request] = field(default_factory=list)
    """Those that changed something."""
    version: int = 0
    _log: list[tuple[int, str, str, bytes]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _oldest: int = 0

    # The transport.

    async def send(self, request: Request, timeout: float) -> bytes:
        await asyncio.sleep(0)
        if request.method == "GET":
            return json.dumps(self._get(request)).encode()
        before = self.version
        answer = getattr(self, f"_{request.method.lower()}")(request)
        if self.version != before:
            self.writes.append(request)
        return json.dumps(answer).encode()

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        seen = int(dict(request.query)["resourceVersion"])
        prefix = request.path
        while True:
            if seen < self._oldest:
                gone = {"code": 410, "reason": "Expired", "message": "too old"}
                yield json.dumps({"type": "ERROR", "object": gone}).encode()
                return
            self._news.clear()
            for version, kind, collection, body in list(self._log):
                if version > seen and _is_below(collection, prefix):
                    yield b'{"type":"%s","object":%s}\n' % (kind.encode(), body)
                    seen = version
            await self._news.wait()

    async def close(self) -> None:
        return

    # What a test does to the cluster.

    def put(self, path: str, body: Object) -> Object:
        """Creates or replaces an object, as another client would."""
        known = self.objects.get(path)
        metadata = {"uid": f"uid-{self.version + 1}"} | body.get("metadata", {})
        if known is not None:
            metadata["uid"] = known["metadata"]["uid"]
        return self._store(path, body | {"metadata": metadata}, known is None)

    def remove(self, path: str) -> None:
        body = self.objects.pop(path)
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self._notify("DELETED", path, body)

    def compact(self) -> None:
        """Watches from before now must list again."""
        self._oldest = self.version
        self._log.clear()
        self._news.set()

    # The verbs.

    def _get(self, request: Request) -> Object:
        if request.path in self.objects:
            return self.objects[request.path]
        if not any(_is_below(path, request.path) for path in self.objects) and _is_name(request):
            raise Refused(404, "NotFound", f"{request.path} not found")
        items = [o for path, o in self.objects.items() if _is_below(path, request.path)]
        return {"metadata": {"resourceVersion": str(self.version)}, "items": items}

    def _post(self, request: Request) -> Object:
        body = dict(request.body or {})
        path = f"{request.path}/{body['metadata']['name']}"
        if path in self.objects:
            raise Refused(409, "AlreadyExists", f"{path} exists")
        return self.put(path, body)

    def _put(self, request: Request) -> Object:
        body, known = dict(request.body or {}), self._known(request.path)
        self._check_version(request, known)
        return self._store(request.path, body, False)

    def _patch(self, request: Request) -> Object:
        path = request.path.removesuffix("/status")
        if path not in self.objects and path == request.path:
            return self.put(path, dict(request.body or {}))
        known = self._known(path)
        self._check_version(request, known)
        merged = _merged(known, request.body or {})
        return known if merged == known else self._store(path, merged, False)

    def _delete(self, request: Request) -> Object:
        known = self._known(request.path)
        wanted = (request.body or {}).get("preconditions", {}).get("uid")
        if wanted not in (None, known["metadata"]["uid"]):
            raise Refused(409, "Conflict", "the uid in the precondition differs")
        self.remove(request.path)
        return {"kind": "Status", "status": "Success"}

    @staticmethod
    def _check_version(request: Request, known: Object) -> None:
        wanted = (request.body or {}).get("metadata", {}).get("resourceVersion")
        asked_for_none = wanted is None and request.method == "PATCH"
        if not asked_for_none and wanted != known["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict", "the object has been modified")

    def _known(self, path: str) -> Object:
        if path not in self.objects:
            raise Refused(404, "NotFound", f"{path} not found")
        return self.objects[path]

    def _store(self, path: str, body: Object, is_new: bool) -> Object:
        self.version += 1
        metadata = body["metadata"] | {"resourceVersion": str(self.version)}
        self.objects[path] = body | {"metadata": metadata}
        self._notify("ADDED" if is_new else "MODIFIED", path, self.objects[path])
        return self.objects[path]

    def _notify(self, kind: str, path: str, body: Object) -> None:
        self._log.append((self.version, kind, path, json.dumps(body).encode()))
        self._news.set()


@dataclass
class Faults:
    """Fails or delays requests before they reach `below`, or loses their responses."""

    below: Transport
    before: Callable[[Request], Exception | None] = lambda _: None
    after: Callable[[Request], Exception | None] = lambda _: None
    delay: Callable[[Request], float] = lambda _: 0.0
    """Seconds that the API server takes longer."""
    seen: list[Request] = field(default_factory=list)

    async def send(self, request: Request, timeout: float) -> bytes:
        self.seen.append(request)
        if error := self.before(request):
            raise error
        seconds = self.delay(request)
        await asyncio.sleep(min(seconds, timeout))
        if seconds > timeout:
            raise TimedOut(f"no response within {timeout:g} s")
        answer = await self.below.send(request, timeout)
        if error := self.after(request):
            raise error
        return answer

    def stream(self, request: Request) -> AsyncIterator[bytes]:
        if isinstance(error := self.before(request), Refused | Unreachable):
            raise error
        return self.below.stream(request)

    async def close(self) -> None:
        await self.below.close()


def _is_below(path: str, prefix: str) -> bool:
    """Whether an object's path is in a collection, of one namespace or of all."""
    if path.startswith(f"{prefix}/"):
        return "/" not in path[len(prefix) + 1 :]
    root, _, plural = prefix.rpartition("/")
    parts = path.removeprefix(f"{root}/namespaces/").split("/")
    return path.startswith(f"{root}/namespaces/") and parts[1:2] == [plural] and len(parts) == 3


def _is_name(request: Request) -> bool:
    """A GET without a query reads one object; lists always have a limit."""
    return not request.query


def _merged(known: Any, new: Any) -> Any:
    if isinstance(known, dict) and isinstance(new, dict):
        return known | {key: _merged(known.get(key), value) for key, value in new.items()}
    return new
