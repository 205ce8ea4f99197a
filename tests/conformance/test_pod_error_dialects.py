"""A vLLM pod's own errors, directly and through the gateway, in the dialect of the path."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.support.processes import Served

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(params=["pod", "gateway"])
def url(request: pytest.FixtureRequest, gateway: Served) -> str:
    pod = request.param == "pod"
    return f"http://{gateway.pod_http_address if pod else gateway.http_address}"


@pytest.mark.parametrize(
    ("body", "code", "kind"),
    [
        # What the framework rejects, the API's own code, and what is not served.
        ({"model": "tiny-glm", "messages": HELLO}, 400, "invalid_request_error"),
        (
            {"model": "tiny-glm", "messages": HELLO, "max_tokens": 10**6},
            400,
            "invalid_request_error",
        ),
        ({"model": "nope", "messages": HELLO, "max_tokens": 4}, 404, "not_found_error"),
    ],
)
def test_errors_of_messages_are_anthropics(url: str, body: Any, code: int, kind: str) -> None:
    response = httpx.post(f"{url}/v1/messages", json=body, timeout=60)
    answer = response.json()
    assert (response.status_code, answer["error"]["type"]) == (code, kind), answer
    assert answer["type"] == "error" and answer["error"]["message"]
    assert answer["request_id"] == response.headers["request-id"]
    assert response.headers["x-request-id"] == response.headers["request-id"]


def test_a_good_message_has_the_request_id_where_the_sdk_reads_it(url: str) -> None:
    body = {"model": "tiny-glm", "messages": HELLO, "max_tokens": 4}
    response = httpx.post(f"{url}/v1/messages", json=body, timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["request-id"] == response.headers["x-request-id"] != ""


def test_what_the_model_cannot_do_says_that_a_retry_is_in_vain(url: str) -> None:
    body = {"model": "tiny-glm", "input": "x"}
    response = httpx.post(f"{url}/v1/embeddings", json=body, timeout=60)
    assert response.status_code in (400, 404, 501), response.text
    retried = response.status_code == 501
    assert response.headers.get("x-should-retry") == ("false" if retried else None)
    assert response.json()["error"]["message"]
