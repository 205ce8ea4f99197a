"""The picker's responses to checks: what Envoy sets on a request, and what its client gets."""

from __future__ import annotations

import base64

import pytest
import yaml

from autoglm.common import errors, status
from autoglm.gateway.envoy.check_edge import directed, rejected
from autoglm.gateway.envoy.config import denied_replies, denied_status
from autoglm.gateway.envoy.exchange import Directions
from autoglm.validation.http_errors import to_http


def test_a_request_is_directed_by_header_fields() -> None:
    found = directed(Directions("a:1", {"x-request-id": "r"}, ("cookie", "x-api-key")))
    assert found == [
        (b"x-request-id", b"r"),
        (b"x-envoy-auth-headers-to-remove", b"cookie,x-api-key"),
    ]


def test_a_request_for_the_gateways_own_server_is_not_changed() -> None:
    assert directed(Directions()) == []


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest("wrong", field="model"),
        errors.QueueFull("42 wait", retry_after=2.5),
        errors.NoReadyEndpoint("none", retry_after=1.0),
        errors.Unauthenticated("who?"),
        errors.DeadlineExceeded("late"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_over_grpc_a_rejection_has_its_code_and_details(error: errors.AutoGLMError) -> None:
    found = rejected("grpc", "r1", "/autoglm.v1.Inference/Chat", error)
    sent = status.to_grpc(error, "r1")
    assert found.headers["grpc-status"] == str(sent.code.value[0])
    assert found.headers["x-request-id"] == "r1"
    raw = found.headers[status.DETAILS_TRAILER]
    assert base64.b64decode(raw + "==") == dict(sent.trailers)[status.DETAILS_TRAILER]
    assert found.body.decode() == error.message
    assert 400 <= found.status < 500, "Envoy takes others for a failure of the check"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/v2/models/m/infer"])
def test_over_rest_a_rejection_is_whole_but_for_a_status_that_envoy_does_not_pass_on(
    path: str,
) -> None:
    wrong, none = errors.InvalidRequest("wrong"), errors.NoReadyEndpoint("none", retry_after=1.0)
    assert rejected("http", "r1", path, wrong) == to_http(wrong, "r1", path)
    found, whole = rejected("http", "r1", path, none), to_http(none, "r1", path)
    assert (found.headers, found.body, found.status) == (whole.headers, whole.body, 483)


def kinds(of: type[errors.AutoGLMError] = errors.AutoGLMError) -> set[type[errors.AutoGLMError]]:
    return {of}.union(*(kinds(kind) for kind in of.__subclasses__()))


def test_every_status_of_an_error_is_restored_by_envoy() -> None:
    restored = {}
    for mapper in yaml.load("\n".join(denied_replies()), yaml.CSafeLoader):
        sent = mapper["filter"]["status_code_filter"]["comparison"]["value"]["default_value"]
        restored[sent] = mapper["status_code"]
    statuses = {kind.http_status for kind in kinds()}
    assert {denied_status(code) for code in statuses}.isdisjoint(range(500, 600))
    for code in statuses:
        assert restored.get(denied_status(code), denied_status(code)) == code
    assert statuses.isdisjoint(restored)
