"""Polls the Leases of other installations whose claims keep this one from resources.

Decides nothing: `claims` has the rule. Resources are reconciled again once a claim has lapsed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

import msgspec

from autoglm.kube.errors import Refused, Unreachable
from autoglm.kube.key import Key
from autoglm.kube.kinds import LEASE
from autoglm.kube.verbs import Kube
from autoglm.operator.ownership.claims import POLLS, Freshness, Installation

_NOT_FOUND = 404
_log = logging.getLogger("autoglm.operator")


class _Lease(msgspec.Struct):
    class Metadata(msgspec.Struct, rename="camel"):
        resource_version: str

    metadata: Metadata


_leases = msgspec.json.Decoder(_Lease)


class Installations:
    """The other installations, as far as one of them keeps this one from a resource."""

    def __init__(
        self, kube: Kube, mine: Installation, timeout: float, lapsed: Callable[[Key], None]
    ) -> None:
        self.mine = mine
        self.timeout = timeout
        self._kube = kube
        self._lapsed = lapsed
        self._known: dict[str, Freshness] = {}
        self._left: defaultdict[str, set[Key]] = defaultdict(set)
        self._wake = asyncio.Event()

    def leave(self, key: Key, rival: str) -> None:
        """The resource is left to the installation with this Lease."""
        self._left[rival].add(key)
        self._wake.set()

    def is_stale(self, rival: str, now: float) -> bool:
        """Whether claims of the installation with this Lease no longer count."""
        known = self._known.get(rival)
        return known is not None and known.is_stale(now)

    async def run(self) -> None:
        """Run until cancelled. Nothing is polled while no resource is left to another."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._left:
                for rival in list(self._left):
                    await self._poll(rival)
                await asyncio.sleep(self.timeout / POLLS)

    async def _poll(self, rival: str) -> None:
        loop = asyncio.get_running_loop()
        known = self._known.setdefault(rival, Freshness(self.timeout, loop.time()))
        before = known.why_unknown
        try:
            known.seen(await self._version(rival), loop.time())
        except (Refused, Unreachable) as error:
            known.unknown(str(error), loop.time())
        if known.why_unknown and known.why_unknown != before:
            fields = {"lease": rival, "error": known.why_unknown}
            _log.warning("the Lease of another installation is unknown", extra={"fields": fields})
        if known.is_stale(loop.time()):
            for key in self._left.pop(rival):
                self._lapsed(key)

    async def _version(self, rival: str) -> str:
        namespace, _, name = rival.partition("/")
        try:
            body = await self._kube.get(LEASE.path(namespace, name))
        except Refused as error:
            if error.status == _NOT_FOUND:
                return ""
            raise
        return _leases.decode(body).metadata.resource_version
