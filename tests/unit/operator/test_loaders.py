"""The operator reads the progress of loaders from their pages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from autoglm.kube.kinds import Key
from autoglm.operator import loaders
from autoglm.operator.loaders import Loaders, progress_url
from autoglm.operator.types import Progress

KEY = Key("ns", "glm")


@pytest.mark.parametrize(
    ("status", "url"),
    [
        ({"phase": "Running", "podIP": "10.0.0.7"}, "http://10.0.0.7:9090/progress"),
        ({"phase": "Running", "podIP": "fd00::7"}, "http://[fd00::7]:9090/progress"),
        ({"phase": "Running"}, ""),
        ({"phase": "Failed", "podIP": "10.0.0.7"}, ""),
    ],
)
def test_only_a_running_pod_with_an_address_is_polled(status: dict[str, Any], url: str) -> None:
    assert progress_url([{"status": status}]) == url


async def test_progress_is_kept_until_the_loader_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.json_response({"done_bytes": 1, "total_bytes": 4, "bytes_per_second": 2})

    app = web.Application()
    app.router.add_get("/progress", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setattr(loaders, "METRICS_PORT", port)
    changed = asyncio.Event()
    polled = Loaders(lambda _: changed.set())
    running = asyncio.create_task(polled.run())
    pod = {"status": {"phase": "Running", "podIP": "127.0.0.1"}}

    polled.track(KEY, [pod])
    await asyncio.wait_for(changed.wait(), 30)
    assert polled.progress(KEY) == Progress(1, 4, 2)
    polled.track(KEY, [])
    assert polled.progress(KEY) is None
    running.cancel()
    await runner.cleanup()
