"""The echo engine's OpenAI-compatible app, shaped like vLLM's own.

Also replaces an external server in tests of code that calls one.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from autoglm import v1
from autoglm.common import errors, status
from autoglm.inference.engine import AsgiApp, Engine, EngineRequest
from autoglm.inference.http.asgi import call_of, guarded, read_body
from autoglm.inference.http.bounded_http import abridged
from autoglm.inference.requests import check, closing
from autoglm.simulator import openai_json, tokenizer
from autoglm.simulator.completion import logprob
from autoglm.simulator.openai_json import Json
from autoglm.validation import http_errors
from autoglm.validation.openai_stream import REPLAY_HEADER, token_comment
from autoglm.validation.scan.reading import read_abridged


def openai_app(engine: Engine, collector: Collector) -> AsgiApp:
    registry = CollectorRegistry()
    registry.register(collector)
    api = _OpenAIApi(engine)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def health(request: Request) -> Response:
        return Response()

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/metrics", metrics),
            Route("/v1/models", guarded(api.models)),
            Route("/v1/chat/completions", guarded(api.chat), methods=["POST"]),
            Route("/v1/completions", guarded(api.complete), methods=["POST"]),
            Route("/v1/embeddings", guarded(api.embed), methods=["POST"]),
            Route("/tokenize", guarded(api.tokenize), methods=["POST"]),
        ]
    )


class _OpenAIApi:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def models(self, request: Request) -> Response:
        cards = [
            openai_json.model_card(model, name)
            for model in self._engine.models()
            for name in (model.name, *model.aliases)
        ]
        return JSONResponse({"object": "list", "data": cards})

    async def chat(self, request: Request) -> Response:
        body = await self._checked_body(request)
        given, options = openai_json.chat_request(body)
        given.model = given.model or self._default_model
        call = call_of(request)
        kind = "chat.completion.chunk" if options.stream else "chat.completion"
        head = _head(f"chatcmpl-{call.request_id}", kind, given.model)
        if options.stream:
            chunks = self._engine.chat_stream(given, call)
            make = _with_tokens(openai_json.chat_delta, request)
            return _sse(_events(chunks, head, make, options.stream_options, request.url.path), call)
        response = await self._engine.chat(given, call)
        choices = [openai_json.chat_choice(c) for c in response.choices]
        return _whole(head, choices, response.usage, call)

    async def complete(self, request: Request) -> Response:
        body = await self._checked_body(request)
        given, options = openai_json.generate_request(body)
        given.model = given.model or self._default_model
        call = call_of(request)
        echo = prompt_echo(given, options)

        def choice(part: v1.Completion | v1.GenerateChunk) -> Json:
            plain = openai_json.completion_choice(part)
            return echo.before(plain) if echo else plain

        head = _head(f"cmpl-{call.request_id}", "text_completion", given.model)
        if options.stream:
            chunks = self._engine.generate_stream(given, call)
            # As of a vLLM pod, which cannot resume a stream with an echoed prompt.
            make = _with_tokens(choice, request, resumable=echo is None)
            return _sse(_events(chunks, head, make, options.stream_options, request.url.path), call)
        response = await self._engine.generate(given, call)
        choices = [choice(c) for c in response.completions]
        return _whole(head, choices, response.usage, call)

    async def embed(self, request: Request) -> Response:
        await self._engine.embed(v1.EmbedRequest(), call_of(request))
        raise AssertionError("the echo engine embeds nothing")

    async def tokenize(self, request: Request) -> Response:
        given = openai_json.tokenize_request(await self._checked_body(request))
        found = await self._engine.tokenize(given, call_of(request))
        ids = list(found.token_ids)
        payload = {"tokens": ids, "count": len(ids), "max_model_len": found.max_model_len}
        return JSONResponse(payload)

    async def _checked_body(self, request: Request) -> bytes:
        body = await read_body(request)
        info = await read_abridged(request.url.path, abridged(request.scope, body))
        check(self._engine, structs.replace(info, model=info.model or self._default_model))
        return body

    @property
    def _default_model(self) -> str:
        """Return the model of a request that names none, as for vLLM."""
        return self._engine.models()[0].name


Render = Callable[[Any], tuple[bytes, Json]]


def _with_tokens(
    choice: Callable[[Any], Json], request: Request, *, resumable: bool = True
) -> Render:
    """Render a chunk as the comment before its event, and its choice."""
    replayed = resumable and request.headers.get(REPLAY_HEADER) == "1"

    def render(chunk: Any) -> tuple[bytes, Json]:
        comment = token_comment(chunk.index, chunk.token_ids) if replayed else b""
        return comment, choice(chunk)

    return render


async def _events(
    chunks: AsyncIterator[Any],
    head: Json,
    render: Render,
    options: Json | None,
    path: str,
) -> AsyncIterator[bytes]:
    usage = v1.Usage()
    try:
        async with closing(chunks) as source:
            async for chunk in source:
                usage = chunk.usage
                # Nothing new but the usage, where a resumed stream had ended before.
                if chunk.token_ids or chunk.finish_reason:
                    comment, choice = render(chunk)
                    yield comment + _event(head | {"choices": [choice]})
    except errors.AutoGLMError as error:
        yield http_errors.stream_event(error, head["id"], path)
    else:
        if (options or {}).get("include_usage"):
            yield _event(head | {"choices": [], "usage": openai_json.usage(usage)})
    yield b"data: [DONE]\n\n"


def _event(payload: Json) -> bytes:
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def _sse(events: AsyncIterator[bytes], call: EngineRequest) -> Response:
    headers = {status.REQUEST_ID: call.request_id, "cache-control": "no-cache"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def _whole(head: Json, choices: list[Json], usage: v1.Usage, call: EngineRequest) -> Response:
    payload = head | {"choices": choices, "usage": openai_json.usage(usage)}
    return JSONResponse(payload, headers={status.REQUEST_ID: call.request_id})


def _head(name: str, kind: str, model: str) -> Json:
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


@dataclass(slots=True)
class PromptEcho:
    """`is_alone` is `max_tokens: 0`: the prompt is all of the text."""

    prompt: Sequence[int]
    logprobs: int | None
    is_alone: bool
    _echoed: set[int] = field(default_factory=set)

    def before(self, choice: Json) -> Json:
        """Return the choice of a completion or of its chunk; only an index's first changes."""
        if choice["index"] in self._echoed:
            return choice | {"text": "", "logprobs": None} if self.is_alone else choice
        self._echoed.add(choice["index"])
        text, found = tokenizer.decode(self.prompt), None
        if self.logprobs is not None:
            scored = [logprob(i, self.logprobs) for i in self.prompt]
            found = openai_json.completion_logprobs(scored) or {}
            # Nothing precedes the first token, so it has no probability.
            for name in ("token_logprobs", "top_logprobs"):
                found[name][0] = None
        if self.is_alone:
            return choice | {"text": text, "logprobs": found}
        if found and choice["logprobs"]:
            found = {name: [*found[name], *choice["logprobs"][name]] for name in found}
        return choice | {"text": text + choice["text"], "logprobs": found}


def prompt_echo(request: v1.GenerateRequest, body: openai_json.CompletionBody) -> PromptEcho | None:
    """Return None without `echo`. Raises ResumeImpossible, as a vLLM pod does."""
    if not body.echo:
        return None
    if body.autoglm_resume is not None:
        raise errors.ResumeImpossible("echo: the prompt is not in the tokens of the broken stream")
    is_text = request.WhichOneof("prompt") == "text"
    ids = tokenizer.encode(request.text) if is_text else list(request.token_ids.ids)
    kept = ids[-max(0, body.truncate_prompt_tokens or 0) :]
    return PromptEcho(kept, body.logprobs, body.max_tokens == 0)
