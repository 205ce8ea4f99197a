"""The operator reads progress from the pages of loaders and of starting replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from autoglm.kube.kinds import Key
from autoglm.operator import progress
from autoglm.operator.progress import (
    ProgressPages,
    loader_progress,
    loader_url,
    start_text,
    start_url,
)
from autoglm.operator.types import ObservedObjects, Progress, Raw

KEY = Key("ns", "glm")
RUNNING = {"phase": "Running", "podIP": "127.0.0.1"}


def pod(since: str = "2026-01-01T00:00:00Z", ready: str = "False", **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}]
    metadata = {"name": "p", "creationTimestamp": since}
    return {"metadata": metadata, "status": RUNNING | {"conditions": conditions} | status}


@pytest.mark.parametrize(
    ("status", "base"),
    [
        ({"phase": "Running", "podIP": "10.0.0.7"}, "http://10.0.0.7:9090"),
        ({"phase": "Running", "podIP": "fd00::7"}, "http://[fd00::7]:9090"),
        ({"phase": "Running", "podIP": None}, ""),
        ({"phase": "Failed", "podIP": "10.0.0.7"}, ""),
    ],
)
def test_only_a_running_pod_with_an_address_is_polled(status: dict[str, Any], base: str) -> None:
    assert loader_url([pod(**status)]) == (f"{base}/progress" if base else "")
    assert start_url([pod(**status)]) == (f"{base}/health/ready" if base else "")


def test_of_the_replicas_that_are_not_ready_the_youngest_is_polled() -> None:
    ending = pod("2026-01-04T00:00:00Z", podIP="10.0.0.4")
    ending["metadata"]["deletionTimestamp"] = "2026-01-04T00:01:00Z"
    pods = [
        pod("2026-01-01T00:00:00Z", podIP="10.0.0.1"),
        pod("2026-01-02T00:00:00Z", podIP="10.0.0.2"),
        pod("2026-01-03T00:00:00Z", ready="True", podIP="10.0.0.3"),
        ending,
    ]

    assert start_url(pods) == "http://10.0.0.2:9090/health/ready"


def test_a_page_that_is_no_loaders_is_no_progress() -> None:
    assert loader_progress(404, b"{}") is None


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ({"phase": "loading", "start": {"stage": "load", "text": "load 3.2 GB"}}, "load 3.2 GB"),
        ({"phase": "dead", "in_flight": 0}, None),
        ({"start": {"text": "x" * 1000}}, "x" * 128),
    ],
)
def test_a_start_is_reported_in_its_own_words(page: Any, text: str | None) -> None:
    assert start_text(503, json.dumps(page).encode()) == text


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a pod that has the pages of both."""

    async def of_loader(_: web.Request) -> web.Response:
        return web.json_response({"done_bytes": 1, "total_bytes": 4, "bytes_per_second": 2})

    async def of_replica(_: web.Request) -> web.Response:
        return web.json_response({"start": {"text": "load 3.2 GB"}}, status=503)

    app = web.Application()
    app.router.add_get("/progress", of_loader)
    app.router.add_get("/health/ready", of_replica)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.mark.parametrize(
    ("observed", "loader", "start"),
    [
        (ObservedObjects({}, loaders=(pod(),)), Progress(1, 4, 2), ""),
        (ObservedObjects({}, pods=(pod(),)), None, "load 3.2 GB"),
    ],
)
async def test_progress_is_kept_until_the_pod_ends(
    monkeypatch: pytest.MonkeyPatch,
    port: int,
    observed: ObservedObjects,
    loader: Progress | None,
    start: str,
) -> None:
    monkeypatch.setattr(progress, "METRICS_PORT", port)
    changed = asyncio.Event()
    pages = ProgressPages(lambda _: changed.set())
    running = asyncio.create_task(pages.run())

    pages.track(KEY, observed)
    await asyncio.wait_for(changed.wait(), 30)
    assert (pages.loader(KEY), pages.start(KEY)) == (loader, start)
    pages.track(KEY, None)
    assert (pages.loader(KEY), pages.start(KEY)) == (None, "")
    running.cancel()


async def test_a_page_that_cannot_be_read_is_no_progress(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setattr(progress, "METRICS_PORT", unused_tcp_port)
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    pages = ProgressPages(lambda _: pytest.fail("nothing has changed"))
    running = asyncio.create_task(pages.run())

    raw: Raw = pod()
    pages.track(KEY, ObservedObjects({}, pods=(raw,)))
    await asyncio.sleep(0.1)
    assert not running.done()
    running.cancel()
