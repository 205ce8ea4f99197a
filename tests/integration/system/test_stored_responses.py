"""Responses that a real vLLM pod stores, through a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.support.processes import Process, eventually

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def client(gateway: Process) -> Iterator[openai.OpenAI]:
    eventually(lambda: gateway.ready_endpoints() > 0)
    url = f"http://{gateway.http_address}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as found:
        yield found


def test_a_stored_response_is_read_continued_and_cancelled(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny-glm", "input": "hello"}
    first = client.responses.create(**asked, max_output_tokens=8)
    assert client.responses.retrieve(first.id).output_text == first.output_text
    more = client.responses.create(**asked, max_output_tokens=4, previous_response_id=first.id)
    assert first.usage is not None and more.usage is not None
    assert more.usage.input_tokens > first.usage.input_tokens
    background = client.responses.create(
        **asked, max_output_tokens=1900, background=True, extra_body={"ignore_eos": True}
    )
    assert client.responses.cancel(background.id).status == "cancelled"


def test_a_client_cannot_choose_an_id(client: openai.OpenAI) -> None:
    taken = client.responses.create(model="tiny-glm", input="one", max_output_tokens=4)
    other = client.responses.create(
        model="tiny-glm",
        input="two",
        max_output_tokens=4,
        extra_body={"request_id": taken.id},
        extra_headers={"x-autoglm-response-id": taken.id},
    )
    assert other.id != taken.id
    assert client.responses.retrieve(taken.id).output_text == taken.output_text


def test_an_unknown_id_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_unknown")
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="tiny-glm", input="x", previous_response_id="resp_unknown")
