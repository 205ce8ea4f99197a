"""Routing hints of a request in call metadata, so that gateways need not parse its body.

Hashing prompts needs packages that a core install lacks; without them no hint is sent, and gateways
parse the body.
"""

from __future__ import annotations

from autoglm import v1
from autoglm.common.errors import AutoGLMError

try:
    from autoglm.validation import of_chat, of_generate
    from autoglm.validation.routing_hint import HINT_METADATA, write_hint
except ModuleNotFoundError:

    def hints(request: v1.GenerateRequest | v1.ChatRequest) -> dict[str, bytes]:
        return {}

else:

    def hints(request: v1.GenerateRequest | v1.ChatRequest) -> dict[str, bytes]:
        """Return the hint as metadata of the call, empty if the request has none."""
        try:
            if isinstance(request, v1.ChatRequest):
                hint = write_hint(of_chat(request))
            else:
                hint = write_hint(of_generate(request))
        except AutoGLMError:
            # The server reports the error, with its request id.
            hint = b""
        return {HINT_METADATA: hint} if hint else {}
