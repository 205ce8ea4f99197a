"""Requests to the API server, through the official client. Decides what is worth another attempt.

The client has no types, hence the ignored calls.

`Client` sends one request. `Kube` has the few verbs that the operator needs, each with a time limit
and a bounded number of attempts; a write begins only while `may_write` allows it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import aiohttp
import msgspec
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.dynamic import DynamicClient
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from yaml import YAMLError

from autoglm.api.labels import FIELD_MANAGER
from autoglm.operator.kinds import Kind
from autoglm.operator.metrics import Metrics

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
_ATTEMPTS = 3
# Longer waits are left to the queue, so that a worker is not held.
_LONGEST_WAIT = 2.0
# The API server sends a bookmark about every minute: a longer silence is a dead connection.
_SILENCE = 100.0
_CONNECT = 5.0
_PAGE = 500
_CONFLICT = 409


class Unreachable(Exception):
    """No answer came: a refused or broken connection, or the time limit."""


class NotLeading(Exception):
    """Another operator may be writing."""


class Refused(Exception):
    """The API server said no."""

    def __init__(self, status: int, reason: str, message: str, **more: Any) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes: tuple[Mapping[str, str], ...] = tuple(more.get("causes", ()))
        self.retry_after: float | None = more.get("retry_after")

    @property
    def is_transient(self) -> bool:
        return self.status == 429 or self.status >= 500


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Mapping[str, Any] | None = None
    content_type: str = JSON

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


class Transport(Protocol):
    """Raises Refused and Unreachable."""

    async def send(self, request: Request, timeout: float) -> bytes: ...

    def stream(self, request: Request) -> AsyncIterator[bytes]:
        """The lines of the answer, as they come."""
        ...

    async def close(self) -> None: ...


async def configure(kubeconfig: str, context: str) -> Configuration:
    """How to reach the API server: by a file, or as a pod does. Raises ConfigException."""
    configuration = Configuration()
    if kubeconfig:
        await _read(kubeconfig, context, configuration)
    else:
        kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    configuration.connection_pool_maxsize = 100
    return configuration


async def _read(kubeconfig: str, context: str, configuration: Configuration) -> None:
    load = kube_config.load_kube_config
    try:
        await load(kubeconfig, context=context or None, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (TypeError, AttributeError, KeyError, YAMLError) as error:
        # The client does not look at what it reads.
        raise ConfigException(f"{kubeconfig!r} is not a kubeconfig: {error}") from error


class Client:
    """The transport that the operator runs with."""

    def __init__(self, configuration: Configuration) -> None:
        self._api = ApiClient(configuration)
        # Discovery is not needed: the operator knows its kinds.
        self._dynamic: Any = DynamicClient(self._api)  # type: ignore[no-untyped-call]

    async def send(self, request: Request, timeout: float) -> bytes:
        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=_CONNECT)
        with _translated():
            response = await self._open(request, limit)
            answer: bytes = await response.read()
            return answer

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        limit = aiohttp.ClientTimeout(sock_connect=_CONNECT, sock_read=_SILENCE)
        with _translated():
            response = await self._open(request, limit)
            try:
                async for line in response.content:
                    yield line
            finally:
                response.close()

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def _open(self, request: Request, limit: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await self._dynamic.request(
            request.method.lower(),
            request.path,
            body=request.body,
            query_params=list(request.query),
            content_type=request.content_type,
            serialize=False,
            _request_timeout=limit,
        )
        return response


@contextlib.contextmanager
def _translated() -> Any:
    """The client's exceptions become ours."""
    try:
        yield
    except ApiException as error:
        raise _refused(error) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise Unreachable(str(error) or type(error).__name__) from error


def _refused(error: ApiException) -> Refused:
    try:
        status = msgspec.json.decode(error.body or "", type=_Status)
    except msgspec.DecodeError:
        # A proxy's page, not the API server's answer.
        status = _Status(message=(error.body or "")[:200])
    return Refused(
        error.status or 0,
        status.reason or str(error.reason),
        status.message,
        causes=(status.details or _Details()).causes or (),
        retry_after=_seconds((error.headers or {}).get("Retry-After")),
    )


class _Details(msgspec.Struct):
    causes: list[dict[str, str]] | None = None


class _Status(msgspec.Struct):
    reason: str = ""
    message: str = ""
    details: _Details | None = None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None


class Page(msgspec.Struct):
    """A part of a list; its objects stay as they came."""

    class Metadata(msgspec.Struct, rename="camel"):
        resource_version: str = "0"
        # `continue` is a keyword.
        more: str = msgspec.field(default="", name="continue")

    metadata: Metadata
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct):
    """A line of a watch."""

    type: str
    object: msgspec.Raw


_pages = msgspec.json.Decoder(Page)
_watch_events = msgspec.json.Decoder(WatchEvent)


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds. `write` returns how long a write that begins now may take, 0 for not
    at all."""

    read: float
    write: Callable[[], float]


class Kube:
    """The verbs of the operator. Answers to writes are the objects as JSON."""

    def __init__(self, transport: Transport, metrics: Metrics, limits: Limits) -> None:
        self._transport = transport
        self._metrics = metrics
        self._limits = limits

    async def get(self, path: str) -> bytes:
        return await self._send(Request("GET", path))

    async def list(
        self, kind: Kind, namespace: str, query: tuple[tuple[str, str], ...]
    ) -> tuple[list[bytes], str]:
        """All objects, and the version of the list."""
        items: list[bytes] = []
        page = Page(Page.Metadata())
        while True:
            more = (("continue", page.metadata.more),) if page.metadata.more else ()
            asked = (*query, ("limit", str(_PAGE)), *more)
            answer = await self._send(Request("GET", kind.path(namespace), asked))
            page = _pages.decode(answer)
            # Raw is a view that would keep the whole page alive.
            items += [bytes(item) for item in page.items or ()]
            if not page.metadata.more:
                return items, page.metadata.resource_version

    async def watch(
        self, kind: Kind, namespace: str, query: tuple[tuple[str, str], ...], version: str
    ) -> AsyncIterator[WatchEvent]:
        """What happens after `version`, until the server ends it. Raises Refused with 410 when that
        is too long ago."""
        asked = (*query, ("watch", "1"), ("allowWatchBookmarks", "1"), ("resourceVersion", version))
        lines = self._transport.stream(Request("GET", kind.path(namespace), asked))
        async with contextlib.aclosing(lines):  # type: ignore[type-var]  # a generator in fact
            async for line in lines:
                event = _watch_events.decode(line)
                if event.type == "ERROR":
                    raise _watch_error(event.object)
                yield event

    async def apply(self, path: str, body: Mapping[str, Any], *, force: bool = False) -> bytes:
        query = (("fieldManager", FIELD_MANAGER), ("force", "true" if force else "false"))
        return await self._send(Request("PATCH", path, query, body, APPLY))

    async def merge(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._send(Request("PATCH", path, query, body, MERGE))

    async def create(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._send(Request("POST", path, query, body))

    async def replace(self, path: str, body: Mapping[str, Any]) -> bytes:
        query = (("fieldManager", FIELD_MANAGER),)
        return await self._send(Request("PUT", path, query, body))

    async def delete(self, path: str, uid: str) -> bytes:
        """What the object owns is deleted in the background, after it."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        return await self._send(Request("DELETE", path, (), body))

    async def _send(self, request: Request) -> bytes:
        attempts = AsyncRetrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=_wait,
            retry=retry_if_exception(partial(_is_transient, request)),
            reraise=True,
        )
        answer: bytes = await attempts(self._attempt, request)
        return answer

    async def _attempt(self, request: Request) -> bytes:
        timeout = self._limits.write() if request.is_write else self._limits.read
        if timeout <= 0:
            raise NotLeading("this operator does not hold the lease")
        with self._metrics.api_call(request.method) as outcome:
            try:
                return await self._transport.send(request, timeout)
            except Refused as error:
                outcome.code = str(error.status)
                raise
            except Unreachable:
                outcome.code = "none"
                raise


def _watch_error(status: bytes) -> Refused:
    decoded = msgspec.json.decode(status)
    return Refused(decoded.get("code", 0), decoded.get("reason", ""), decoded.get("message", ""))


def _is_transient(request: Request, error: BaseException) -> bool:
    if isinstance(error, Refused):
        if error.status == _CONFLICT and request.method == "PATCH":
            # Somebody wrote at the same moment; a conflict over fields has causes.
            return not error.causes
        return error.is_transient and (error.retry_after or 0) <= _LONGEST_WAIT
    return isinstance(error, Unreachable)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Refused) else None
    return max(asked or 0.0, 0.1 * 2.0**state.attempt_number)
