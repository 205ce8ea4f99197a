"""Errors over HTTP, each API in its own dialect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoglm.common import errors
from autoglm.validation.http_apis import INFERENCE_POSTS, Dialect, dialect_of
from autoglm.validation.http_errors import stream_event, to_http, translated

MESSAGES = "/v1/messages"
OPENAI = ("/v1/chat/completions", "/v1/responses", "/v2/inference", "/pooling", "/v1/models/m", "/")
ANTHROPIC = (
    MESSAGES,
    "/v1/messages?beta=true",
    "/v1/messages/count_tokens",
    "/v1/messages/batches",
)
OIP = ("/v2", "/v2/models/a/b/infer", "/v2/models/m/generate_stream?x", "/v2/repository/index")


def rendered(error: errors.AutoGLMError, path: str) -> Any:
    return json.loads(to_http(error, "id-1", path).body)


def test_every_inference_api_has_the_dialect_that_its_row_names() -> None:
    for api in INFERENCE_POSTS:
        assert dialect_of(api.path.replace("{model:.+}", "a/b")) is api.dialect


@pytest.mark.parametrize("path", OPENAI)
def test_openai_errors_name_the_field_the_code_and_the_request(path: str) -> None:
    response = to_http(errors.InvalidRequest("top_p is 3", field="top_p"), "id-1", path)
    assert (response.status, response.headers["x-request-id"]) == (400, "id-1")
    assert "request-id" not in response.headers
    assert json.loads(response.body)["error"] == {
        "message": "top_p is 3",
        "type": "invalid_request_error",
        "param": "top_p",
        "code": "invalid_request",
        "request_id": "id-1",
    }


@pytest.mark.parametrize("path", ANTHROPIC)
def test_anthropic_errors_have_its_shape_and_its_header(path: str) -> None:
    response = to_http(errors.QueueFull("full", retry_after=3.0), "id-1", path)
    assert response.headers["request-id"] == response.headers["x-request-id"] == "id-1"
    assert response.headers["retry-after"] == "3"
    assert json.loads(response.body) == {
        "type": "error",
        "error": {"type": "rate_limit_error", "message": "full"},
        "request_id": "id-1",
    }


@pytest.mark.parametrize("path", OIP)
def test_oip_errors_are_a_text(path: str) -> None:
    response = to_http(errors.ModelNotFound("no m"), "id-1", path)
    assert json.loads(response.body) == {"error": "no m"}
    assert (response.status, response.headers["x-request-id"]) == (404, "id-1")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.InvalidRequest, "invalid_request_error"),
        (errors.Unauthenticated, "authentication_error"),
        (errors.PermissionDenied, "permission_error"),
        (errors.ModelNotFound, "not_found_error"),
        (errors.RequestTooLarge, "request_too_large"),
        (errors.RateLimited, "rate_limit_error"),
        (errors.NoReadyEndpoint, "overloaded_error"),
        (errors.StreamBroken, "api_error"),
        (errors.Internal, "api_error"),
        (errors.DeadlineExceeded, "timeout_error"),
    ],
)
def test_anthropic_types_are_those_that_its_sdks_know(
    error: type[errors.AutoGLMError], kind: str
) -> None:
    assert rendered(error("text"), MESSAGES)["error"]["type"] == kind


def documented() -> list[list[str]]:
    """The rows of the reasons in docs/reference/errors.md, as lists of names."""
    text = (Path(__file__).parents[3] / "docs/reference/errors.md").read_text()
    table = text.partition("## Reasons")[2].partition("## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "`" in line]
    return [[cell.replace("`", "") for cell in row] for row in rows if len(row) == 5]


def test_the_documented_codes_and_types_are_those_of_the_code() -> None:
    by_reason = {cls.reason: cls for cls in errors.ERRORS}
    seen = set()
    for reasons, code, grpc_status, openai, anthropic in documented():
        for reason in set(reasons.split(", ")) & by_reason.keys():
            error = by_reason[reason]("text")
            seen.add(reason)
            assert (error.http_status, error.grpc_status) == (int(code), grpc_status.split(", ")[0])
            assert rendered(error, OPENAI[0])["error"]["type"] == openai
            assert rendered(error, MESSAGES)["error"]["type"] == anthropic
    # Clients see neither: one is between pod and gateway, the other's client has gone.
    assert by_reason.keys() - seen == {"RESUME_IMPOSSIBLE", "CANCELLED"}


@pytest.mark.parametrize("path", [*OPENAI, *ANTHROPIC, *OIP])
def test_internal_errors_do_not_show_their_text(path: str) -> None:
    assert b"secret" not in to_http(errors.Internal("secret"), "id-1", path).body
    assert b"secret" not in stream_event(errors.Internal("secret"), "id-1", path)


@pytest.mark.parametrize("path", [*OPENAI, *ANTHROPIC, *OIP])
def test_what_a_model_cannot_do_is_not_worth_a_retry(path: str) -> None:
    assert to_http(errors.Unimplemented("no"), "id-1", path).headers["x-should-retry"] == "false"
    assert "x-should-retry" not in to_http(errors.NoReadyEndpoint("no"), "id-1", path).headers


@pytest.mark.parametrize(("seconds", "header"), [(0.01, "1"), (1.2, "2"), (30.0, "30")])
def test_retry_after_is_rounded_up_to_whole_seconds(seconds: float, header: str) -> None:
    error = errors.QueueFull("full", retry_after=seconds)
    assert to_http(error, "", "/").headers["retry-after"] == header


def event(error: errors.AutoGLMError, path: str, before: bytes = b"") -> tuple[str, Any]:
    *head, data = stream_event(error, "id-1", path, before).decode().rstrip("\n").split("\n")
    name = head[0].removeprefix("event: ") if head else ""
    return name, json.loads(data.removeprefix("data: "))


def test_a_broken_stream_ends_with_an_event_of_its_dialect() -> None:
    broken = errors.StreamBroken("the pod went away")
    assert event(broken, "/v1/chat/completions") == ("", rendered(broken, "/v1/completions"))
    assert event(broken, MESSAGES) == ("error", rendered(broken, MESSAGES))
    assert event(broken, OIP[2]) == ("", {"error": "the pod went away"})


def test_a_broken_responses_stream_ends_with_the_next_event_in_number() -> None:
    before = b'data: {"sequence_number":8}\n\ndata: {"type":"x","sequence_number": 9,"a":1}\n\n'
    name, data = event(errors.StreamBroken("gone"), "/v1/responses?a=b", before)
    assert name == data["type"] == "error"
    assert (data["sequence_number"], data["message"], data["code"]) == (10, "gone", "stream_broken")
    # What the SDKs raise for.
    assert data["error"]["message"] == "gone"
    assert event(errors.StreamBroken("gone"), "/v1/responses")[1]["sequence_number"] == 0
    # A stored response is streamed again from the number that its client names.
    stored = event(errors.StreamBroken("gone"), "/v1/responses/resp_1?stream=true", before)
    assert (stored[0], stored[1]["sequence_number"]) == ("error", 10)


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "bad role", "type": "Bad Request", "code": 400}}',
        b'{"type": "error", "error": {"type": "BadRequestError", "message": "bad role"}}',
        b'{"error": "bad role"}',
        b'{"detail": "bad role"}',
        b"bad role",
    ],
)
def test_an_error_of_another_shape_is_translated_with_its_text(body: bytes) -> None:
    assert json.loads(translated(body, 400, "id-1", Dialect.ANTHROPIC)) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "bad role"},
        "request_id": "id-1",
    }
    assert json.loads(translated(body, 400, "id-1", Dialect.OIP)) == {"error": "bad role"}
    openai = json.loads(translated(body, 400, "id-1", Dialect.OPENAI))
    assert openai["error"]["message"] == "bad role"


def test_an_error_in_its_dialect_stays_as_it_is() -> None:
    for dialect, body in (
        (Dialect.OPENAI, b'{"error": {"message": "m", "code": 7}}'),
        (Dialect.ANTHROPIC, b'{"type":"error","error":{"type":"api_error","message":"m"}}'),
        (Dialect.OIP, b'{"error":  "m"}'),
    ):
        assert translated(body, 500, "id-1", dialect) == body


@pytest.mark.parametrize("body", [b"", b"[1]", b"[" * 100_000, b'{"error": {}}', b"\xff" * 5000])
def test_an_error_without_a_text_is_named_by_its_status(body: bytes) -> None:
    assert json.loads(translated(body, 404, "", Dialect.OIP)) == {"error": "Not Found"}
