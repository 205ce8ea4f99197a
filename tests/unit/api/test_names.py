"""Whom a model name belongs to, and who may claim it."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.api.names import (
    NO_RULES,
    NameRule,
    NameRules,
    declared_names,
    owner_of,
    owners_of,
    read_rules,
    seniority,
)


@dataclass(frozen=True)
class Resource:
    namespace: str
    name: str
    names: tuple[str, ...]
    created: str = "2026"

    @property
    def seniority(self) -> tuple[str, str, str]:
        return seniority(self.created, self.namespace, self.name)


NAMES = st.sampled_from(["gpt-4o", "glm", "org/glm"])
RESOURCES = st.lists(
    st.builds(
        Resource,
        st.sampled_from(["a", "b", "platform"]),
        st.sampled_from("xyz"),
        st.lists(NAMES, max_size=3, unique=True).map(tuple),
        st.sampled_from(["2025", "2026"]),
    ),
    unique_by=lambda r: (r.namespace, r.name),
)
PATTERNS = st.lists(st.sampled_from(["*", "gpt-*", "glm", "org/?lm"]), max_size=2).map(tuple)
NAMESPACES = st.lists(st.sampled_from(["*", "a", "plat*"]), max_size=2).map(tuple)
RULES = st.lists(st.builds(NameRule, PATTERNS, NAMESPACES), max_size=3).map(
    lambda rules: NameRules(tuple(rules))
)


@given(RESOURCES, RULES, st.randoms())
def test_the_owner_is_the_oldest_that_may_claim_the_name_in_whatever_order_they_come(
    resources: list[Resource], rules: NameRules, rng: random.Random
) -> None:
    owners = owners_of(resources, rules)
    rng.shuffle(resources)
    assert owners_of(resources, rules) == owners
    for name in ("gpt-4o", "glm", "org/glm"):
        claimants = [r for r in resources if name in r.names]
        allowed = [r for r in claimants if rules.may_claim(r.namespace, name)]
        assert owners.get(name) == min(allowed, key=lambda r: r.seniority, default=None)
        assert owner_of(name, claimants, rules) == owners.get(name)


@pytest.mark.parametrize(
    ("namespace", "name", "allowed"),
    [
        ("platform", "gpt-4o", True),
        ("team-a", "gpt-4o", False),
        ("team-a", "team-a/glm", True),
        ("team-b", "team-a/glm", False),
        ("team-b", "glm", True),
        ("team-b", "GPT-4o", True),
    ],
)
def test_a_rule_reserves_names_for_namespaces(namespace: str, name: str, allowed: bool) -> None:
    rules = read_rules(
        '[{"names": ["gpt-*", "o?"], "namespaces": ["platform"]},'
        ' {"names": ["team-a/*"], "namespaces": ["team-a", "team-a-*"]}]'
    )
    assert rules.may_claim(namespace, name) is allowed


def test_without_rules_every_namespace_may_claim_every_name() -> None:
    assert read_rules("") == read_rules(" ") == NO_RULES
    assert NO_RULES.may_claim("a", "gpt-4o")


def test_a_name_reserved_for_no_namespace_is_nobodys() -> None:
    rules = read_rules('[{"names": ["*"], "namespaces": []}]')
    assert owners_of([Resource("a", "x", ("glm",))], rules) == {}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '[{"names": ["a"]}]',
        '[{"names": "a", "namespaces": []}]',
        "[1]",
        '[{"names": [], "namespaces": [], "namespaceSelector": {}}]',
    ],
)
def test_rules_that_cannot_be_read_are_an_error_that_shows_their_form(text: str) -> None:
    with pytest.raises(ValueError, match="is not JSON of the form"):
        read_rules(text)


def test_a_name_that_is_declared_twice_is_one() -> None:
    assert declared_names("r", None, ["a", "r"], ["a", ""]) == ("r", "a")
    assert declared_names("r", "s", [], []) == ("s",)
