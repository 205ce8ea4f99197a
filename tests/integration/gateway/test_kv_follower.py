"""A gateway follows a pod whose stream of KV-cache events ends and loses messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from autoglm import v1
from autoglm.common import errors, rpc
from autoglm.common.tls import TlsFiles
from autoglm.gateway.endpoints.channels import Channels
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.endpoints.kv_event_watch import KvFollower
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.routing.prefix_index import PrefixIndex
from autoglm.v1.worker_pb2_grpc import WorkerServicer, add_WorkerServicer_to_server

Script = list[tuple[int, tuple[int, ...] | None]]


class Worker(WorkerServicer):
    """Plays a script for each subscription in turn: sequence numbers, with names or `cleared`."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.refusal: errors.AutoGLMError | None = None
        self.heard = asyncio.Event()

    async def SubscribeKvEvents(
        self, request: v1.SubscribeKvEventsRequest, context: Any
    ) -> AsyncIterator[v1.SubscribeKvEventsResponse]:
        script = self.scripts.pop(0)
        for sequence, names in script:
            message = v1.SubscribeKvEventsResponse(sequence=sequence)
            if names is None:
                message.cleared.SetInParent()
            else:
                message.stored.block_hashes.extend(names)
            yield message
        if not self.scripts:
            self.heard.set()
            await asyncio.Event().wait()
        if self.refusal is not None:
            raise self.refusal


class Rig:
    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.registry = CollectorRegistry()
        self.prefixes = PrefixIndex()

    async def follow(self) -> int:
        """How many of the blocks 1 to 4 the pod holds once the last script has been heard."""
        server = rpc.server()
        add_WorkerServicer_to_server(self.worker, server)
        port = rpc.bind(server, "127.0.0.1:0")
        await server.start()
        channels = Channels(TlsFiles(), 60.0)
        follower = KvFollower(self.prefixes, channels, Metrics(self.registry))
        endpoint = Endpoint(f"grpc://127.0.0.1:{port}", "pod", "127.0.0.1", port)
        task = asyncio.create_task(follower(endpoint))
        try:
            async with asyncio.timeout(30):
                await self.worker.heard.wait()
                # What has been sent is read by another task, which reports nothing.
                while not self._follows(endpoint.url):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            return self.prefixes.match([1, 2, 3, 4], 0)[endpoint.url]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert not self.prefixes.is_exact(endpoint.url)
            await channels.close()
            await server.stop(0)

    def _follows(self, url: str) -> bool:
        """Whether the last script has been read: what an earlier one left behind is not exact."""
        return self.prefixes.is_exact(url) and bool(self.prefixes.match([1], 0))

    def breaks(self, reason: str) -> float | None:
        name = "autoglm_gateway_kv_event_stream_breaks_total"
        return self.registry.get_sample_value(name, {"reason": reason})


WHOLE: Script = [(1, None), (2, (1, 2, 3))]


@pytest.mark.parametrize(
    ("script", "refusal", "reason"),
    [
        ([(1, None), (2, (1, 2, 3, 4)), (4, (9,))], None, "gap"),
        ([(1, None), (2, (1, 2, 3, 4))], None, "ended"),
        ([(1, None)], errors.StreamBroken("you read too slowly"), "broken"),
        ([(1, (1, 2, 3, 4))], None, "forgotten"),
    ],
)
async def test_a_new_stream_makes_good_what_was_lost(
    script: Script, refusal: errors.AutoGLMError | None, reason: str
) -> None:
    worker = Worker(script, WHOLE)
    worker.refusal = refusal
    rig = Rig(worker)
    assert await rig.follow() == 3
    assert rig.breaks(reason) == 1
