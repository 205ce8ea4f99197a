"""Acquires, renews and releases the Lease as the election decides, and fences writes.

Releases it on a clean shutdown, so that the next operator need not wait for it to expire.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from autoglm.kube.election import Election, Move, Record
from autoglm.kube.kinds import LEASE, Key
from autoglm.kube.transport import NotLeading, Refused, Unreachable
from autoglm.kube.verbs import Kube

_log = logging.getLogger("autoglm.operator")


class Fence:
    """Cancels writes in progress before another operator may lead. Uses the event loop's clock.

    A write may take as long as the API server needs while the Lease is renewed: cancelled earlier,
    it would be retried while the API server still carries out the first one.
    """

    def __init__(self) -> None:
        self._until: float | None = None
        self._open: set[asyncio.Timeout] = set()

    def extend(self, seconds: float) -> None:
        """Allow writes for `seconds` from now; 0 cancels them now."""
        self._until = asyncio.get_running_loop().time() + seconds
        for timeout in self._open:
            if not timeout.expired():
                timeout.reschedule(self._until)

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Guard the write inside. Raises NotLeading when the time has passed."""
        timeout = asyncio.timeout_at(self._until)
        try:
            async with timeout:
                self._open.add(timeout)
                try:
                    yield
                finally:
                    self._open.discard(timeout)
        except TimeoutError:
            if timeout.expired():
                raise NotLeading("the Lease was not renewed in time") from None
            raise


class Leader:
    """Takes part in the election; calls `changed` when leadership is gained or lost."""

    def __init__(
        self,
        kube: Kube,
        lease: Key,
        election: Election,
        changed: Callable[[bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fence = Fence()
        self._kube = kube
        self._lease = lease
        self._election = election
        self._changed = changed
        self._clock = clock
        self._was_leading = False
        self._body: dict[str, Any] = {}

    @property
    def is_leading(self) -> bool:
        return self._election.time_left(self._clock()) > 0

    async def run(self) -> None:
        """Run until cancelled."""
        terms = self._election.terms
        while True:
            try:
                await self._step()
            except (Refused, Unreachable) as error:
                fields = {"lease": self._lease.name, "error": str(error)}
                _log.warning("cannot read or renew the lease", extra={"fields": fields})
            self._notify()
            await asyncio.sleep(terms.period if self.is_leading else terms.poll_period)

    async def release(self) -> None:
        """Release the Lease if this operator holds it. No write may begin after this."""
        was_leading = self.is_leading
        self._election.lost()
        self._notify()
        if not was_leading:
            return
        try:
            # Re-read: the last renewal may have taken effect although its response was lost.
            record = await self._read()
            if record is not None and record.holder == self._election.identity:
                kept = {k: v for k, v in self._body["spec"].items() if k != "holderIdentity"}
                await self._write(kept | {"leaseDurationSeconds": 1, "renewTime": _now()})
        except (Refused, Unreachable) as error:
            fields = {"lease": self._lease.name, "error": str(error)}
            _log.warning("cannot release the lease", extra={"fields": fields})

    async def _step(self) -> None:
        """Read the Lease, and create, acquire or renew it where the election decides so."""
        began = self._clock()
        move = self._election.move(await self._read(), self._clock())
        if move is Move.WAIT:
            self._election.lost()
            return
        old = self._body.get("spec") or {}
        transitions = int(old.get("leaseTransitions") or 0)
        try:
            if move is Move.CREATE:
                body = {
                    "apiVersion": LEASE.api_version,
                    "kind": LEASE.kind,
                    "metadata": {"namespace": self._lease.namespace, "name": self._lease.name},
                    "spec": self._spec(0) | {"acquireTime": _now()},
                }
                await self._kube.create(LEASE.path(self._lease.namespace), body)
            elif move is Move.RENEW:
                await self._write(old | self._spec(transitions))
            else:
                await self._write(self._spec(transitions + 1) | {"acquireTime": _now()})
        except Refused as error:
            if not error.is_conflict:
                raise
            # Another candidate was faster; the next read shows which.
            self._election.lost()
            return
        self._election.renewed(began)

    def _notify(self) -> None:
        self.fence.extend(self._election.fence_left(self._clock()))
        leading = self.is_leading
        if leading != self._was_leading:
            self._was_leading = leading
            _log.info("leading" if leading else "not leading", extra={"fields": {}})
            self._changed(leading)

    async def _read(self) -> Record | None:
        try:
            body = await self._kube.get(LEASE.path(self._lease.namespace, self._lease.name))
        except Refused as error:
            if error.is_not_found:
                return None
            raise
        self._body = msgspec.json.decode(body)
        spec = self._body.get("spec") or {}
        return Record(
            holder=spec.get("holderIdentity") or "",
            duration=float(spec.get("leaseDurationSeconds") or 0),
            version=self._body["metadata"]["resourceVersion"],
        )

    async def _write(self, spec: dict[str, Any]) -> None:
        """Replace the Lease. Raises Refused with 409 if it was written since it was read."""
        path = LEASE.path(self._lease.namespace, self._lease.name)
        self._body = msgspec.json.decode(
            await self._kube.replace(path, self._body | {"spec": spec})
        )

    def _spec(self, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": self._election.identity,
            "leaseDurationSeconds": int(self._election.terms.duration),
            "leaseTransitions": transitions,
            "renewTime": _now(),
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
