import random

from hypothesis import given
from hypothesis import strategies as st

from autoglm.api.names import NameRule, NameRules
from autoglm.gateway.endpoints.deployments import (
    Conflict,
    Resource,
    conflicts_in,
    directory_of,
)
from autoglm.kube.kinds import Key

NAMES = st.lists(st.sampled_from("abc"), max_size=3).map(tuple)
RESOURCES = st.lists(
    st.builds(
        Resource,
        st.builds(Key, st.sampled_from(["n1", "n2"]), st.sampled_from(["x", "y"])),
        st.sampled_from(["2026-01-01", "2026-01-02"]),
        NAMES,
    ),
    unique_by=lambda resource: resource.key,
)


@given(RESOURCES, st.randoms())
def test_a_name_belongs_to_the_oldest_in_whatever_order_they_come(
    resources: list[Resource], rng: random.Random
) -> None:
    found = directory_of(resources)
    for name, owner in found.owners.items():
        assert owner.seniority == min(r.seniority for r in resources if name in r.names)
    rng.shuffle(resources)
    assert directory_of(resources) == found


@given(RESOURCES)
def test_a_conflict_is_a_declared_name_that_another_owns(resources: list[Resource]) -> None:
    found = directory_of(resources)
    lost = {(c.loser, c.name) for c in conflicts_in(found)}
    declared = {(r.key, name) for r in resources for name in r.names}
    owned = {(owner.key, name) for name, owner in found.owners.items()}
    assert lost == declared - owned


def test_a_name_that_its_namespace_may_not_claim_is_a_conflict_without_an_owner() -> None:
    rules = NameRules((NameRule(("gpt-*",), ("platform",)),))
    older = Resource(Key("team", "a"), "2025", ("gpt-4o", "glm"))
    found = directory_of([older, Resource(Key("platform", "b"), "2026", ("gpt-4o",))], rules)
    assert {name: owner.key for name, owner in found.owners.items()} == {
        "gpt-4o": Key("platform", "b"),
        "glm": Key("team", "a"),
    }
    assert conflicts_in(found) == {Conflict(older.key, "gpt-4o", None)}


def test_of_equal_age_the_first_by_name_wins() -> None:
    a, b = (Resource(Key("n", name), "2026", ("glm",)) for name in "ab")
    assert conflicts_in(directory_of([b, a])) == {Conflict(b.key, "glm", a.key)}
