"""Predict, over gRPC and REST: classifies a text by given labels, or generates a response.

Decides on the model's prompt and on the meaning of its log-probabilities. Never
validates: its callers, the `Inference` servicer and `oip.rest`, have done so before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoglm import v1
from autoglm.inference.engine import Engine, EngineRequest
from autoglm.inference.requests import find


async def predict(
    engine: Engine, request: v1.PredictRequest, call: EngineRequest
) -> v1.PredictResponse:
    if request.labels:
        return await _classify(engine, request, call)
    return await _generate(engine, request, call)


def text_of(request: v1.PredictRequest) -> str:
    """Return the prompt: the task in words, then the text."""
    task = request.task
    if not task and request.labels:
        task = f"Classify the text as one of: {', '.join(request.labels)}."
    return f"{task}\n\n{request.input_data}" if task else request.input_data


def ranked(labels: Sequence[str], logprobs: Sequence[float]) -> list[v1.LabelScore]:
    """Return the labels, likeliest first; equal ones keep the request's order."""
    scored = zip(labels, shares(logprobs), logprobs, strict=True)
    scores = [v1.LabelScore(label=label, score=s, logprob=p) for label, s, p in scored]
    return sorted(scores, key=lambda s: -s.logprob)


def shares(logprobs: Sequence[float]) -> list[float]:
    """Return each one's share of the sum (softmax), however small all of them are."""
    top = max(logprobs)
    if top == -math.inf:
        return [1 / len(logprobs)] * len(logprobs)
    parts = [math.exp(p - top) for p in logprobs]
    return [part / sum(parts) for part in parts]


async def _classify(
    engine: Engine, request: v1.PredictRequest, call: EngineRequest
) -> v1.PredictResponse:
    scores = ranked(request.labels, await engine.label_logprobs(request, call))
    return v1.PredictResponse(
        model_name=request.model_name,
        output=scores[0].label,
        labels=scores,
        usage=await _prompt_usage(engine, request, call),
        id=call.request_id,
    )


async def _generate(
    engine: Engine, request: v1.PredictRequest, call: EngineRequest
) -> v1.PredictResponse:
    if _chats(engine, request):
        response = await engine.chat(_chat(request), call)
        text, usage = response.choices[0].message.content, response.usage
    else:
        completed = await engine.generate(_completion(request), call)
        text, usage = completed.completions[0].text, completed.usage
    return v1.PredictResponse(
        model_name=request.model_name, output=text, usage=usage, id=call.request_id
    )


async def _prompt_usage(
    engine: Engine, request: v1.PredictRequest, call: EngineRequest
) -> v1.Usage:
    """Return the prompt's tokens; scoring labels generates none."""
    tokenize = v1.TokenizeRequest(model=request.model_name)
    if _chats(engine, request):
        tokenize.chat.messages.append(_message(request))
    else:
        tokenize.text = text_of(request)
    tokens = (await engine.tokenize(tokenize, call)).token_ids
    return v1.Usage(prompt_tokens=len(tokens))


def _chat(request: v1.PredictRequest) -> v1.ChatRequest:
    return v1.ChatRequest(
        model=request.model_name,
        messages=(_message(request),),
        sampling_params=request.sampling_params,
        priority=request.priority,
    )


def _completion(request: v1.PredictRequest) -> v1.GenerateRequest:
    return v1.GenerateRequest(
        model=request.model_name,
        text=text_of(request),
        sampling_params=request.sampling_params,
        priority=request.priority,
    )


def _message(request: v1.PredictRequest) -> v1.ChatMessage:
    return v1.ChatMessage(role="user", content=text_of(request))


def _chats(engine: Engine, request: v1.PredictRequest) -> bool:
    model = find(engine, request.model_name)
    return model is not None and "chat" in model.tasks
