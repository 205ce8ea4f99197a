"""Which of its names a resource does not get, as resources come, change and go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.api.names import NO_RULES, NameRule, NameRules, owners_of
from autoglm.kube.kinds import Key
from autoglm.operator.ownership.model_names import Claim, NameIndex, claim_of
from autoglm.operator.types import LostName

KEYS = [Key("a", "x"), Key("a", "y"), Key("b", "x")]
CLAIMS = st.lists(st.sampled_from("pqr"), max_size=3, unique=True).map(tuple)
RULES = st.sampled_from([NO_RULES, NameRules((NameRule(("p",), ("b",)),))])


@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.none() | CLAIMS, st.sampled_from(["1", "2"])),
        max_size=12,
    ),
    RULES,
)
def test_lost_names_follow_from_all_claims_and_affected_resources_are_returned(
    changes: list[tuple[Key, tuple[str, ...] | None, str]], rules: NameRules
) -> None:
    index, claims = NameIndex(rules), dict[Key, Claim]()
    for key, names, created in changes:
        before = {k: index.lost(k) for k in KEYS}
        claim = None if names is None else Claim(key, names, created)
        concerned = index.put(key, claim)
        claims.pop(key, None)
        claims |= {key: claim} if claim else {}
        owners = owners_of(claims.values(), rules)
        for other in KEYS:
            declared = claims[other].names if other in claims else ()
            lost = [n for n in declared if n not in owners or owners[n].key != other]
            assert [found.name for found in index.lost(other)] == lost
            assert all(
                found.owner
                == (
                    owners[found.name].key if rules.may_claim(other.namespace, found.name) else None
                )
                for found in index.lost(other)
            )
            assert other in {key, *concerned} or index.lost(other) == before[other]


def test_a_change_that_declares_the_same_concerns_no_other() -> None:
    index = NameIndex()
    for key in KEYS:
        index.put(key, Claim(key, ("p",)))
    assert index.put(KEYS[0], Claim(KEYS[0], ("p",))) == set()
    assert index.lost(KEYS[1]) == (LostName("p", KEYS[0]),)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"model": {"servedName": "s", "aliases": ["a"], "adapters": [{"name": "l"}]}}, "sal"),
        ({"model": {"servedName": 5, "aliases": ["a", 5], "adapters": [5, {}, {"name": 5}]}}, "xa"),
        ({"model": {"aliases": "a", "adapters": {}}}, "x"),
        ({"model": "m"}, "x"),
        (None, "x"),
    ],
)
def test_a_claim_is_read_from_whatever_a_user_wrote(spec: Any, names: str) -> None:
    resource = {"metadata": {"name": "x", "namespace": "a"}, "spec": spec}
    claim = claim_of(resource)
    assert claim is not None
    assert claim.names == tuple(names)
