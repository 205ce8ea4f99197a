"""A discovery against an API server in memory, in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from tests.support.kube.fake_api_server import FakeApiServer, Faults
from tests.support.kube.objects import agd, endpoint_slice

from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.endpoints.kubernetes_cluster import Change
from autoglm.gateway.endpoints.kubernetes_discovery import KubernetesDiscovery, configure
from autoglm.kube.kinds import RESOURCE, Key
from autoglm.kube.reflector import Connect, Reader
from autoglm.kube.transport import PlainReader, Refused, Request

pytestmark = pytest.mark.looptime
PATIENCE_SECONDS = 60.0


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
async def following(connect: Connect, *namespaces: str) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(KubernetesDiscovery(namespaces, connect, heard, Random(1)).run())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def requested(server: FakeApiServer, parameter: str, count: int) -> None:
    """Until so many queries with the parameter have come."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        # The server's own count, which has no event to wait for.
        while len(server.queries(parameter)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.fixture
def kube() -> FakeApiServer:
    return FakeApiServer()


async def test_an_empty_cluster_is_reported_at_once(kube: FakeApiServer) -> None:
    async with following(kube.connect) as heard:
        await heard.until(lambda: heard.changes == 1)
    assert (heard.there, heard.names) == (set(), set())


async def test_pods_and_models_come_and_go_as_events_say(kube: FakeApiServer) -> None:
    kube.add(agd("glm"))
    async with following(kube.connect) as heard:
        await heard.until(lambda: heard.names == {"glm"})
        kube.add(endpoint_slice("glm", {"a": "10.0.0.1", "b": "10.0.0.2"}))
        await heard.until(lambda: heard.pods == {"a", "b"})
        going = {"a": {"ready": False, "serving": True, "terminating": True}}
        pods = {"a": "10.0.0.1", "b": "10.0.0.2"}
        kube.add(endpoint_slice("glm", pods, conditions=going))
        await heard.until(lambda: heard.pods == {"b"})
        kube.delete(agd("glm"))
        await heard.until(lambda: not heard.pods and not heard.names)


async def test_a_list_in_many_pages_is_one_list(kube: FakeApiServer) -> None:
    kube.page_objects = 3
    for number in range(10):
        kube.add(agd(f"m{number}"))
        kube.add(endpoint_slice(f"m{number}", {f"p{number}": f"10.0.0.{number}"}))
    async with following(kube.connect) as heard:
        await heard.until(lambda: len(heard.pods) == 10)
    assert heard.changes == 1
    assert len(kube.queries("continue")) == 6


async def test_only_the_given_namespaces_are_requested(kube: FakeApiServer) -> None:
    for namespace in ("a", "b", "c"):
        kube.add(agd(f"in-{namespace}", namespace))
    async with following(kube.connect, "a", "b") as heard:
        await heard.until(lambda: heard.names == {"in-a", "in-b"})
    assert {request.path.split("/")[5] for request in kube.requests} == {"a", "b"}


async def test_state_outlives_the_api_server_and_resumes_where_it_broke(
    kube: FakeApiServer,
) -> None:
    kube.add(agd("glm"))
    kube.add(endpoint_slice("glm", {"a": "10.0.0.1"}))
    async with following(kube.connect) as heard:
        await heard.until(lambda: heard.pods == {"a"})
        await requested(kube, "watch", 2)
        kube.stop()
        assert heard.pods == {"a"}
        kube.add(endpoint_slice("glm", {"a": "10.0.0.1", "b": "10.0.0.2"}))
        kube.start()
        await heard.until(lambda: heard.pods == {"a", "b"})
    assert heard.dropped == []
    assert len(kube.queries("limit")) == 2


async def test_forgotten_history_is_listed_again_and_nothing_drops_in_between(
    kube: FakeApiServer,
) -> None:
    kube.add(agd("glm"))
    kube.add(endpoint_slice("glm", {"a": "10.0.0.1", "b": "10.0.0.2"}))
    async with following(kube.connect) as heard:
        await heard.until(lambda: heard.pods == {"a", "b"})
        await requested(kube, "watch", 2)
        kube.stop()
        kube.add(endpoint_slice("glm", {"b": "10.0.0.2", "c": "10.0.0.3"}))
        kube.compact()
        kube.start()
        await heard.until(lambda: heard.pods == {"b", "c"})
        # Both kinds are listed twice, each in its own time.
        await requested(kube, "limit", 4)
    assert heard.dropped == ["a"]
    assert len(kube.queries("limit")) == 4


async def test_an_error_event_leads_to_a_new_list(kube: FakeApiServer) -> None:
    kube.add(agd("glm"))
    async with following(kube.connect) as heard:
        await heard.until(lambda: heard.names == {"glm"})
        await requested(kube, "watch", 2)
        kube.publish("ERROR", {"kind": "Status", "code": 410, "message": "too old"})
        await requested(kube, "watch", 4)
        kube.add(endpoint_slice("glm", {"a": "10.0.0.1"}))
        await heard.until(lambda: heard.pods == {"a"})
    assert heard.names == {"glm"}


async def test_a_bookmark_moves_the_place_to_resume_from(kube: FakeApiServer) -> None:
    async with following(kube.connect) as heard:
        await heard.until(lambda: heard.changes == 1)
        await requested(kube, "watch", 2)
        kube.publish("BOOKMARK", {"kind": "Bookmark"})
        kube.add(agd("glm"))
        await heard.until(lambda: heard.names == {"glm"})
        kube.stop()
        kube.requests.clear()
        kube.start()
        await requested(kube, "watch", 2)
    assert {query["resourceVersion"] for query in kube.queries("watch")} == {"1", "2"}


async def test_one_unreadable_object_harms_no_other(
    kube: FakeApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    kube.add(agd("good"))
    async with following(kube.connect) as heard:
        await heard.until(lambda: heard.names == {"good"})
        kube.add(agd("good", spec={"model": "not a mapping"}))
        kube.add(agd("other"))
        await heard.until(lambda: heard.names == {"good", "other"})
    assert "default/good, keeping the previous version" in caplog.text


async def test_an_object_that_is_too_deep_harms_no_other() -> None:
    deep = '{"a":' * 9_000 + "1" + "}" * 9_000
    bodies = [json.dumps(agd(name, spec={"model": {}, "template": "deep"})) for name in "ab"]
    items = ",".join([bodies[0].replace('"deep"', deep), bodies[1]])
    page = f'{{"metadata":{{"resourceVersion":"1"}},"items":[{items}]}}'.encode()

    class Pages(FakeApiServer):
        async def send(self, request: Request, timeout: float) -> bytes:
            is_list = request.path.endswith(RESOURCE.plural)
            return page if is_list else await super().send(request, timeout)

    async with following(Pages().connect) as heard:
        await heard.until(lambda: heard.names == {"a", "b"})


@pytest.mark.parametrize(("status", "remedy"), [(403, "get, list and watch"), (404, "install")])
async def test_a_refusal_is_logged_once_with_the_way_out_until_it_ends(
    kube: FakeApiServer, caplog: pytest.LogCaptureFixture, status: int, remedy: str
) -> None:
    caplog.set_level(logging.INFO)
    faults = Faults(kube, before=lambda _: Refused(status, "No", "no rights"))

    @asynccontextmanager
    async def connect() -> AsyncIterator[Reader]:
        yield PlainReader(faults)

    async with following(connect) as heard:
        await asyncio.sleep(30)
        faults.before = lambda _: None
        await heard.until(lambda: heard.changes == 1)
        await requested(kube, "watch", 2)
    assert len(faults.seen) > 6
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all(f"the API server returned {status}: no rights; " in text for text in warnings)
    assert all(remedy in text for text in warnings)


async def test_the_older_resource_keeps_a_name_and_it_is_said_once(
    kube: FakeApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    kube.add(agd("young", created="2026-02-01T00:00:00Z", spec={"model": {"aliases": ["x"]}}))
    kube.add(agd("old", created="2026-01-01T00:00:00Z", spec={"model": {"aliases": ["x"]}}))
    async with following(kube.connect) as heard:
        await heard.until(lambda: heard.owners.get("x") == Key("default", "old"))
        kube.add(agd("third"))
        await heard.until(lambda: "third" in heard.names)
        assert heard.owners["x"] == Key("default", "old")
    assert caplog.text.count("default/young does not serve 'x': the older default/old does") == 1


async def test_a_missing_configuration_names_what_was_tried_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    missing = str(tmp_path / "none")
    with pytest.raises(ValueError, match=f"by kubeconfig {missing}: .* give --kubeconfig FILE"):
        await configure(missing)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ValueError, match="by the pod's service account: "):
        await configure()
