"""Watches OpenAI servers other than the project's pods: stock vLLM, SGLang, llama.cpp and others.

Polls their models, their health and, if they publish metrics, their load, under the metric names
that the Gateway API Inference Extension lists. Parsing is pure; for values that a server does not
report, the pool counts the gateway's own requests instead.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from autoglm import v1
from autoglm.gateway.endpoints.endpoint import (
    Disconnected,
    Endpoint,
    Load,
    Loaded,
    ModelsDiscovered,
    Signal,
)
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.upstream_key import UpstreamKey
from autoglm.http1.connection import ConnectionLost
from autoglm.http1.heads import origin_of, request_head
from autoglm.http1.pool import ConnectFailed
from autoglm.http1.pool import Pool as HttpPool

POLL_SECONDS = 1.0
# A busy server may respond slowly; it is lost only after so many failed polls in a row.
_PATIENCE = 3
_MAX_PAGE_BYTES = 8 * 1024 * 1024
_WAITING = (
    "vllm:num_requests_waiting",
    "sglang:num_queue_reqs",
    "trtllm_num_requests_waiting",
    "llamacpp:requests_deferred",
)
_RUNNING = (
    "vllm:num_requests_running",
    "sglang:num_running_reqs",
    "trtllm_num_requests_running",
    "llamacpp:requests_processing",
)
_KV_USE = (
    "vllm:kv_cache_usage_perc",
    "sglang:token_usage",
    "trtllm_kv_cache_utilization",
    "llamacpp:kv_cache_usage_ratio",
)
_ALL = (*_WAITING, *_RUNNING, *_KV_USE)


class NotServing(Exception):
    """The response of the server excludes it from routing; the text gives the reason."""


class _Card(msgspec.Struct):
    id: str
    created: float | None = None
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class _Cards(msgspec.Struct):
    data: list[_Card] = []


@dataclass(frozen=True, slots=True)
class Reported:
    """The load in a server's metrics; None for values it does not publish."""

    running: int | None = None
    waiting: int | None = None
    kv_cache_usage: float | None = None

    def load(self) -> Load:
        """Return a load report; unknown values are 0, as the pool adds its own requests."""
        missing = [Signal.TOKENS_IN_FLIGHT]
        if self.running is None and self.waiting is None:
            missing.append(Signal.REQUESTS)
        if self.kv_cache_usage is None:
            missing.append(Signal.KV_CACHE_USAGE)
        return Load(
            self.running or 0,
            self.waiting or 0,
            self.kv_cache_usage or 0.0,
            missing=tuple(missing),
        )


def models_of(page: bytes) -> tuple[v1.Model, ...]:
    """Parse a response of `/v1/models`. Raises NotServing."""
    try:
        cards = msgspec.json.decode(page, type=_Cards).data
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise NotServing(f"/v1/models is not a list of models: {error}") from error
    return tuple(
        v1.Model(
            name=card.id,
            max_model_len=min(max(card.max_model_len or 0, 0), 2**32 - 1),
            parent=card.parent or "",
            uri=card.root or "",
            engine="openai",
            created=int(card.created or 0),
        )
        for card in cards
    )


def reported_by(page: str) -> Reported:
    """Parse the load from a `/metrics` page; empty if the page is not in Prometheus' format."""
    # Pages are long, so only the lines of interest are parsed.
    lines = [line for line in page.splitlines() if line.startswith(_ALL)]
    samples: dict[str, list[float]] = {}
    try:
        for family in text_string_to_metric_families("\n".join(lines) + "\n"):
            for sample in family.samples:
                if math.isfinite(sample.value):
                    samples.setdefault(sample.name, []).append(sample.value)
    except (ValueError, LookupError):
        return Reported()
    running, waiting, kv_use = (
        next((samples[name] for name in names if name in samples), [])
        for names in (_RUNNING, _WAITING, _KV_USE)
    )
    # Each rank of a server has a sample.
    return Reported(
        max(0, int(sum(running))) if running else None,
        max(0, int(sum(waiting))) if waiting else None,
        max(kv_use, default=None),
    )


@dataclass(frozen=True, slots=True)
class OpenAIWatch:
    """A `Watch` of endpoints of kind `openai`; `timeout` is for one poll, in seconds."""

    pool: Pool
    http: HttpPool
    key: UpstreamKey = field(default_factory=UpstreamKey)
    timeout: float = 2.0
    clock: Callable[[], float] = time.monotonic

    async def __call__(self, endpoint: Endpoint) -> None:
        """Run until cancelled, or until the pool has removed the endpoint."""
        while True:
            why = await self._follow(endpoint)
            now = self.clock()
            state = self.pool.apply(endpoint.url, Disconnected(why), now)
            if state is None:
                return
            await asyncio.sleep(max(0.0, state.retry_at - now))

    async def _follow(self, endpoint: Endpoint) -> str:
        """Poll until the server fails to respond; return why."""
        failures = _PATIENCE - 1
        while True:
            try:
                await self._poll(endpoint)
                failures = 0
            except (NotServing, ConnectFailed) as error:
                return str(error)
            except (ConnectionLost, TimeoutError) as error:
                failures += 1
                if failures >= _PATIENCE:
                    return str(error) or "no response in time"
            await asyncio.sleep(POLL_SECONDS)

    async def _poll(self, endpoint: Endpoint) -> None:
        # Some servers list their models while their engine is dead; /health reports it.
        status, *_ = await self._get(endpoint, "/health")
        if status >= 500:
            raise NotServing(f"/health returned {status}")
        status, page, is_http10 = await self._get(endpoint, "/v1/models")
        if status in (401, 403):
            raise NotServing(
                f"it returned {status}; put a key that it accepts in --upstream-api-key-file"
            )
        if status != 200:
            raise NotServing(f"/v1/models returned {status}; it must be an OpenAI server's URL")
        learned = ModelsDiscovered(models_of(page), is_http10)
        status, page, _ = await self._get(endpoint, "/metrics")
        reported = reported_by(page.decode(errors="replace")) if status == 200 else Reported()
        load, now = reported.load(), self.clock()
        state = self.pool.apply(endpoint.url, Loaded(load), now)
        if state is not None and ModelsDiscovered(state.models, state.is_http10) != learned:
            self.pool.apply(endpoint.url, learned, now)
            self.pool.apply(endpoint.url, Loaded(load), now)

    async def _get(self, endpoint: Endpoint, path: str) -> tuple[int, bytes, bool]:
        """Return the status, the body, and whether the server speaks HTTP/1.0."""
        scheme = "https" if endpoint.tls else "http"
        origin = origin_of(f"{scheme}://{endpoint.address}{endpoint.base}")
        head = request_head(
            "GET", origin.path + path, origin.authority, self.key.headers.items(), 0
        )
        async with asyncio.timeout(self.timeout):
            response = await self.http.send(origin, head, b"")
            try:
                page = bytearray()
                while chunk := await response.read():
                    page += chunk
                    if len(page) > _MAX_PAGE_BYTES:
                        raise NotServing(f"its response has more than {_MAX_PAGE_BYTES} bytes")
                return response.status, bytes(page), response.is_http10
            finally:
                response.close()
