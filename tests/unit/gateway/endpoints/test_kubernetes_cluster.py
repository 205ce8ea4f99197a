"""What follows from a cluster's objects does not depend on the order of their events."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.endpoints.deployments import Directory, Resource, directory_of
from autoglm.gateway.endpoints.endpoint import Endpoint
from autoglm.gateway.endpoints.kubernetes_cluster import Change, Cluster, endpoints_of
from autoglm.gateway.endpoints.kubernetes_objects import Mention, Slice
from autoglm.kube.kinds import Key
from autoglm.kube.typed_store import Decoded, TypedStore

T = TypeVar("T")
GLM = Key("default", "glm")
SLICE = Key("default", "s")
PODS = st.integers(1, 4)


@st.composite
def mentions(draw: st.DrawFn) -> Mention:
    number, is_v6 = draw(PODS), draw(st.booleans())
    family, host = ("IPv6", f"fd00::{number}") if is_v6 else ("IPv4", f"10.0.0.{number}")
    pod = f"glm-{number}"
    return Mention(family, host, draw(st.sampled_from([1, 2])), pod, pod, draw(st.booleans()))


SLICES = st.lists(st.lists(mentions(), max_size=6), max_size=5)


def slice_(*found: Mention, of: Key = GLM) -> Slice:
    return Slice(of, found)


def mention(number: int = 1, is_usable: bool = True, port: int = 50051) -> Mention:
    pod = f"glm-{number}"
    return Mention("IPv4", f"10.0.0.{number}", port, pod, pod, is_usable)


def endpoint(number: int = 1, of: Key = GLM, port: int = 50051) -> Endpoint:
    host = f"10.0.0.{number}"
    url = f"grpc://{host}:{port}"
    return Endpoint(url, "pod", host, port, origin=of, pod=f"glm-{number}")


@given(SLICES, st.randoms())
def test_order_of_slices_and_of_mentions_does_not_matter(
    found: list[list[Mention]], rng: random.Random
) -> None:
    before = endpoints_of(GLM, [slice_(*part) for part in found])
    for part in found:
        rng.shuffle(part)
    rng.shuffle(found)
    assert endpoints_of(GLM, [slice_(*part) for part in found]) == before


@given(SLICES)
def test_a_pod_is_one_endpoint_however_often_it_is_named(found: list[list[Mention]]) -> None:
    slices = [slice_(*part) for part in found]
    endpoints = endpoints_of(GLM, [*slices, *slices])
    assert endpoints == endpoints_of(GLM, slices)
    assert len({e.pod for e in endpoints}) == len({e.url for e in endpoints}) == len(endpoints)


@given(SLICES)
def test_a_pod_is_used_exactly_when_all_its_mentions_are_usable(
    found: list[list[Mention]],
) -> None:
    by_pod: dict[str, list[bool]] = {}
    for named in (named for part in found for named in part):
        by_pod.setdefault(named.pod, []).append(named.is_usable)
    used = {e.pod for e in endpoints_of(GLM, [slice_(*part) for part in found])}
    assert used == {pod for pod, usable in by_pod.items() if all(usable)}


def test_a_pod_with_two_addresses_is_dialled_by_its_ipv4() -> None:
    v6 = Mention("IPv6", "fd00::1", 50051, "glm-1", "glm-1", is_usable=True)
    assert endpoints_of(GLM, [slice_(v6), slice_(mention())]) == {endpoint()}
    (alone,) = endpoints_of(GLM, [slice_(v6)])
    assert (alone.url, alone.address) == ("grpc://[fd00::1]:50051", "[fd00::1]:50051")


class Watched:
    """A cluster with one collection of each kind."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.resources = self.cluster.resource_store()
        self.slices = self.cluster.slice_store()

    def lists(self, *numbers: int) -> Change | None:
        self.resources.replace([Decoded(GLM, Resource(GLM, names=("glm",)))])
        self.slices.replace([Decoded(SLICE, slice_(*map(mention, numbers)))])
        return self.cluster.take_change()


def test_nothing_is_reported_before_all_lists_have_come() -> None:
    watched = Watched()
    watched.resources.replace([Decoded(GLM, Resource(GLM))])
    assert watched.cluster.take_change() is None
    watched.slices.replace(())
    assert watched.cluster.take_change() == Change(directory=directory_of([Resource(GLM)]))


def test_a_cluster_without_resources_is_reported_too() -> None:
    watched = Watched()
    watched.resources.replace(())
    watched.slices.replace(())
    assert watched.cluster.take_change() == Change(directory=Directory({}, {}))
    assert watched.cluster.take_change() is None


def test_only_what_is_new_is_reported() -> None:
    watched = Watched()
    first = watched.lists(1, 2)
    assert first is not None and first.come == {endpoint(1), endpoint(2)}
    watched.slices.put(Decoded(SLICE, slice_(mention(1, is_usable=False), mention(3))))
    gone, come = frozenset({endpoint(1), endpoint(2)}), frozenset({endpoint(3)})
    assert watched.cluster.take_change() == Change(gone, come)
    assert watched.cluster.take_change() is None


def test_a_second_list_drops_nothing_that_is_still_there() -> None:
    watched = Watched()
    watched.lists(1, 2)
    assert watched.lists(1, 2) is None


def test_an_object_that_cannot_be_read_stays_as_it_was() -> None:
    watched = Watched()
    watched.lists(1)
    watched.slices.replace([Decoded(SLICE, None)])
    assert watched.cluster.take_change() is None


def test_pods_without_their_resource_are_not_used() -> None:
    watched = Watched()
    watched.lists(1)
    watched.resources.remove(Decoded(GLM, None))
    assert watched.cluster.take_change() == Change(
        gone=frozenset({endpoint()}), directory=Directory({}, {})
    )


def test_a_pod_at_the_address_of_another_is_another_endpoint() -> None:
    watched = Watched()
    watched.lists(1)
    heir = replace(mention(), pod="heir", uid="heir")
    watched.slices.put(Decoded(SLICE, slice_(heir)))
    change = watched.cluster.take_change()
    assert change is not None
    assert change.gone == {endpoint()} and {e.pod for e in change.come} == {"heir"}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["slice", "resource"]),
        st.integers(0, 2),
        st.one_of(st.none(), st.lists(mentions(), max_size=3)),
    ),
    max_size=20,
)


def put(store: TypedStore[T], key: Key, value: T | None) -> None:
    """An event that the object was written, or deleted."""
    (store.remove if value is None else store.put)(Decoded(key, value))


@given(STEPS)
def test_changes_add_up_to_what_a_list_would_report(
    steps: list[tuple[str, int, list[Mention] | None]],
) -> None:
    watched, fresh = Watched(), Watched()
    watched.resources.replace(())
    watched.slices.replace(())
    there: set[Endpoint] = set()
    slices: dict[Key, Slice] = {}
    resources: dict[Key, Resource] = {}
    for kind, number, found in steps:
        key, name = Key("default", f"o{number}"), Key("default", f"glm{number % 2}")
        if kind == "slice":
            fact = None if found is None else slice_(*found, of=name)
            put(watched.slices, key, fact)
            slices = {k: s for k, s in (slices | {key: fact}).items() if s is not None}
        else:
            resource = None if found is None else Resource(name)
            put(watched.resources, name, resource)
            both = resources | {name: resource}
            resources = {k: r for k, r in both.items() if r is not None}
        change = watched.cluster.take_change() or Change()
        assert change.gone <= there and not change.come & there
        there = (there - change.gone) | change.come
    fresh.slices.replace([Decoded(*item) for item in slices.items()])
    fresh.resources.replace([Decoded(*item) for item in resources.items()])
    whole = fresh.cluster.take_change() or Change()
    assert there == whole.come
