"""A real API server behind slow writes: nothing is sent again while it may still be carried out."""

from __future__ import annotations

import json
from collections import Counter

from tests.support.operating import Cluster, until

from autoglm.kube.transport import Request


def slow(request: Request) -> float:
    return 6.0 if request.is_write and "/services/" in request.path else 0.0


async def test_writes_that_take_longer_than_the_lease_allows_a_renewal_are_sent_once(
    cluster: Cluster,
) -> None:
    running = await cluster.start(leader_election=True)
    await until(lambda: running.operator.is_leading, "leads")
    running.faults.delay = slow
    names = [f"glm-{number}" for number in range(4)]
    for name in names:
        await cluster.create(name)
    for name in names:
        await until(lambda name=name: cluster.is_ready(name), f"{name} ready", 90)

    patches = [r for r in running.writes if r.method == "PATCH" and "/services/" in r.path]
    sent = Counter(json.dumps([r.path, r.body], sort_keys=True, default=dict) for r in patches)
    assert set(sent.values()) == {1}
    assert running.operator.is_leading
