"""Ids of requests in the engine, and of the responses that it stores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from autoglm.common.rpc import RESPONSE_ID

_RESPONSE_FORM = re.compile("resp_[0-9a-f]{16,128}")


def predict_id(request_id: str, index: int) -> str:
    """Return the id of one engine request of those for label log-probabilities."""
    return f"predict-{request_id}-{index}"


def stream_ids(request_id: str) -> tuple[str, str]:
    """Return the engine's ids that a request to generate or to chat may have."""
    return request_id, f"chatcmpl-{request_id}"


def engine_ids(request_id: str, live: Iterable[str]) -> list[str]:
    """Return the engine's ids of a request; vLLM's classes put marks around x-request-id."""
    name = re.escape(request_id)
    ours = re.compile(rf"{name}|chatcmpl-{name}(_\d+)?|(cmpl|predict|embd)-{name}-\d+")
    return [i for i in live if ours.fullmatch(i)]


def install(state: Any) -> None:
    """Give responses of the Responses API the ids that a gateway has made for them.

    By such an id every gateway finds the pod again, and knows whose the response is. An id that the
    client chooses could replace another tenant's stored response, so it holds only where no gateway
    sends one. `state` is that of vLLM's app; without the API nothing changes.
    """
    serving = getattr(state, "openai_serving_responses", None)
    if serving is None:
        return
    create = serving.create_responses

    async def create_named(request: Any, raw_request: Any = None) -> Any:
        name = raw_request.headers.get(RESPONSE_ID, "") if raw_request is not None else ""
        if _RESPONSE_FORM.fullmatch(name):
            request.request_id = name
        return await create(request, raw_request)

    serving.create_responses = create_named
