"""Applies rate limits to requests for the pipeline and reloads the tenants file.

Counts rejections; `limiter` and `meter` decide.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

from prometheus_client import Counter

from autoglm.common.watched_file import WatchedFile
from autoglm.gateway.limits import limiter
from autoglm.gateway.limits.limiter import Account, RateLimits
from autoglm.gateway.limits.meter import Meter, wanted_tokens
from autoglm.gateway.limits.tenants import TenantPolicy, tenants_of
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response


class Limits:
    """The rate limits of all tenants; none if `file` is empty.

    `rejected` counts by the limit exceeded, `unmetered` requests charged by an estimate, by reason.
    """

    def __init__(
        self,
        file: str,
        gateways: int,
        rejected: Counter,
        unmetered: Counter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._rejected = rejected
        self._unmetered = unmetered
        self._clock = clock
        self.rates = RateLimits(gateways=gateways)

    async def start(self, closing: AsyncExitStack) -> None:
        """Read the file and watch it. Raises OSError or ValueError if it is unreadable."""
        if not self._file:
            return
        file = WatchedFile(self._file, tenants_of)
        self.rates.know(file.value)
        task = asyncio.create_task(file.watch(self.rates.know), name="tenants")
        closing.callback(task.cancel)

    def policy_of(self, tenant: str) -> TenantPolicy:
        return self.rates.policy_of(tenant)

    def account_of(self, call: GatewayRequest) -> Account | None:
        return self.rates.account_of(call.principal.tenant, self._clock())

    @contextmanager
    def reserved(
        self, account: Account, call: GatewayRequest, notes: RequestRecord
    ) -> Iterator[Callable[[Response], Response]]:
        """Reserve the request's estimated tokens; settle to those it used at the end.

        Yields a function that wraps the response to count its tokens. Raises RateLimited.
        """
        now, tokens = self._clock(), wanted_tokens(call)
        what, wait = limiter.shortage(account, tokens, now)
        if wait > 0:
            self._rejected.labels(what).inc()
            raise limiter.rejection(call.principal.tenant, account, what, wait, now)
        reservation = limiter.reserve(account, tokens, now)
        headers = limiter.headers_of(account, now)
        meter, failure = Meter(call, notes, self._note_unmetered), None
        try:
            yield lambda reply: meter.read(reply, headers)
        except BaseException as error:
            failure = error
            raise
        finally:
            now = self._clock()
            if failure is not None and notes.attempts == 0:
                limiter.cancel(reservation, now)
            else:
                limiter.settle(reservation, meter.used(tokens, failure), now)

    def _note_unmetered(self, why: str) -> None:
        self._unmetered.labels(why).inc()
