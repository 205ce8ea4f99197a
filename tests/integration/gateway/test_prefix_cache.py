"""The salt that a gateway gives pods: one for each tenant, and never the client's."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from autoglm import v1
from autoglm.common import rpc
from autoglm.gateway.identity.keys import new_key
from autoglm.testing.fake_pod import FakePod

pytestmark = pytest.mark.timeout(60)
REQUEST = v1.GenerateRequest(model="fake", text="x")


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Of two tenants, by their names; and the path of their file."""
    made = {tenant: new_key(tenant) for tenant in ("acme", "evil")}
    path = tmp_path / "keys.json"
    path.write_bytes(msgspec.json.encode({"keys": [entry for _, entry in made.values()]}))
    return {tenant: key for tenant, (key, _) in made.items()} | {"file": str(path)}


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
