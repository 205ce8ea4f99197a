"""Conversations, through the class that serves vLLM's /v1/chat/completions.

Templates, tools, reasoning and structured output are that class's work, so gRPC and REST have equal
results. Never touches a token itself. Called by `engine`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from autoglm import v1
from autoglm.inference.engine import EngineRequest
from autoglm.inference.vllm.chat import chat_results as results
from autoglm.inference.vllm.chat.conversation import chat_request
from autoglm.inference.vllm.exceptions import translate_body
from autoglm.inference.vllm.replay import replay_state
from autoglm.inference.vllm.replay.replay_state import ReplayState, replaying
from autoglm.inference.vllm.runtime import Runtime, http_request

_PROMPT_FIELD = "messages"
_NO_TOOLS = v1.ToolChoice(mode=v1.ToolChoice.MODE_NONE)


class ChatCompletions:
    """`Engine.chat` and `Engine.chat_stream`."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # A copy, because REST shows timing and cached tokens only where its operator enables them.
        self._serving: Any = copy.copy(getattr(runtime.app.state, "openai_serving_chat", None))
        if self._serving is not None:
            self._serving.enable_per_request_metrics = True
            self._serving.enable_prompt_tokens_details = True

    async def complete(self, request: v1.ChatRequest, call: EngineRequest) -> v1.ChatResponse:
        with self._runtime.translating(_PROMPT_FIELD):
            replay_state.reject_unary(request)
            found = await self._submit(request, call, stream=False)
            return results.response(call.request_id, found)

    async def stream(
        self, request: v1.ChatRequest, call: EngineRequest
    ) -> AsyncIterator[v1.ChatChunk]:
        with self._runtime.translating(_PROMPT_FIELD):
            # A parser decides what of the tokens is content, reasoning or a call.
            tools = request.tools and request.tool_choice != _NO_TOOLS
            is_stepwise = self._runtime.parses_reasoning or bool(tools)
            replay = replay_state.of_message(request, is_stepwise=is_stepwise)
            with replaying(replay):
                submitted = await self._submit(request, call, stream=True)
            async with aclosing(submitted) as events:
                chunks = self._chunks(events, replay, request, call)
                async for chunk in _gathered(chunks, replay):
                    yield chunk

    async def _chunks(
        self,
        events: AsyncIterator[str],
        replay: ReplayState,
        request: v1.ChatRequest,
        call: EngineRequest,
    ) -> AsyncIterator[v1.ChatChunk]:
        unfinished = max(1, request.sampling_params.n)
        begun = set(replay.choices or ())
        final: v1.ChatChunk | None = None
        async for text in events:
            event = results.parse(text)
            if event is None:
                return
            if event.error is not None:
                if replay.rejection is not None:
                    raise replay.rejection
                raise translate_body(event.error, _PROMPT_FIELD, self._runtime.llm.errored)
            for choice in event.choices:
                unfinished -= choice.finish_reason is not None
                if replay.is_replaying and replay.is_named(choice.index):
                    continue
                chunk = results.chunk(call.request_id, event.model, choice)
                # The first one carries the role only, while its tokens are on their way already.
                if choice.index in begun:
                    chunk.token_ids.extend(replay.take(choice.index))
                begun.add(choice.index)
                if unfinished:
                    yield chunk
                else:
                    final = chunk
            if final and event.usage:
                final.usage.CopyFrom(results.usage(event.usage))
                if timing := results.timing(event.metrics):
                    final.timing.CopyFrom(timing)
                yield final

    async def _submit(self, request: v1.ChatRequest, call: EngineRequest, *, stream: bool) -> Any:
        """Return vLLM's response object, or its stream of server-sent events."""
        self._runtime.find(request.model)
        self._runtime.require("chat")
        body = chat_request(request, stream=stream)
        body["priority"] = self._runtime.priority(request.priority)
        wanted = ChatCompletionRequest.model_validate(body)
        found = await self._serving.create_chat_completion(wanted, http_request(call))
        if isinstance(found, ErrorResponse):
            # vLLM returns an error of its own for a cancelled call.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError
            raise translate_body(found.error, _PROMPT_FIELD, self._runtime.llm.errored)
        return found


async def _gathered(
    chunks: AsyncIterator[v1.ChatChunk], replay: ReplayState
) -> AsyncIterator[v1.ChatChunk]:
    """Merge the waiting outputs into one chunk a choice; the parsers read them one by one."""
    waiting: dict[int, v1.ChatChunk] = {}
    async for chunk in chunks:
        before = waiting.pop(chunk.index, None)
        waiting[chunk.index] = chunk if before is None else results.joined(before, chunk)
        if not replay.has_backlog or chunk.HasField("usage"):
            for gathered in waiting.values():
                yield gathered
            waiting.clear()
