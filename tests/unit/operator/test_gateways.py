"""Merging the pools of several gateways, and polling them."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from autoglm.kube.kinds import Key
from autoglm.operator.gateways import (
    Endpoint,
    Gateways,
    Page,
    admin_urls,
    changed_keys,
    merge_pools,
)

GLM, OTHER = Key("ns", "glm"), Key("ns", "other")


def page(*pods: str, key: Key = GLM, ready: bool = True) -> Page:
    return Page([Endpoint(key.namespace, key.name, pod, ready) for pod in pods])


def test_a_pod_is_routable_when_every_gateway_has_it() -> None:
    assert merge_pools([page("a", "b"), page("b", "c")]) == {GLM: frozenset("b")}


def test_no_response_is_no_data_and_an_empty_response_is_no_pod() -> None:
    assert merge_pools([]) is None
    assert merge_pools([page()]) == {}
    assert merge_pools([page("a"), page()]) == {GLM: frozenset()}


def test_a_pod_that_is_not_ready_is_not_routable() -> None:
    assert merge_pools([page("a", ready=False)]) == {}


def test_only_changed_resources_are_notified_and_all_when_data_come_or_go() -> None:
    one = merge_pools([page("a")])
    two = merge_pools([Page(page("a").endpoints + page("x", key=OTHER).endpoints)])
    assert changed_keys(one, two) == {OTHER}
    assert changed_keys(one, one) == set()
    assert changed_keys(None, None) == set()
    assert changed_keys(None, one) is None
    assert changed_keys(one, None) is None


@pytest.mark.parametrize(
    ("endpoints", "ports", "urls"),
    [
        (
            [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}}],
            [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9191}],
            ("http://10.0.0.1:9191/routable",),
        ),
        ([{"addresses": ["10.0.0.1"]}], None, ("http://10.0.0.1:9090/routable",)),
        ([{"addresses": ["fd00::1"]}], [], ("http://[fd00::1]:9090/routable",)),
        ([{"addresses": ["10.0.0.1"], "conditions": {"ready": False}}], [], ()),
        (None, None, ()),
    ],
)
def test_ready_gateway_pods_are_polled_on_their_metrics_port(
    endpoints: Any, ports: Any, urls: tuple[str, ...]
) -> None:
    assert admin_urls([{"endpoints": endpoints, "ports": ports}]) == urls


async def test_responses_reach_the_resources_and_broken_ones_count_as_none() -> None:
    pages: list[Any] = [{"endpoints": [{"namespace": "ns", "deployment": "glm", "pod": "a"}]}]

    async def routable(request: web.Request) -> web.Response:
        return web.json_response(pages[-1])

    app = web.Application()
    app.router.add_get("/routable", routable)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    endpoint_slice = {
        "endpoints": [{"addresses": ["127.0.0.1"]}],
        "ports": [{"name": "metrics", "port": port}],
    }
    changes: asyncio.Queue[set[Key] | None] = asyncio.Queue()
    gateways = Gateways(lambda: [endpoint_slice], lambda: True, changes.put_nowait)
    assert gateways.routable(GLM) is None
    task = asyncio.create_task(gateways.run())
    assert await changes.get() is None
    assert (gateways.routable(GLM), gateways.routable(OTHER)) == (frozenset("a"), frozenset())
    pages.append({"unknown": 1})
    assert await changes.get() is None
    assert gateways.routable(GLM) is None
    task.cancel()
    await asyncio.wait((task,))
    await runner.cleanup()
