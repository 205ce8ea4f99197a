"""A changed profile reaches one resource after the other, and a missing one stops none."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fake_cluster import NOW, FakeCluster, resource
from tests.support.soak import examples

from autoglm.api import API_VERSION
from autoglm.api.profile import PROFILE_KIND
from autoglm.kube.kinds import Key
from autoglm.operator.plan import plan
from autoglm.operator.profiles import ProfileIndex, user_of
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.types import Plan

SETTINGS = OperatorSettings(inference_image="inference:1")
NAMES = ("a", "b", "c")


def profile(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "small", "uid": "p", "resourceVersion": "1"}
    head = {"apiVersion": API_VERSION, "kind": PROFILE_KIND, "metadata": metadata}
    return {**head, "spec": spec}


def cpu(amount: str) -> dict[str, Any]:
    """A profile that shows in the pods' requests, and in a flag of the engine."""
    engine = {"args": {"seed": int(amount)}}
    return profile(resources={"requests": {"cpu": amount}}, engine=engine)


def breaking(amount: str) -> str:
    """The flag of the profile with this amount, for pods that cannot start with it."""
    return f"--engine-arg=seed={amount}"


@dataclass
class Fleet:
    """Resources of one profile, each with a cluster of its own, reconciled as the operator does."""

    profile: dict[str, Any] | None
    usable: bool = True
    clusters: dict[str, FakeCluster] = field(default_factory=dict)
    index: ProfileIndex = field(default_factory=ProfileIndex)

    def add(self, name: str, **spec: Any) -> FakeCluster:
        vllm: dict[str, Any] = {"model": {"uri": "a/b"}, "engine": {"type": "vllm"}}
        own = resource(name, **vllm | {"profile": {"name": "small"}, **spec})
        self.clusters[name] = FakeCluster(own, routable=set())
        self.note(name)
        return self.clusters[name]

    def note(self, name: str) -> None:
        self.index.put(Key("ns", name), user_of(self.clusters[name].resource))

    def step(self, name: str) -> Plan:
        cluster = self.clusters[name]
        observed = replace(
            cluster.observed(),
            profile=self.profile,
            profile_users=self.index.users("small"),
            optional_kinds=frozenset({PROFILE_KIND} if self.usable else ()),
        )
        made = plan(observed, SETTINGS, NOW)
        cluster.carry_out(made)
        self.note(name)
        return made

    def settle(self) -> None:
        for _ in range(30):
            for name, cluster in self.clusters.items():
                self.step(name)
                cluster.move(0)

    def replacing(self) -> list[str]:
        """The resources with replicas of two revisions."""
        return [name for name, c in self.clusters.items() if len(c.deployments()) > 1]

    def cpus(self) -> dict[str, set[str]]:
        """CPU requests of the pods, by resource."""
        return {
            name: {
                pod["spec"]["containers"][0]["resources"]["requests"]["cpu"]
                for pod in cluster.pods.values()
            }
            for name, cluster in self.clusters.items()
        }

    def condition(self, name: str, type_: str) -> dict[str, Any] | None:
        found = self.clusters[name].resource["status"]["conditions"]
        return next((c for c in found if c["type"] == type_), None)


def fleet(**spec: Any) -> Fleet:
    made = Fleet(cpu("1"))
    for name in NAMES:
        made.add(name, replicas=2, **spec)
    made.settle()
    return made


def test_a_resource_gets_the_profile_that_it_names() -> None:
    made = fleet()

    assert made.cpus() == dict.fromkeys(NAMES, {"1"})
    assert (made.condition("a", "ProfileApplied") or {})["reason"] == "Applied"


def test_a_resource_without_a_profile_has_no_condition_of_it() -> None:
    made = Fleet(None)
    made.add("a", profile=None)
    made.settle()

    assert made.condition("a", "ProfileApplied") is None


@settings(max_examples=examples(10), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 3)), max_size=100))
def test_at_most_one_resource_replaces_replicas_and_all_arrive(
    order: list[tuple[str, int]],
) -> None:
    made = fleet()
    made.profile = cpu("2")
    for name, moves in order:
        made.step(name)
        for chosen in range(moves):
            made.clusters[name].move(chosen)
        assert len(made.replacing()) <= 1
    made.settle()

    assert made.cpus() == dict.fromkeys(NAMES, {"2"})
    assert made.replacing() == []


def test_a_profile_with_which_the_first_fails_reaches_no_other() -> None:
    made = fleet()
    for cluster in made.clusters.values():
        cluster.broken_flag = breaking("2")
    made.profile = cpu("2")
    made.settle()

    assert {name: found for name, found in made.cpus().items() if name != "a"} == {
        "b": {"1"},
        "c": {"1"},
    }
    assert made.clusters["a"].ready() == 2
    waiting = made.condition("b", "ProfileApplied") or {}
    assert (waiting["status"], waiting["reason"]) == ("False", "WaitingForTurn")
    assert (made.condition("b", "Ready") or {})["status"] == "True"


def test_a_correction_reaches_all() -> None:
    made = fleet()
    made.clusters["a"].broken_flag = breaking("2")
    made.profile = cpu("2")
    made.settle()
    made.profile = cpu("3")
    made.settle()

    assert made.cpus() == dict.fromkeys(NAMES, {"3"})


def test_an_edit_of_a_waiting_resource_rolls_out_with_the_earlier_profile() -> None:
    made = fleet()
    made.clusters["a"].broken_flag = breaking("2")
    made.profile = cpu("2")
    made.settle()
    made.clusters["b"].change(model={"uri": "a/b", "maxModelLen": 77})
    made.settle()

    flags = [p["spec"]["containers"][0]["args"] for p in made.clusters["b"].pods.values()]
    assert flags and all("--max-model-len=77" in each for each in flags)
    assert made.cpus()["b"] == {"1"}


def test_a_missing_profile_is_reported_with_the_way_out() -> None:
    made = Fleet(None)
    made.add("a")
    made.settle()

    ready = made.condition("a", "Ready") or {}
    assert (ready["status"], ready["reason"]) == ("False", "ProfileNotFound")
    assert (
        'spec.profile.name = "small": no AutoGLMProfile has this name; create it, or'
        in (ready["message"])
    )
    assert made.clusters["a"].pods == {}


def test_a_profile_that_is_deleted_stays_in_effect() -> None:
    made = fleet()
    made.profile = None
    made.settle()

    assert made.cpus() == dict.fromkeys(NAMES, {"1"})
    assert all(cluster.ready() == 2 for cluster in made.clusters.values())
    assert (made.condition("a", "Ready") or {})["reason"] == "ProfileNotFound"
    assert (made.condition("a", "ProfileApplied") or {})["reason"] == "ProfileNotFound"
    assert made.step("a") == replace(made.step("a"), apply=(), delete=(), status=None)


@pytest.mark.parametrize(
    ("usable", "unavailable", "words"),
    [
        (False, {}, "autoglmprofiles are not installed"),
        (False, {PROFILE_KIND: "403 Forbidden"}, "cannot list autoglmprofiles: 403 Forbidden"),
    ],
)
def test_the_message_says_why_no_profile_is_known(
    usable: bool, unavailable: dict[str, str], words: str
) -> None:
    cluster = FakeCluster(resource("a", profile={"name": "small"}))
    kinds = frozenset({PROFILE_KIND} if usable else ())
    observed = replace(cluster.observed(), optional_kinds=kinds, unavailable_kinds=unavailable)
    made = plan(observed, SETTINGS, NOW)

    assert made.status is not None and words in made.status["conditions"][0]["message"]


def test_an_invalid_profile_is_reported_where_it_is_named() -> None:
    made = Fleet(profile(resources={"limits": {"memory": "much"}}))
    made.add("a")
    made.settle()

    message = (made.condition("a", "Ready") or {})["message"]
    assert "the AutoGLMProfile is invalid" in message and "spec.resources.limits.memory" in message


def test_a_resource_that_a_profile_makes_invalid_keeps_the_earlier_one_and_holds_up_none() -> None:
    made = Fleet(cpu("1"))
    made.add("a", engine={"type": "vllm", "parallelism": {"tensor": 4}}, replicas=2)
    made.add("b", replicas=2)
    made.settle()
    made.profile = profile(resources={"requests": {"cpu": "2"}, "limits": {"nvidia.com/gpu": "2"}})
    made.settle()

    assert made.cpus() == {"a": {"1"}, "b": {"2"}}
    assert (made.condition("a", "Ready") or {})["reason"] == "InvalidSpec"


def test_another_profile_is_taken_at_once() -> None:
    made = fleet()
    # Another resource replaces its replicas meanwhile.
    made.profile = cpu("2")
    made.step("a")
    own = made.clusters["b"]
    own.change(profile={"name": "other"})
    other = {**cpu("9"), "metadata": {"name": "other"}}
    observed = replace(own.observed(), profile=other, optional_kinds=frozenset({PROFILE_KIND}))
    own.carry_out(plan(observed, SETTINGS, NOW))

    assert len(own.deployments()) == 2
