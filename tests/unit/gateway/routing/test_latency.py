from random import Random
from typing import Any

import pytest
from tests.support.snapshots import take_snapshot

from autoglm.api.spec.traffic import Routing, ServiceLevel
from autoglm.gateway.endpoints.deployments import Resource, Rules, directory_of
from autoglm.gateway.routing import Decision, Memory, Reason, pick
from autoglm.gateway.routing.latency import Latency
from autoglm.kube.kinds import Key
from autoglm.validation import Operation, RequestInfo
from autoglm.validation.request_info import Prompt


def request_info(tokens: int = 1000, **fields: Any) -> RequestInfo:
    prompt = Prompt("text", 4 * tokens, tokens)
    return RequestInfo(Operation.GENERATE, "glm", prompts=(prompt,), streaming=True, **fields)


class Fleet:
    """Pods that took so long for the last prompt of 1,000 tokens; None of whom nothing is known."""

    def __init__(self, make: Any, *seconds: float | None, slo: float | None = None) -> None:
        self.make, self.memory = make, Memory()
        self.views = [make.view(n) for n in range(len(seconds))]
        rules = Rules(
            routing=Routing(policy="LatencyAware", slo=ServiceLevel(first_token_seconds=slo))
        )
        directory = directory_of([Resource(Key("n", "r"), names=("glm",), rules=rules)])
        self.snapshot = take_snapshot(self.views, directory)
        for view, time in zip(self.views, seconds, strict=True):
            if time is not None:
                sending = self.memory.latency.sent(view.url, 1000, 0.0)
                self.memory.latency.first_chunk(sending, time, is_first_token=True)

    def pick(self, now: float = 2.0) -> Decision:
        request = self.make.request(info=request_info())
        return pick(request, self.snapshot, now, Random(0), "LeastLoaded", memory=self.memory)

    def chosen(self, now: float = 2.0) -> int:
        return self.views.index(self.pick(now).endpoint)


def test_the_faster_pod_is_taken(make: Any) -> None:
    decision = Fleet(make, 0.9, 0.3).pick()
    assert decision.endpoint.url.startswith("grpc://10.0.0.1:")
    assert decision.reason is Reason.CRITERION and "1000 tokens to compute" in decision.why


def test_work_in_front_of_a_request_counts(make: Any) -> None:
    fleet = Fleet(make, 0.4, 0.3)
    fleet.memory.latency.sent(fleet.views[1].url, 4000, 1.0)
    assert fleet.chosen() == 0


def test_a_pod_without_room_makes_wait(make: Any) -> None:
    fleet = Fleet(make, 0.4, 0.3)
    fast = fleet.views[1]
    sending = fleet.memory.latency.sent(fast.url, 0, 0.0)
    fleet.memory.latency.first_chunk(sending, 0.1, is_first_token=True)
    fleet.memory.latency.ended(sending, 20.0)
    fast.live.in_flight = 8
    assert fleet.chosen() == 0


@pytest.mark.parametrize(("now", "chosen"), [(2.0, 1), (100.0, 0)])
def test_old_observations_say_nothing(make: Any, now: float, chosen: int) -> None:
    fleet = Fleet(make, 0.9, 0.3)
    fleet.memory.latency.sent(fleet.views[1].url, 500, 0.0)
    assert fleet.chosen(now) == chosen


def test_unknown_pods_are_tried_as_if_they_were_the_fastest(make: Any) -> None:
    assert Fleet(make, 0.9, None).chosen() == 1


def test_unknown_latency_is_reported(make: Any) -> None:
    decision = Fleet(make, None, None).pick()
    assert decision.reason is Reason.LATENCY_UNKNOWN and "responded recently" in decision.why


def test_pods_too_slow_for_the_objective_are_left_out(make: Any) -> None:
    decision = Fleet(make, 0.9, 0.3, 0.4, slo=0.5).pick()
    assert len(decision.trail.candidates) == 2 and decision.reason is Reason.CRITERION


def test_missed_objective_is_reported_and_the_soonest_taken(make: Any) -> None:
    fleet = Fleet(make, 0.9, 0.3, slo=0.01)
    decision = fleet.pick()
    assert decision.reason is Reason.SLO_MISSED and fleet.chosen() == 1


def test_first_chunk_of_a_whole_response_is_no_first_token() -> None:
    latency = Latency()
    sending = latency.sent("a", 100, 0.0)
    latency.first_chunk(sending, 50.0, is_first_token=False)
    assert latency.fastest(50.0) is None


def test_pending_work_is_settled_once(make: Any) -> None:
    latency, view = Latency(), make.view()
    first, second = latency.sent(view.url, 100, 0.0), latency.sent(view.url, 100, 0.0)
    quiet = Latency().predict(view, 100, 1.0, 1.0)
    latency.first_chunk(first, 1.0, is_first_token=False)
    latency.ended(first, 2.0)
    assert latency.predict(view, 0, 2.0, 1.0) == quiet
    latency.ended(second, 2.0)
    latency.forget(view.url)
    latency.ended(second, 3.0)
    assert latency.predict(view, 100, 3.0, 1.0) == quiet
