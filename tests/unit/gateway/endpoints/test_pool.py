"""The pool's snapshot, kept up to date step by step, is the one made from scratch."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.snapshots import take_snapshot

from autoglm import v1
from autoglm.gateway.endpoints.deployments import Directory, Resource, directory_of
from autoglm.gateway.endpoints.endpoint import (
    Disconnected,
    Endpoint,
    Load,
    Loaded,
    ModelsDiscovered,
)
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.snapshot import ModelView, Snapshot
from autoglm.kube.kinds import Key

KEYS = (Key("n", "a"), Key("n", "b"))


def endpoint(number: int) -> Endpoint:
    host = f"10.0.0.{number}"
    origin = (None, *KEYS)[number % 3]
    return Endpoint(f"grpc://{host}:1", "pod", host, 1, origin=origin)


def resources(names: list[str]) -> Directory:
    pairs = zip(KEYS, names, strict=False)
    return directory_of(Resource(key, "2026", (name,)) for key, name in pairs)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5))),
        st.tuples(st.just("learn"), st.integers(0, 5), st.sampled_from("xyz")),
        st.tuples(st.just("lose"), st.integers(0, 5), st.none()),
        st.tuples(st.just("directory"), st.lists(st.sampled_from("xyz"), max_size=2), st.none()),
        st.tuples(st.just("look"), st.none(), st.none()),
    ),
    max_size=25,
)


def carry_out(pool: Pool, step: tuple[str, Any, Any], now: float) -> None:
    match step:
        case ("change", gone, come):
            known = {view.endpoint for view in pool.views}
            new = [endpoint(n) for n in come - gone if endpoint(n) not in known]
            pool.change_endpoints([endpoint(n).url for n in gone], new, now)
        case ("learn", number, name):
            pool.apply(
                endpoint(number).url, ModelsDiscovered((v1.Model(name=name, aliases=["w"]),)), now
            )
            pool.apply(endpoint(number).url, Loaded(Load()), now)
        case ("lose", number, _):
            pool.apply(endpoint(number).url, Disconnected("gone"), now)
        case ("directory", names, _):
            pool.replace_directory(resources(names))
        case _:
            assert pool.snapshot


def urls(view: ModelView) -> tuple[Any, ...]:
    return (
        {v.url for v in view.grpc},
        {v.url for v in view.http},
        view.resource.key if view.resource else None,
    )


def summary(snapshot: Snapshot) -> dict[str, Any]:
    return {name: urls(view) for name, view in snapshot.models.items()}


@given(STEPS)
def test_a_snapshot_is_the_same_as_one_made_from_scratch(steps: list[Any]) -> None:
    pool = Pool(Random(0))
    for now, step in enumerate(steps):
        carry_out(pool, step, float(now))
    whole = take_snapshot(pool.views, pool.directory)
    assert summary(pool.snapshot) == summary(whole)
    assert pool.snapshot.is_ready == whole.is_ready
    assert pool.snapshot.unreached == whole.unreached


def test_a_pool_that_awaits_lists_is_ready_once_every_endpoint_was_met() -> None:
    pool = Pool(Random(0), awaits_lists=True)
    pool.change_endpoints([], [endpoint(0), endpoint(1)], 0)
    seen = [pool.is_ready]
    pool.replace_directory(Directory())
    seen.append(pool.is_ready)
    pool.apply(endpoint(0).url, Disconnected("refused"), 0)
    seen.append(pool.is_ready)
    pool.apply(endpoint(1).url, Disconnected("refused"), 0)
    seen.append(pool.is_ready)
    pool.change_endpoints([], [endpoint(2)], 0)
    assert [*seen, pool.is_ready] == [False, False, False, True, True]


def test_an_endpoint_of_another_pod_at_the_same_url_starts_fresh() -> None:
    pool = Pool(Random(0))
    pool.change_endpoints([], [endpoint(1)], 0)
    pool.apply(endpoint(1).url, ModelsDiscovered((v1.Model(name="x"),)), 0)
    assert "x" in pool.snapshot.models
    pool.change_endpoints([endpoint(1).url], [endpoint(1)], 1)
    assert "x" not in pool.snapshot.models
