"""A call that Envoy sent on to the gateway goes on there, with all that it holds. Called by `core`.

Around the layers, as the handler of the gateway's own servers: a request that names an exchange has
passed the layers already, and its answer is made where it was admitted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from autoglm.common.errors import Cancelled
from autoglm.gateway.envoy.exchange import Exchange, Exchanges
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response


class TakeOver:
    """A `Handler`."""

    def __init__(self, exchanges: Exchanges, layers: Handler) -> None:
        self._exchanges = exchanges
        self._layers = layers

    def __call__(
        self, call: GatewayRequest, notes: RequestRecord
    ) -> AbstractAsyncContextManager[Response]:
        exchange = self._exchanges.get(call.continues) if call.continues else None
        if exchange is None:
            return self._layers(call, notes)
        return _continued(exchange, call)


@asynccontextmanager
async def _continued(exchange: Exchange, call: GatewayRequest) -> AsyncIterator[Response]:
    if call.receive is not None:
        # What it takes of the memory is counted already.
        call = await call.receive(call, call.hold)
    if not exchange.take_over(call):
        raise Cancelled("the call has ended")
    failure: BaseException | None = None
    try:
        yield await exchange.reply()
    except BaseException as error:
        failure = error
        raise
    finally:
        exchange.delivered(failure)
