"""Runs the pipeline of each request that an Envoy moves, in a task of its own.

The request keeps its slot until the outcome of its exchange: Envoy's report of its end, or the end
of its response at the gateway's own server.
"""

from __future__ import annotations

import asyncio
import time

from autoglm.common.errors import AutoGLMError, DeadlineExceeded, forget_frames
from autoglm.gateway.envoy.exchange import Exchange, Exchanges
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response

# Envoy ends a request at its deadline; without its report, the request ends so much later.
_REPORT_SECONDS = 10.0


class ExchangeRunner:
    """The open requests of one kind of Envoy."""

    def __init__(self, pipeline: Handler, exchanges: Exchanges) -> None:
        self._pipeline = pipeline
        self._exchanges = exchanges
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, request: GatewayRequest, exchange: Exchange) -> asyncio.Task[None]:
        """Run the request in a task until it has ended; its directions come by the exchange."""
        self._exchanges.open(exchange)
        task = asyncio.create_task(self._run(request, exchange))
        exchange.on_left = task.cancel
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, request: GatewayRequest, exchange: Exchange) -> None:
        record = RequestRecord()

        async def deliver(response: Response) -> None:
            record.usage = exchange.usage
            record.endpoint = exchange.served or record.endpoint
            await exchange.deliver(response)

        try:
            async with asyncio.timeout(request.deadline - time.monotonic() + _REPORT_SECONDS):
                await self._pipeline(request, record, deliver)
        except AutoGLMError as error:
            forget_frames(error)
            exchange.fail(error)
        except TimeoutError:
            exchange.fail(DeadlineExceeded("the deadline passed"))
        except asyncio.CancelledError:
            # A cancelled task would keep the exception, whose frames refer to the request, which
            # refers to the task; no code awaits this task's result.
            pass
        finally:
            self._exchanges.close(exchange)

    async def close(self) -> None:
        """Cancel all requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
