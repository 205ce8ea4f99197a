"""Gives responses of the Responses API the ids that a gateway has made for them.

By such an id every gateway finds the pod again, and knows whose the response is. An id that the
client chooses could replace another tenant's stored response, so it holds only where no gateway
sends one.
"""

from __future__ import annotations

import re
from typing import Any

from autoglm.common.rpc import RESPONSE_ID

_FORM = re.compile("resp_[0-9a-f]{16,128}")


def install(state: Any) -> None:
    """`state` is that of vLLM's app; without the API nothing changes."""
    serving = getattr(state, "openai_serving_responses", None)
    if serving is None:
        return
    create = serving.create_responses

    async def create_named(request: Any, raw_request: Any = None) -> Any:
        name = raw_request.headers.get(RESPONSE_ID, "") if raw_request is not None else ""
        if _FORM.fullmatch(name):
            request.request_id = name
        return await create(request, raw_request)

    serving.create_responses = create_named
