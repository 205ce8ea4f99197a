"""A discovery against a small API server on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
from tests.support.fake_kube import FakeKube, agd, endpoint_slice

from autoglm.gateway.endpoints.deployments import Key, Resource
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.endpoints.kubernetes_cluster import Change, Store
from autoglm.gateway.endpoints.kubernetes_discovery import KubernetesDiscovery
from autoglm.gateway.endpoints.kubernetes_objects import resource_of
from autoglm.gateway.endpoints.kubernetes_watch import Collection, follow

PATIENCE_SECONDS = 10.0


class Heard:
    """A listener that adds up the changes."""

    def __init__(self) -> None:
        self.changes = 0
        self.there: set[Endpoint] = set()
        self.dropped: list[str] = []
        self.owners: dict[str, Key] = {}
        self._told = asyncio.Event()

    def __call__(self, change: Change) -> None:
        self.changes += 1
        self.there = (self.there - change.gone) | change.come
        self.dropped += sorted(e.pod for e in change.gone)
        if change.directory is not None:
            self.owners = {name: r.key for name, r in change.directory.owners.items()}
        self._told.set()

    @property
    def names(self) -> set[str]:
        return set(self.owners)

    @property
    def pods(self) -> set[str]:
        return {e.pod for e in self.there}

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not fact():
                self._told.clear()
                await self._told.wait()


@asynccontextmanager
async def following(kube: FakeKube, *namespaces: str) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(
        KubernetesDiscovery(namespaces, kube.connect, heard, Random(1)).run()
    )
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def watching(kube: FakeKube, count: int = 2) -> None:
    """Until so many watches have begun."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        # A fact of sockets, which have no event to wait for.
        while sum("watch" in query for _, query in kube.requests) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as server:
        yield server


async def test_an_empty_cluster_is_reported_at_once(kube: FakeKube) -> None:
    async with following(kube) as heard:
        await heard.until(lambda: heard.changes == 1)
    assert (heard.there, heard.names) == (set(), set())


async def test_pods_and_models_come_and_go_as_events_say(kube: FakeKube) -> None:
    await kube.put(agd("glm"))
    async with following(kube) as heard:
        await heard.until(lambda: heard.names == {"glm"})
        await kube.put(endpoint_slice("glm", {"a": "10.0.0.1", "b": "10.0.0.2"}))
        await heard.until(lambda: heard.pods == {"a", "b"})
        going = {"a": {"ready": False, "serving": True, "terminating": True}}
        pods = {"a": "10.0.0.1", "b": "10.0.0.2"}
        await kube.put(endpoint_slice("glm", pods, conditions=going))
        await heard.until(lambda: heard.pods == {"b"})
        await kube.delete(agd("glm"))
        await heard.until(lambda: not heard.pods and not heard.names)


async def test_a_list_in_many_pages_is_one_list(kube: FakeKube) -> None:
    kube.page_objects = 3
    for number in range(10):
        await kube.put(agd(f"m{number}"))
        await kube.put(endpoint_slice(f"m{number}", {f"p{number}": f"10.0.0.{number}"}))
    async with following(kube) as heard:
        await heard.until(lambda: len(heard.pods) == 10)
    assert heard.changes == 1
    assert sum("continue" in query for _, query in kube.requests) == 6


async def test_only_the_given_namespaces_are_requested(kube: FakeKube) -> None:
    for namespace in ("a", "b", "c"):
        await kube.put(agd(f"in-{namespace}", namespace))
    async with following(kube, "a", "b") as heard:
        await heard.until(lambda: heard.names == {"in-a", "in-b"})
    assert {path.split("/")[5] for path, _ in kube.requests} == {"a", "b"}


async def test_state_outlives_the_api_server_and_resumes_where_it_broke(kube: FakeKube) -> None:
    await kube.put(agd("glm"))
    await kube.put(endpoint_slice("glm", {"a": "10.0.0.1"}))
    async with following(kube) as heard:
        await heard.until(lambda: heard.pods == {"a"})
        await watching(kube)
        await kube.stop()
        assert heard.pods == {"a"}
        await kube.put(endpoint_slice("glm", {"a": "10.0.0.1", "b": "10.0.0.2"}))
        await kube.start()
        await heard.until(lambda: heard.pods == {"a", "b"})
    assert heard.dropped == []
    assert sum("limit" in query for _, query in kube.requests) == 2


async def test_forgotten_history_is_listed_again_and_nothing_drops_in_between(
    kube: FakeKube,
) -> None:
    await kube.put(agd("glm"))
    await kube.put(endpoint_slice("glm", {"a": "10.0.0.1", "b": "10.0.0.2"}))
    async with following(kube) as heard:
        await heard.until(lambda: heard.pods == {"a", "b"})
        await watching(kube)
        await kube.stop()
        await kube.put(endpoint_slice("glm", {"b": "10.0.0.2", "c": "10.0.0.3"}))
        kube.forget()
        await kube.start()
        await heard.until(lambda: heard.pods == {"b", "c"})
        # Both kinds are listed twice, each in its own time.
        while sum("limit" in query for _, query in kube.requests) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert heard.dropped == ["a"]
    assert sum("limit" in query for _, query in kube.requests) == 4


async def test_an_error_event_leads_to_a_new_list(kube: FakeKube) -> None:
    await kube.put(agd("glm"))
    async with following(kube) as heard:
        await heard.until(lambda: heard.names == {"glm"})
        await watching(kube)
        await kube.say("ERROR", {"kind": "Status", "code": 410, "message": "too old"})
        await watching(kube, 4)
        await kube.put(endpoint_slice("glm", {"a": "10.0.0.1"}))
        await heard.until(lambda: heard.pods == {"a"})
    assert heard.names == {"glm"}


async def test_a_bookmark_moves_the_place_to_resume_from(kube: FakeKube) -> None:
    async with following(kube) as heard:
        await heard.until(lambda: heard.changes == 1)
        await watching(kube)
        await kube.say("BOOKMARK", {"kind": "Bookmark"})
        await kube.put(agd("glm"))
        await heard.until(lambda: heard.names == {"glm"})
        await kube.stop()
        kube.requests.clear()
        await kube.start()
        await watching(kube)
    assert {query["resourceVersion"] for _, query in kube.requests} == {"1", "2"}


async def test_one_unreadable_object_harms_no_other(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    await kube.put(agd("good"))
    async with following(kube) as heard:
        await heard.until(lambda: heard.names == {"good"})
        await kube.put(agd("good", spec={"model": "not a mapping"}))
        await kube.put(agd("other"))
        await heard.until(lambda: heard.names == {"good", "other"})
    assert "default/good, keeping the previous version" in caplog.text


def test_an_object_that_is_too_deep_harms_no_other() -> None:
    deep = '{"a":' * 9_000 + "1" + "}" * 9_000
    bodies = [json.dumps(agd(name, spec={"model": {}, "template": "deep"})) for name in "ab"]
    items = ",".join([bodies[0].replace('"deep"', deep), bodies[1]])
    page = f'{{"metadata":{{"resourceVersion":"1"}},"items":[{items}]}}'
    collection = Collection("AutoGLMDeployment", "/", resource_of)
    store: Store[Resource] = Store(lambda *_: None)
    # Nothing is requested: the page is here.
    reflector = follow(collection, store, FakeKube().connect, print, Random(1))

    _, objects = reflector.read_page(page.encode())

    assert {o.meta.name: o.fact is not None for o in objects} == {"a": True, "b": True}


@pytest.mark.parametrize(("status", "remedy"), [(403, "get, list and watch"), (404, "install")])
async def test_a_refusal_is_logged_once_with_the_way_out_until_it_ends(
    kube: FakeKube, caplog: pytest.LogCaptureFixture, status: int, remedy: str
) -> None:
    caplog.set_level(logging.INFO)
    kube.refuse = status
    async with following(kube) as heard:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(kube.requests) < 6:  # noqa: ASYNC110 the server's own count
                await asyncio.sleep(0.01)
        kube.refuse = 0
        await heard.until(lambda: heard.changes == 1)
        await watching(kube, 2)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2 and all(remedy in text for text in warnings)


async def test_the_older_resource_keeps_a_name_and_it_is_said_once(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    await kube.put(agd("young", created="2026-02-01T00:00:00Z", spec={"model": {"aliases": ["x"]}}))
    await kube.put(agd("old", created="2026-01-01T00:00:00Z", spec={"model": {"aliases": ["x"]}}))
    async with following(kube) as heard:
        await heard.until(lambda: heard.owners.get("x") == Key("default", "old"))
        await kube.put(agd("third"))
        await heard.until(lambda: "third" in heard.names)
        assert heard.owners["x"] == Key("default", "old")
    assert caplog.text.count("default/young does not serve 'x': the older default/old does") == 1
