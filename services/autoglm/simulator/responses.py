"""Makes the API's other messages from the echo engine's chunks. Pure but for the iteration."""

from __future__ import annotations

from collections.abc import AsyncIterator

from autoglm import v1


def chat_chunk(chunk: v1.GenerateChunk, model: str, *, is_first: bool) -> v1.ChatChunk:
    """Return the chat's form of a chunk; the first of each completion carries the role."""
    role = "assistant" if is_first else ""
    made = v1.ChatChunk(
        id=chunk.id,
        model=model,
        index=chunk.index,
        delta=v1.ChatMessage(role=role, content=chunk.text),
        logprobs=chunk.logprobs,
        finish_reason=chunk.finish_reason,
        stop_reason=chunk.stop_reason,
        token_ids=chunk.token_ids,
    )
    if chunk.HasField("usage"):
        made.usage.CopyFrom(chunk.usage)
        made.timing.CopyFrom(chunk.timing)
    return made


async def whole_completion(
    chunks: AsyncIterator[v1.GenerateChunk], model: str
) -> v1.GenerateResponse:
    response = v1.GenerateResponse(model=model)
    found: dict[int, v1.Completion] = {}
    async for chunk in chunks:
        completion = found.setdefault(chunk.index, v1.Completion(index=chunk.index))
        completion.text += chunk.text
        completion.token_ids.extend(chunk.token_ids)
        completion.logprobs.extend(chunk.logprobs)
        completion.finish_reason = chunk.finish_reason
        completion.stop_reason = chunk.stop_reason
        response.id = chunk.id
        if chunk.HasField("usage"):
            response.usage.CopyFrom(chunk.usage)
            response.timing.CopyFrom(chunk.timing)
    response.completions.extend(found[index] for index in sorted(found))
    return response


def chat_response(response: v1.GenerateResponse) -> v1.ChatResponse:
    choices = [
        v1.ChatChoice(
            index=c.index,
            message=v1.ChatMessage(role="assistant", content=c.text),
            logprobs=c.logprobs,
            finish_reason=c.finish_reason,
            stop_reason=c.stop_reason,
        )
        for c in response.completions
    ]
    return v1.ChatResponse(
        id=response.id,
        model=response.model,
        choices=choices,
        usage=response.usage,
        timing=response.timing,
    )
