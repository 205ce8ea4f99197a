"""One token of the hub reaches the namespaces that may have it, and no Secret of another."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.kube.fake_api_server import FakeApiServer, Faults

from autoglm.kube.kinds import Key
from autoglm.kube.transport import Refused
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator.hub_token import SECRET, HubTokenCopies, copies
from autoglm.operator.metrics import Metrics
from autoglm.operator.model_defaults import HubToken

pytestmark = pytest.mark.looptime
TOKEN = HubToken("hub", "token", ("team", "lab"))
HOME = "autoglm-system"
ORIGINAL = SECRET.path(HOME, "hub")


def resource(namespace: str, name: str = "glm", **metadata: Any) -> dict[str, Any]:
    uid = f"uid-{namespace}-{name}"
    return {"metadata": {"namespace": namespace, "name": name, "uid": uid, **metadata}}


class Rig:
    def __init__(self, *resources: dict[str, Any], token: HubToken = TOKEN) -> None:
        self.server = FakeApiServer()
        self.server.put(ORIGINAL, {"metadata": {"name": "hub"}, "data": {"token": "aGY="}})
        self.faults = Faults(self.server)
        self.resources = list(resources)
        self.leading = True
        kube = Kube(self.faults, Metrics(CollectorRegistry()), Limits(3, lambda: 3))
        self.copies = HubTokenCopies(
            kube, token, HOME, lambda: self.resources, lambda: self.leading
        )

    async def run(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.copies.run()

    def copied(self, namespace: str) -> dict[str, Any] | None:
        return self.server.objects.get(SECRET.path(namespace, "hub"))


def test_a_copy_is_owned_by_the_resources_of_its_namespace() -> None:
    ending = resource("team", "old", deletionTimestamp="2026-01-01T00:00:00Z")
    made = copies(TOKEN, "aGY=", [resource("team"), resource("team", "b"), ending])
    assert list(made) == ["team"]
    owners = made["team"]["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == ["uid-team-b", "uid-team-glm"]
    assert made["team"]["data"] == {"token": "aGY="}


def test_only_namespaces_of_the_setting_get_a_copy() -> None:
    found = [resource("team"), resource("other")]
    assert list(copies(TOKEN, "x", found)) == ["team"]
    everywhere = HubToken("hub", "token", ("*",))
    assert list(copies(everywhere, "x", found)) == ["other", "team"]
    assert copies(HubToken("hub", "token"), "x", found) == {}


async def test_a_new_namespace_gets_its_copy_at_once() -> None:
    rig = Rig(resource("team"))
    running = asyncio.create_task(rig.run(10))
    await asyncio.sleep(1)
    assert rig.copied("team") is not None and rig.copied("lab") is None
    rig.resources.append(resource("lab"))
    rig.copies.resource_changed(Key("lab", "glm"))
    await asyncio.sleep(1)
    assert rig.copied("lab") is not None
    await running


async def test_another_token_and_a_deleted_copy_are_written_again() -> None:
    rig = Rig(resource("team"))
    running = asyncio.create_task(rig.run(90))
    await asyncio.sleep(1)
    rig.server.put(ORIGINAL, {"metadata": {"name": "hub"}, "data": {"token": "bmV3"}})
    rig.server.remove(SECRET.path("team", "hub"))
    await running
    copied = rig.copied("team")
    assert copied is not None and copied["data"] == {"token": "bmV3"}


async def test_a_standby_writes_nothing() -> None:
    rig = Rig(resource("team"))
    rig.leading = False
    await rig.run(60)
    assert rig.copied("team") is None


@pytest.mark.parametrize("status", [409, 422])
async def test_a_secret_of_another_is_named_and_disturbs_no_other_namespace(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(resource("lab"), resource("team"))
    theirs = SECRET.path("lab", "hub")
    rig.faults.before = lambda request: (
        Refused(status, "Invalid", "type: field is immutable", causes=[{"field": "type"}])
        if request.path == theirs
        else None
    )
    with caplog.at_level(logging.WARNING, "autoglm.operator"):
        await rig.run(100)
    assert rig.copied("team") is not None
    (record,) = caplog.records
    assert getattr(record, "fields")["secret"] == "lab/hub"  # noqa: B009 -- set by the logger
    assert "another Secret has its name" in getattr(record, "fields")["error"]  # noqa: B009


async def test_a_missing_token_is_reported_once_and_picked_up_when_it_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(resource("team"))
    rig.server.remove(ORIGINAL)
    with caplog.at_level(logging.WARNING, "autoglm.operator"):
        running = asyncio.create_task(rig.run(200))
        await asyncio.sleep(100)
        rig.server.put(ORIGINAL, {"metadata": {"name": "hub"}, "data": {"token": "aGY="}})
        await running
    assert len(caplog.records) == 1
    assert rig.copied("team") is not None


async def test_without_a_token_nothing_is_read() -> None:
    rig = Rig(resource("team"), token=HubToken())
    await rig.copies.run()
    assert rig.faults.seen == []
