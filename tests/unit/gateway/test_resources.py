import random

from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.resources import Conflict, Key, Resource, conflicts_in, directory_of

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


def test_of_equal_age_the_first_by_name_wins() -> None:
    a, b = (Resource(Key("n", name), "2026", ("glm",)) for name in "ab")
    assert conflicts_in(directory_of([b, a])) == {Conflict(b.key, "glm", a.key)}
