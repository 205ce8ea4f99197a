"""Metadata that describes a call's request, so that gateways need not see its body.

Needs the packages that name prompts' blocks, which a core install lacks; without them nothing is
sent, and gateways read the body.
"""

from __future__ import annotations

from autoglm import v1
from autoglm.common.errors import AutoGLMError

try:
    from autoglm.validation import RequestInfo, of_chat, of_generate
    from autoglm.validation.routing_hint import HINT_METADATA, write_hint
except ModuleNotFoundError:

    def hints(request: v1.GenerateRequest | v1.ChatRequest) -> dict[str, bytes]:
        return {}

else:

    def _ask(request: v1.GenerateRequest | v1.ChatRequest) -> RequestInfo:
        if isinstance(request, v1.ChatRequest):
            return of_chat(request)
        return of_generate(request)

    def hints(request: v1.GenerateRequest | v1.ChatRequest) -> dict[str, bytes]:
        """Metadata of the call; none where the request has no short form."""
        try:
            told = write_hint(_ask(request))
        except AutoGLMError:
            # The server will say it, with its request id.
            told = b""
        return {HINT_METADATA: told} if told else {}
