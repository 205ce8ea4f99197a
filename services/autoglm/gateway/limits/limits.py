"""The limits of all tenants, as the limit layer asks for them. Made by `core`.

Follows the tenants file and counts refusals; decides nothing itself (`limiter`, `meter`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

from prometheus_client import Counter

from autoglm.common.watched_file import FollowedFile
from autoglm.gateway.limits import limiter
from autoglm.gateway.limits.limiter import Account, RateLimits
from autoglm.gateway.limits.meter import Meter, wanted_tokens
from autoglm.gateway.limits.tenants import TenantPolicy, tenants_of
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response


class Limits:
    """`file` may be empty: then no tenant is limited. `refused` counts, by what was used up;
    `unmetered` those that are charged by an estimate alone, by why."""

    def __init__(
        self,
        file: str,
        gateways: int,
        refused: Counter,
        unmetered: Counter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._refused = refused
        self._unmetered = unmetered
        self._clock = clock
        self.rates = RateLimits(gateways=gateways)

    async def start(self, closing: AsyncExitStack) -> None:
        """Raises OSError or ValueError where the file cannot be read."""
        if not self._file:
            return
        file = FollowedFile(self._file, tenants_of)
        self.rates.know(file.value)
        task = asyncio.create_task(file.follow(self.rates.know), name="tenants")
        closing.callback(task.cancel)

    def policy_of(self, tenant: str) -> TenantPolicy:
        return self.rates.policy_of(tenant)

    def account_of(self, call: GatewayRequest) -> Account | None:
        return self.rates.account_of(call.principal.tenant, self._clock())

    @contextmanager
    def reserved(
        self, account: Account, call: GatewayRequest, notes: RequestRecord
    ) -> Iterator[Callable[[Response], Response]]:
        """Holds what the request may take, and settles to what it has taken. What it gives has to
        be put around the reply. Raises RateLimited."""
        now, tokens = self._clock(), wanted_tokens(call)
        what, wait = limiter.shortage(account, tokens, now)
        if wait > 0:
            self._refused.labels(what).inc()
            raise limiter.refusal(call.principal.tenant, account, what, wait, now)
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
