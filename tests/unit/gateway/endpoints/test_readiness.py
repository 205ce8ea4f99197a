"""A gateway that is not ready says why, in sentences that name what it waits for."""

from __future__ import annotations

from autoglm.gateway.endpoints.deployments import Resource
from autoglm.gateway.endpoints.endpoint import Endpoint, EndpointView, Live, Phase, State
from autoglm.gateway.endpoints.readiness import before_lists, without_endpoint
from autoglm.kube.kinds import Key


def view(number: int, phase: Phase = Phase.CONNECTING, why: str = "refused") -> EndpointView:
    host = f"10.0.0.{number}"
    return EndpointView(Endpoint(f"grpc://{host}:1", "pod", host, 1), State(phase, why=why), Live())


def resource(name: str, state: str) -> Resource:
    return Resource(Key("default", name), state=state)


def test_a_gateway_without_endpoints_names_the_flags_that_give_it_some() -> None:
    [reason] = without_endpoint([], [])
    assert reason.startswith("it has no endpoints; give --endpoint,")


def test_a_model_without_a_ready_replica_is_named_with_its_state() -> None:
    resources = [resource("b", "b: Starting (load 3.2 GB)"), resource("a", "")]
    assert list(without_endpoint([view(1)], resources)) == [
        "no model has a ready replica",
        "b: Starting (load 3.2 GB)",
        "grpc://10.0.0.1:1 is connecting: refused",
    ]


def test_endpoints_without_resources_are_named_with_why_they_are_unusable() -> None:
    views = [view(2, Phase.EJECTED, "timeout"), view(1, why="")]
    assert list(without_endpoint(views, [])) == [
        "no endpoint is ready",
        "grpc://10.0.0.1:1 is connecting",
        "grpc://10.0.0.2:1 is ejected: timeout",
    ]


def test_of_many_endpoints_ten_are_named_and_the_others_counted() -> None:
    reasons = list(without_endpoint([view(number) for number in range(13)], []))
    assert len(reasons) == 12
    assert reasons[-1] == "and 3 more"


def test_a_gateway_of_a_cluster_waits_for_the_lists_then_for_endpoints_it_has_not_tried() -> None:
    [reason] = before_lists([], has_lists=False)
    assert "has not listed the AutoGLMDeployments yet" in reason
    views = [view(1, Phase.READY, ""), view(2, why="not connected yet")]
    assert list(before_lists(views, has_lists=True)) == [
        "1 of 2 endpoints have not been tried yet",
        "grpc://10.0.0.2:1 is connecting: not connected yet",
    ]
