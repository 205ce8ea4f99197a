"""A real API server: operators of one installation or of two never work against each other."""

from __future__ import annotations

import asyncio

from autoglm.testing.operating import Cluster, until


async def test_of_two_operators_with_one_identity_one_leads(cluster: Cluster) -> None:
    first = await cluster.start(leader_election=True, identity="same")
    second = await cluster.start(leader_election=True, identity="same")
    pair = (first, second)
    await until(lambda: any(o.operator.is_leading for o in pair), "a leader")
    led = []
    for _ in range(80):
        await asyncio.sleep(0.1)
        led.append(sum(o.operator.is_leading for o in pair))

    assert set(led) == {1}
