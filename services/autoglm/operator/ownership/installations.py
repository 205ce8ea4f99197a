"""Polls the Leases of other installations that have claimed resources.

`claims` decides when a claim lapses; its resources are enqueued then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

import msgspec

from autoglm.kube.kinds import LEASE, Key
from autoglm.kube.transport import Refused, Unreachable
from autoglm.kube.verbs import Kube
from autoglm.operator.ownership.claims import POLLS, Freshness, Installation

_log = logging.getLogger("autoglm.operator")


class _Lease(msgspec.Struct):
    class Metadata(msgspec.Struct, rename="camel"):
        resource_version: str

    metadata: Metadata


_leases = msgspec.json.Decoder(_Lease)


class Installations:
    """Other installations that have claimed resources. Calls `lapsed` with each resource whose
    claim has lapsed."""

    def __init__(
        self, kube: Kube, mine: Installation, timeout: float, lapsed: Callable[[Key], None]
    ) -> None:
        self.mine = mine
        self.timeout = timeout
        self._kube = kube
        self._lapsed = lapsed
        self._known: dict[str, Freshness] = {}
        self._claimed: defaultdict[str, set[Key]] = defaultdict(set)
        self._wake = asyncio.Event()

    def watch_claim(self, key: Key, lease: str) -> None:
        """Poll the Lease of the installation that has claimed the resource."""
        self._claimed[lease].add(key)
        self._wake.set()

    def is_stale(self, lease: str, now: float) -> bool:
        """Return whether claims of the installation with this Lease have lapsed."""
        known = self._known.get(lease)
        return known is not None and known.is_stale(now)

    async def run(self) -> None:
        """Poll until cancelled, while another installation has claimed a resource."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._claimed:
                for lease in list(self._claimed):
                    await self._poll(lease)
                await asyncio.sleep(self.timeout / POLLS)

    async def _poll(self, lease: str) -> None:
        loop = asyncio.get_running_loop()
        known = self._known.setdefault(lease, Freshness(self.timeout, loop.time()))
        before = known.why_unknown
        namespace, _, name = lease.partition("/")
        try:
            body = await self._kube.get(LEASE.path(namespace, name))
            known.seen(_leases.decode(body).metadata.resource_version, loop.time())
        except (Refused, Unreachable) as error:
            if isinstance(error, Refused) and error.is_not_found:
                known.seen("", loop.time())
            else:
                known.unknown(str(error), loop.time())
        if known.why_unknown and known.why_unknown != before:
            fields = {"lease": lease, "error": known.why_unknown}
            _log.warning("cannot read the Lease of another installation", extra={"fields": fields})
        if known.is_stale(loop.time()):
            for key in self._claimed.pop(lease):
                self._lapsed(key)
