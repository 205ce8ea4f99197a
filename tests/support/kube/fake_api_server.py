"""The Kubernetes API server of tests: objects, versions, lists in pages, watches and bookmarks.

    server = FakeApiServer()
    server.add(agd("glm"))
    async with served(server) as configuration:  # over HTTP, for the real client
        ...

In memory it is a transport itself. It merges what is applied and knows no schema, no selectors, no
owners and no controllers; the ring `controlplane` has a real one. Faults are put in front of it
with `Faults`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

from autoglm.kube.kinds import CHILDREN, ENDPOINT_SLICE, POD, RESOURCE
from autoglm.kube.transport import (
    PlainReader,
    Query,
    Refused,
    Request,
    TimedOut,
    Transport,
    Unreachable,
)

Object = dict[str, Any]
_KINDS = {kind.kind: kind for kind in (*CHILDREN, ENDPOINT_SLICE, POD, RESOURCE)}
_SECONDS = 60.0


@dataclass
class FakeApiServer:
    """A Transport. `objects` by path."""

    objects: dict[str, Object] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    writes: list[Request] = field(default_factory=list)
    """Requests that changed something."""
    version: int = 0
    page_objects: int = 500
    """The most objects of a page, whatever the limit of the request."""
    is_down: bool = False
    _log: list[tuple[int, str, str, bytes]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _oldest: int = 0
    _cuts: int = 0

    # The transport.

    async def send(self, request: Request, timeout: float) -> bytes:
        await asyncio.sleep(0)
        self._note(request)
        if request.method == "GET":
            return json.dumps(self._get(request)).encode()
        before = self.version
        found = getattr(self, f"_{request.method.lower()}")(request)
        if self.version != before:
            self.writes.append(request)
        return json.dumps(found).encode()

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        self._note(request)
        seen, cuts = int(dict(request.query)["resourceVersion"]), self._cuts
        while self._cuts == cuts:
            if seen < self._oldest:
                gone = {"code": 410, "reason": "Expired", "message": "too old"}
                yield _event("ERROR", json.dumps(gone).encode())
                return
            news = self._news
            for version, kind, path, body in list(self._log):
                if version > seen and (not path or _is_below(path, request.path)):
                    yield _event(kind, body)
                    seen = version
            await news.wait()
        raise Unreachable("the connection was cut")

    async def close(self) -> None:
        return

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[PlainReader]:
        """Connect a reflector in this process."""
        yield PlainReader(self)

    def _note(self, request: Request) -> None:
        if self.is_down:
            raise Unreachable("the API server is down")
        self.requests.append(request)

    def queries(self, parameter: str) -> list[dict[str, str]]:
        """The queries with this parameter, of all requests."""
        queries = [dict(request.query) for request in self.requests]
        return [query for query in queries if parameter in query]

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
        self._publish("DELETED", path, body)

    def add(self, body: Object) -> None:
        """Creates or replaces an object at the path of its kind."""
        self.put(path_of(body), body)

    def delete(self, body: Object) -> None:
        self.remove(path_of(body))

    def publish(self, kind: str, body: Object) -> None:
        """Sends every watch an event that changes no object, such as an ERROR or a BOOKMARK."""
        self.version += 1
        self._publish(kind, "", body | {"metadata": {"resourceVersion": str(self.version)}})

    def compact(self) -> None:
        """Watches from before now must list again."""
        self._oldest = self.version
        self._log.clear()
        self._wake()

    def stop(self) -> None:
        """Cuts every connection and accepts none until `start`; objects may still change."""
        self.is_down = True
        self._cuts += 1
        self._wake()

    def start(self) -> None:
        self.is_down = False

    # The verbs.

    def _get(self, request: Request) -> Object:
        query = dict(request.query)
        if request.path in self.objects:
            return self.objects[request.path]
        if not any(_is_below(path, request.path) for path in self.objects) and _is_name(request):
            raise Refused(404, "NotFound", f"{request.path} not found")
        return self._page([o for p, o in self.objects.items() if _is_below(p, request.path)], query)

    def _page(self, items: list[Object], query: dict[str, str]) -> Object:
        begin = int(query.get("continue", "0"))
        end = begin + min(self.page_objects, int(query.get("limit", "500")))
        more = {"continue": str(end)} if end < len(items) else {}
        metadata = {"resourceVersion": str(self.version), **more}
        return {"metadata": metadata, "items": items[begin:end]}

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
        names_none = wanted is None and request.method == "PATCH"
        if not names_none and wanted != known["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict", "the object has been modified")

    def _known(self, path: str) -> Object:
        if path not in self.objects:
            raise Refused(404, "NotFound", f"{path} not found")
        return self.objects[path]

    def _store(self, path: str, body: Object, is_new: bool) -> Object:
        self.version += 1
        metadata = body["metadata"] | {"resourceVersion": str(self.version)}
        self.objects[path] = body | {"metadata": metadata}
        self._publish("ADDED" if is_new else "MODIFIED", path, self.objects[path])
        return self.objects[path]

    def _publish(self, kind: str, path: str, body: Object) -> None:
        self._log.append((self.version, kind, path, json.dumps(body).encode()))
        self._wake()

    def _wake(self) -> None:
        # A new event for each wait: a watch that is still delivering misses none.
        self._news.set()
        self._news = asyncio.Event()


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
        body = await self.below.send(request, timeout)
        if error := self.after(request):
            raise error
        return body

    def stream(self, request: Request) -> AsyncIterator[bytes]:
        if isinstance(error := self.before(request), Refused | Unreachable):
            raise error
        return self.below.stream(request)

    async def close(self) -> None:
        await self.below.close()


@asynccontextmanager
async def served(
    server: Transport, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Configuration]:
    """Serves a transport over HTTP on loopback; yields the configuration of a client.

    An error Unreachable cuts the connection.
    """

    async def respond(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        query: Query = tuple(request.query.items())
        sent = Request(request.method, request.path, query, body, request.content_type)
        try:
            if "watch" not in request.query:
                found = await server.send(sent, _SECONDS)
                return web.Response(body=found, content_type="application/json")
            lines = server.stream(sent)
            response = web.StreamResponse()
            await response.prepare(request)
            async for line in lines:
                await response.write(line)
            return response
        except Refused as error:
            status = {
                "kind": "Status",
                "reason": error.reason,
                "message": error.message,
                "details": {"causes": list(error.causes)},
            }
            pause = {} if error.retry_after is None else {"Retry-After": f"{error.retry_after:g}"}
            return web.json_response(status, status=error.status, headers=pause)
        except Unreachable:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.+}", respond)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    configuration = Configuration()
    scheme = "https" if tls else "http"
    configuration.host = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield configuration
    finally:
        await runner.cleanup()


def path_of(body: Object) -> str:
    metadata = body["metadata"]
    return _KINDS[body["kind"]].path(metadata["namespace"], metadata["name"])


def _event(kind: str, body: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), body)


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
