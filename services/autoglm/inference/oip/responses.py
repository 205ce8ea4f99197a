"""Calls the engine for the Open Inference Protocol, and describes its models.

The protocol has no finish reason, so an incomplete output becomes an error here. Called by
`servicer` and `rest`, which have checked the request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from autoglm import v1
from autoglm.common import errors
from autoglm.common.status import TokenUsage, usage_of
from autoglm.inference.engine import Engine, EngineRequest
from autoglm.inference.oip.request import EngineInput, Infer, engine_request
from autoglm.inference.requests import check, closing, find
from autoglm.validation import Operation, RequestInfo
from autoglm.validation.request_info import FieldNames

SERVER_NAME = "open-autoglm"
DATATYPE = "BYTES"
SHAPE = (1,)
Pacer = Callable[[AsyncIterator[Any], Engine, EngineRequest], AsyncIterator[Any]]
"""Gathers chunks while many streams are active."""


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    is_final: bool
    usage: TokenUsage | None = None
    """Of the whole response; with its last piece only."""


def server_version() -> str:
    return metadata.version(SERVER_NAME)


def described(engine: Engine, name: str) -> v1.Model:
    """Return the model. Raises ModelNotFound, listing the models."""
    check(engine, RequestInfo(Operation.INFER, name, field_name=FieldNames("", {"model": "name"})))
    return _model(engine, name)


def engine_request_of(engine: Engine, infer: Infer) -> EngineInput:
    return engine_request(infer, _model(engine, infer.model))


async def whole(engine: Engine, engine_input: EngineInput, call: EngineRequest) -> Piece:
    """Return the whole response as one piece."""
    if isinstance(engine_input, v1.ChatRequest):
        chat = await engine.chat(engine_input, call)
        choice = chat.choices[0]
        _check_whole(choice.finish_reason)
        return Piece(choice.message.content, True, usage_of(chat))
    generated = await engine.generate(engine_input, call)
    completion = generated.completions[0]
    _check_whole(completion.finish_reason)
    return Piece(completion.text, True, usage_of(generated))


async def pieces(
    engine: Engine, engine_input: EngineInput, call: EngineRequest, pace: Pacer | None = None
) -> AsyncGenerator[Piece, None]:
    """Yield text as it appears, the last piece marked. Closing ends the engine's request."""
    chunks: AsyncIterator[Any] = (
        engine.chat_stream(engine_input, call)
        if isinstance(engine_input, v1.ChatRequest)
        else engine.generate_stream(engine_input, call)
    )
    async with closing(pace(chunks, engine, call) if pace else chunks) as source:
        async for chunk in source:
            _check_whole(chunk.finish_reason)
            new = chunk.delta.content if isinstance(chunk, v1.ChatChunk) else chunk.text
            # Usage marks the last chunk of a stream.
            is_final = chunk.HasField("usage")
            if new or is_final:
                yield Piece(new, is_final, usage_of(chunk) if is_final else None)


def _model(engine: Engine, name: str) -> v1.Model:
    model = find(engine, name)
    if model is None:
        # An adapter may be unloaded between the check and here.
        raise errors.ModelNotFound(f"model {name!r} is not served any more", field="model_name")
    return model


def _check_whole(reason: int) -> None:
    if reason == v1.FINISH_REASON_ABORT:
        raise errors.Cancelled("the request was aborted before its output was complete")
    if reason == v1.FINISH_REASON_ERROR:
        raise errors.Internal("the engine failed before its output was complete")
