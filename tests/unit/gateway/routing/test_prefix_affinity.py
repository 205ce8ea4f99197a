from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.snapshots import take_snapshot
from tests.support.soak import examples

from autoglm.gateway.endpoints.endpoint import Load
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.routing import Decision, Memory, Reason, pick
from autoglm.gateway.routing.policies import load_bound
from autoglm.gateway.routing.scorers import share_in_use
from autoglm.validation import Operation, RequestInfo
from autoglm.validation.prefix_hash import Prefix

IN_MAKE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(60)
)
LONG = Prefix(tuple(range(1, 41)), 99)


class Fleet:
    def __init__(self, make: Any, loads: list[int], memory: Memory | None = None) -> None:
        self.make, self.memory = make, memory or Memory()
        self.views = [make.view(n, running=load) for n, load in enumerate(loads)]

    def decide(self, prefix: Prefix = LONG, session: str = "", **request: Any) -> Decision:
        info = RequestInfo(Operation.CHAT, "glm", prefix=prefix, session=session)
        call_ = self.make.request(info=info, **request)
        snapshot = take_snapshot(self.views)
        decision = pick(call_, snapshot, 0, Random(0), memory=self.memory, default="PrefixAffinity")
        self.memory.picked(call_, decision.endpoint, decision.known)
        return decision


def test_a_prompt_goes_where_its_beginning_is(make: Any) -> None:
    fleet = Fleet(make, [0] * 8)
    first = fleet.decide()
    longer = Prefix((*LONG.blocks, 77), 5)
    again = fleet.decide(longer)
    assert again.endpoint == first.endpoint and again.reason is Reason.PREFIX
    assert "holds 40 of 41 blocks" in again.why


def test_load_overrides_affinity(make: Any) -> None:
    fleet = Fleet(make, [0] * 8)
    first = fleet.decide()
    first.endpoint.live.in_flight = 7
    assert fleet.decide().endpoint == first.endpoint, "a free place in its batch is enough"
    first.endpoint.live.in_flight = 8
    elsewhere = fleet.decide()
    assert elsewhere.endpoint != first.endpoint and elsewhere.reason is Reason.OVERLOADED
    assert first.endpoint.url in elsewhere.why


def test_a_pod_without_a_batch_gets_little_more_than_others(make: Any) -> None:
    fleet = Fleet(make, [0] * 8)
    for view in fleet.views:
        view.live.take(Load())
    first = fleet.decide()
    first.endpoint.live.in_flight = first.endpoint.live.capacity // 2
    assert fleet.decide().reason is Reason.OVERLOADED


@given(loads=st.lists(st.integers(0, 12), min_size=2, max_size=9), holder=st.integers(0, 8))
@IN_MAKE
def test_no_pod_over_the_bound_is_taken(make: Any, loads: list[int], holder: int) -> None:
    fleet = Fleet(make, loads)
    fleet.memory.prefixes.add(fleet.views[holder % len(loads)].url, LONG.blocks, 0)
    shares = [share_in_use(view.live) for view in fleet.views]
    taken = share_in_use(fleet.decide().endpoint.live)
    assert taken <= load_bound(fleet.views, shares)
    assert taken < 1 or min(shares) >= 1


def test_tenants_do_not_learn_of_each_others_prompts(make: Any) -> None:
    fleet = Fleet(make, [0] * 8)
    fleet.decide(principal=Principal("one", "k"))
    assert fleet.decide(principal=Principal("two", "k")).reason is not Reason.PREFIX


def test_gateways_place_a_new_conversation_alike(make: Any) -> None:
    picked = []
    for _ in range(2):
        fleet = Fleet(make, [0] * 8)
        conversations = [Prefix((n, n + 1), n, is_continued=True) for n in range(1000, 1100)]
        picked.append([fleet.decide(c).endpoint.url for c in conversations])
    assert picked[0] == picked[1] and len(set(picked[0])) == 8


def test_a_session_stays_where_it_is_whatever_it_requests(make: Any) -> None:
    fleet = Fleet(make, [0] * 8)
    decisions = [fleet.decide(Prefix((n,), n), session="s1") for n in range(100, 120)]
    assert len({d.endpoint.url for d in decisions}) == 1
    assert {d.reason for d in decisions} == {Reason.SESSION}


def test_a_session_of_another_tenant_is_another(make: Any) -> None:
    urls = {
        Fleet(make, [0] * 8).decide(Prefix(), "s", principal=Principal(f"t{n}", "k")).endpoint.url
        for n in range(30)
    }
    assert len(urls) > 4


def test_short_prompts_are_spread(make: Any) -> None:
    views = [make.view(n) for n in range(4)]
    request = make.request(info=RequestInfo(Operation.CHAT, "glm", prefix=Prefix((), 99)))
    seen = {
        pick(request, take_snapshot(views), 0, Random(n), default="PrefixAffinity").endpoint.url
        for n in range(50)
    }
    assert seen == {view.url for view in views}


@pytest.mark.parametrize("prefix", [Prefix(), Prefix((), 99)])
def test_prompt_without_blocks_is_reported(make: Any, prefix: Prefix) -> None:
    assert Fleet(make, [1, 0]).decide(prefix).reason is Reason.PROMPT_UNKNOWN


def test_prompts_never_seen_again_are_placed_by_load(make: Any) -> None:
    fleet = Fleet(make, [1, 1, 1, 0, 1, 1, 1, 1])
    idle = fleet.views[3]
    assert {fleet.decide(Prefix((n,), n)).endpoint.url for n in range(100, 150)} == {idle.url}
