"""Token ids of a text or a conversation, through the class that serves vLLM's /tokenize."""

from __future__ import annotations

from typing import Any

from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest, TokenizeCompletionRequest

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import EngineRequest
from autoglm.inference.vllm.chat.conversation import messages
from autoglm.inference.vllm.exceptions import translate_body
from autoglm.inference.vllm.runtime import Runtime, http_request


class Tokenization:
    """`Engine.tokenize`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def tokenize(
        self, request: v1.TokenizeRequest, call: EngineRequest
    ) -> v1.TokenizeResponse:
        field = request.WhichOneof("input") or "text"
        with self._runtime.translating(field):
            common: dict[str, Any] = {
                "model": request.model,
                "return_token_strs": request.return_tokens,
            }
            if request.HasField("add_special_tokens"):
                common["add_special_tokens"] = request.add_special_tokens
            if field == "chat":
                turns = messages(request.chat.messages)
                wanted: Any = TokenizeChatRequest(messages=turns, **common)
            elif request.HasField("text"):
                wanted = TokenizeCompletionRequest(prompt=request.text, **common)
            else:
                problem = "Set text or chat to what is to be tokenised."
                raise errors.InvalidRequest(problem, field="text")
            found = await self.submit(wanted, call, field)
            return v1.TokenizeResponse(
                token_ids=found.tokens,
                max_model_len=found.max_model_len,
                tokens=found.token_strs or (),
            )

    async def submit(self, request: Any, call: EngineRequest, field: str) -> Any:
        """Return vLLM's response to one of its own tokenize requests."""
        self._runtime.find(request.model)
        serving = self._runtime.app.state.serving_tokenization
        found = await serving.create_tokenize(request, http_request(call))
        if isinstance(found, ErrorResponse):
            raise translate_body(found.error, field, self._runtime.llm.errored)
        return found
