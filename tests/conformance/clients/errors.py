"""What OpenAI's, Anthropic's, Triton's and KServe's clients make of errors, as JSON by API.

errors.py URL CASE...: the case is key and prompt; one that is no number is requested as a stream.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import anthropic
import openai
import tritonclient.http as triton
from kserve import InferenceRESTClient, RESTConfig


def outcome(work: Callable[[], object]) -> dict[str, Any]:
    try:
        return {"class": "", "seen": repr(work())[:100]}
    except Exception as error:
        response = getattr(error, "response", None)
        headers = getattr(response, "headers", {})
        return {
            "class": type(error).__name__,
            "text": str(error),
            "status": getattr(error, "status_code", None),
            "requestId": getattr(error, "request_id", None) or headers.get("x-request-id"),
        }


def works(url: str, key: str) -> Iterable[tuple[str, Callable[[], object]]]:
    stream = not key.isdecimal()
    said: Any = [{"role": "user", "content": key}]
    retries = 2 if key == "501" else 0
    of_openai = openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=retries)
    of_anthropic = anthropic.Anthropic(api_key=key, base_url=url, max_retries=retries)

    def all_of(answer: Any) -> object:
        return [event.type for event in answer] if stream else answer.id

    def chat() -> object:
        answer: Any = of_openai.chat.completions.create(model="m", messages=said, stream=stream)
        return list(answer) if stream else answer.id

    def responses() -> object:
        answer: Any = of_openai.responses.create(model="m", input=key, stream=stream)
        return all_of(answer)

    def messages() -> object:
        answer: Any = of_anthropic.messages.create(
            model="m", max_tokens=9, messages=said, stream=stream
        )
        return all_of(answer)

    def messages_helper() -> object:
        with of_anthropic.messages.stream(model="m", max_tokens=9, messages=said) as answer:
            return answer.get_final_message().stop_reason

    yield "chat", chat
    yield "responses", responses
    yield "messages", messages
    if stream:
        yield "messagesHelper", messages_helper
    else:
        yield "triton", lambda: of_triton(url, key)
        yield "kserve", lambda: asyncio.run(of_kserve(url, key))


def of_triton(url: str, key: str) -> object:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    return client.get_model_metadata("m", headers={"authorization": f"Bearer {key}"})


async def of_kserve(url: str, key: str) -> object:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    headers = {"authorization": f"Bearer {key}"}
    data = {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["x"]}]}
    return await client.infer(url, data, headers=headers, model_name="m")


def main(url: str, *keys: str) -> None:
    seen: dict[str, dict[str, Any]] = {}
    for key in keys:
        for name, work in works(url, key):
            seen.setdefault(name, {})[key] = outcome(work)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
