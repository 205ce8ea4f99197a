"""The salt that a gateway gives pods: one for each tenant, and never the client's."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.tenants import api_keys

from autoglm import v1
from autoglm.common import rpc
from autoglm.testing.fake_pod import FakePod

pytestmark = pytest.mark.timeout(60)
REQUEST = v1.GenerateRequest(model="fake", text="x")


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Of two tenants, by their names; and the path of their file."""
    path = tmp_path / "keys.json"
    return api_keys(path, ("acme", "evil")) | {"file": str(path)}


async def salt(stub: Any, pod: FakePod, key: str = "", sent: str = "") -> str | None:
    """What the pod gets with a request."""
    metadata = [(rpc.API_KEY, key)] if key else []
    metadata += [(rpc.CACHE_SALT, sent)] if sent else []
    await stub.Generate(REQUEST, metadata=tuple(metadata))
    found: str | None = pod.received[-1].metadata.get(rpc.CACHE_SALT)
    return found


async def test_each_tenant_has_a_salt_that_its_clients_cannot_set(
    fleet: Any, keys: dict[str, str]
) -> None:
    (pod,) = await fleet.pods(FakePod())
    stub = await fleet.stub(await fleet.gateway(pod, api_keys_file=keys["file"]))

    acme = await salt(stub, pod, keys["acme"])
    evil = await salt(stub, pod, keys["evil"])
    forged = await salt(stub, pod, keys["evil"], sent=str(acme))

    assert acme and evil and acme != evil
    assert forged == evil


async def test_gateways_with_one_key_file_give_the_same_salt(
    fleet: Any, keys: dict[str, str], tmp_path: Path
) -> None:
    (pod,) = await fleet.pods(FakePod())
    found = set()
    for number in range(2):
        secret = tmp_path / f"secret-{number}"
        secret.write_text("one secret of the installation")
        settings = {"api_keys_file": keys["file"], "prefix_cache_key_file": str(secret)}
        stub = await fleet.stub(await fleet.gateway(pod, **settings))
        found.add(await salt(stub, pod, keys["acme"]))

    assert len(found) == 1


async def test_shared_caches_and_open_gateways_have_none(fleet: Any, keys: dict[str, str]) -> None:
    (pod,) = await fleet.pods(FakePod())
    shared = {"api_keys_file": keys["file"], "prefix_cache": "Shared"}
    stub = await fleet.stub(await fleet.gateway(pod, **shared))
    assert await salt(stub, pod, keys["acme"], sent="0" * 32) is None

    stub = await fleet.stub(await fleet.gateway(pod))
    assert await salt(stub, pod, sent="0" * 32) is None


class SlowPod(FakePod):
    """Holds a stream before its first chunk while the gate is closed."""

    async def pieces(self) -> AsyncIterator[str]:
        await self.open_gate.wait()
        async for piece in super().pieces():
            yield piece


@pytest.mark.plane("embedded", "Envoy sends each request once")
async def test_both_attempts_of_a_hedged_request_have_the_tenants_salt(
    fleet: Any, keys: dict[str, str]
) -> None:
    slow, quick = await fleet.pods(SlowPod(), FakePod())
    settings = {"hedging_percentile": 50, "hedging_max_extra_ratio": 1}
    gateway = await fleet.gateway(slow, quick, api_keys_file=keys["file"], **settings)
    stub = await fleet.stub(gateway)

    async def stream(tenant: str) -> str:
        chunks = stub.GenerateStream(REQUEST, metadata=((rpc.API_KEY, keys[tenant]),))
        return "".join([chunk.text async for chunk in chunks])

    for _ in range(30):
        await stream("evil")
    others = slow.received[0].metadata[rpc.CACHE_SALT]
    for pod in (slow, quick):
        pod.received.clear()
    slow.open_gate.clear()
    while not slow.received:
        assert await stream("acme") == quick.text

    salts = {r.metadata[rpc.CACHE_SALT] for pod in (slow, quick) for r in pod.received}
    assert len(salts) == 1
    assert others not in salts
