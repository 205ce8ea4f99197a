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
    response = v1.PredictResponse(model_name=request.model_name, id=call.request_id)
    model = find(engine, request.model_name)
    message = v1.ChatMessage(role="user", content=text_of(request))
    chats = model is not None and "chat" in model.tasks
    if request.labels:
        scores = ranked(request.labels, await engine.label_logprobs(request, call))
        response.output = scores[0].label
        response.labels.extend(scores)
        # The prompt's tokens; scoring labels generates none.
        tokenize = v1.TokenizeRequest(model=request.model_name)
        if chats:
            tokenize.chat.messages.append(message)
        else:
            tokenize.text = message.content
        response.usage.prompt_tokens = len((await engine.tokenize(tokenize, call)).token_ids)
    elif chats:
        chat = v1.ChatRequest(
            model=request.model_name,
            messages=(message,),
            sampling_params=request.sampling_params,
            priority=request.priority,
        )
        replied = await engine.chat(chat, call)
        response.output = replied.choices[0].message.content
        response.usage.CopyFrom(replied.usage)
    else:
        generate = v1.GenerateRequest(
            model=request.model_name,
            text=message.content,
            sampling_params=request.sampling_params,
            priority=request.priority,
        )
        completed = await engine.generate(generate, call)
        response.output = completed.completions[0].text
        response.usage.CopyFrom(completed.usage)
    return response


def text_of(request: v1.PredictRequest) -> str:
    """Return the prompt: the task in words, then the text."""
    task = request.task
    if not task and request.labels:
        task = f"Classify the text as one of: {', '.join(request.labels)}."
    return f"{task}\n\n{request.input_data}" if task else request.input_data


def ranked(labels: Sequence[str], logprobs: Sequence[float]) -> list[v1.LabelScore]:
    """Sort labels, the likeliest first; labels that are as likely keep the request's order."""
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
