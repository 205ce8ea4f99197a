"""OpenAI's JSON to the API's messages and back, as far as the echo engine implements it. Pure.

Parameters that change a response and that the echo engine does not implement are rejected. Sampling
weights (`top_p`, `top_k`, `min_p`, penalties, `logit_bias`) are accepted without effect: they shift
probabilities, and the echo engine has none. Unknown fields pass, as with vLLM.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from autoglm import v1
from autoglm.common import errors
from autoglm.simulator.prompts import check_logprobs, not_followed
from autoglm.validation import openai_types as bodies
from autoglm.validation.openai_stream import Resume
from autoglm.validation.scan.json_text import decode

Json = dict[str, Any]
Parsed = TypeVar("Parsed", bound=msgspec.Struct)
_SCALARS = (
    "n",
    "temperature",
    "top_p",
    "seed",
    "min_tokens",
    "ignore_eos",
    "include_stop_str_in_output",
    "truncate_prompt_tokens",
)
_CONTEXT = -1
"""The value of `truncate_prompt_tokens` for all that the model can take."""
_FINISH = {
    v1.FINISH_REASON_STOP: "stop",
    v1.FINISH_REASON_LENGTH: "length",
    v1.FINISH_REASON_ABORT: "abort",
}


class ChatBody(bodies.Chat):
    autoglm_resume: Resume | None = None
    logprobs: bool | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None


class CompletionBody(bodies.Completion):
    autoglm_resume: Resume | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None


class Unfollowed(msgspec.Struct):
    """Fields of `/v1/completions` that only a real engine implements."""

    allowed_token_ids: Any = None
    bad_words: Any = None
    best_of: Any = None
    chat_template: Any = None
    logprob_token_ids: Any = None
    prompt_embeds: Any = None
    prompt_logprobs: Any = None
    repetition_detection: Any = None
    return_prompt_text: Any = None
    return_token_ids: Any = None
    return_tokens_as_token_ids: Any = None
    suffix: Any = None
    truncation_side: Any = None
    use_beam_search: Any = None


class UnfollowedByChat(Unfollowed):
    echo: Any = None


_WITHOUT_EFFECT: tuple[object, ...] = (None, False, "", [])
_MORE_WITHOUT_EFFECT: Mapping[str, Collection[object]] = {
    "best_of": (1,),
    "truncation_side": ("left",),
}


def reject_unfollowed(body: bytes, fields: type[Unfollowed]) -> None:
    """Raises Unimplemented for the first field whose value would have an effect."""
    given = decode(body, fields)
    for name in fields.__struct_fields__:
        value = getattr(given, name)
        # Zero alternatives are still log-probabilities.
        is_without = value in _WITHOUT_EFFECT and not (name == "prompt_logprobs" and value == 0)
        if not is_without and value not in _MORE_WITHOUT_EFFECT.get(name, ()):
            raise not_followed(name)


def chat_request(body: bytes) -> tuple[v1.ChatRequest, ChatBody]:
    chat = decode(body, ChatBody)
    reject_unfollowed(body, UnfollowedByChat)
    limit = chat.max_completion_tokens or chat.max_tokens
    logprobs = (chat.top_logprobs or 0) if chat.logprobs else None
    request = v1.ChatRequest(
        model=chat.model or "",
        messages=[_message(m) for m in chat.messages],
        sampling_params=_params(chat, limit, logprobs),
        response_format=_format(chat.response_format, chat.structured_outputs),
        priority=chat.priority or 0,
        continue_final_message=bool(chat.continue_final_message),
        resume=_resume(chat.autoglm_resume),
    )
    if chat.add_generation_prompt is not None:
        request.add_generation_prompt = chat.add_generation_prompt
    if chat.tools and chat.tool_choice == "required":
        request.tool_choice.mode = v1.ToolChoice.MODE_REQUIRED
    if isinstance(chat.tool_choice, bodies.NamedChoice):
        request.tool_choice.function = chat.tool_choice.function.name
    return request, chat


def generate_request(body: bytes) -> tuple[v1.GenerateRequest, CompletionBody]:
    completion = decode(body, CompletionBody)
    reject_unfollowed(body, Unfollowed)
    request = v1.GenerateRequest(
        model=completion.model or "",
        sampling_params=_params(completion, completion.max_tokens, completion.logprobs),
        response_format=_format(completion.response_format, completion.structured_outputs),
        priority=completion.priority or 0,
        resume=_resume(completion.autoglm_resume),
    )
    prompt = completion.prompt
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        request.text = prompt
    elif isinstance(prompt, list) and all(isinstance(i, int) for i in prompt):
        request.token_ids.ids.extend(prompt)
    else:
        message = "the echo engine completes one prompt at a time"
        raise errors.Unimplemented(message, field="prompt")
    return request, completion


def tokenize_request(body: bytes) -> v1.TokenizeRequest:
    given = decode(body, bodies.Tokenize)
    if given.messages is not None:
        chat = v1.ChatMessages(messages=[_message(m) for m in given.messages])
        return v1.TokenizeRequest(chat=chat)
    if given.prompt is None:
        raise errors.InvalidRequest("prompt is not a string", field="prompt")
    return v1.TokenizeRequest(text=given.prompt)


def usage(counted: v1.Usage) -> Json:
    return {
        "prompt_tokens": counted.prompt_tokens,
        "completion_tokens": counted.completion_tokens,
        "total_tokens": counted.prompt_tokens + counted.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": counted.cached_tokens},
    }


def chat_choice(choice: v1.ChatChoice) -> Json:
    message = {"role": "assistant", "content": choice.message.content}
    return {"message": message, **_ending(choice), "logprobs": _chat_logprobs(choice.logprobs)}


def chat_delta(chunk: v1.ChatChunk) -> Json:
    role = {"role": chunk.delta.role} if chunk.delta.role else {}
    delta = {**role, "content": chunk.delta.content}
    return {"delta": delta, **_ending(chunk), "logprobs": _chat_logprobs(chunk.logprobs)}


def completion_choice(part: v1.Completion | v1.GenerateChunk) -> Json:
    return {"text": part.text, **_ending(part), "logprobs": completion_logprobs(part.logprobs)}


def model_card(model: v1.Model, name: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": "autoglm",
        "root": model.uri,
        "max_model_len": model.max_model_len,
    }


def _resume(given: Resume | None) -> v1.Resume | None:
    if given is None:
        return None
    return v1.Resume(choices=[v1.ResumedChoice(**msgspec.structs.asdict(c)) for c in given.choices])


def _ending(part: v1.ChatChoice | v1.ChatChunk | v1.Completion | v1.GenerateChunk) -> Json:
    return {
        "index": part.index,
        "finish_reason": _FINISH.get(part.finish_reason),
        "stop_reason": part.stop_reason or None,
    }


def _chat_logprobs(logprobs: Sequence[v1.TokenLogprob]) -> Json | None:
    return {"content": [_chat_logprob(p) for p in logprobs]} if logprobs else None


def _chat_logprob(one: v1.TokenLogprob) -> Json:
    top = [_chat_logprob(t) for t in one.top_logprobs]
    data = list(one.token.encode())
    return {"token": one.token, "logprob": one.logprob, "bytes": data, "top_logprobs": top}


def completion_logprobs(logprobs: Sequence[v1.TokenLogprob]) -> Json | None:
    if not logprobs:
        return None
    return {
        "tokens": [p.token for p in logprobs],
        "token_logprobs": [p.logprob for p in logprobs],
        "top_logprobs": [{t.token: t.logprob for t in p.top_logprobs} for p in logprobs],
        "text_offset": [],
    }


def _params(
    body: ChatBody | CompletionBody, max_tokens: int | None, logprobs: int | None
) -> v1.SamplingParams:
    if logprobs is not None:
        check_logprobs(logprobs)
    given = {k: v for k in _SCALARS if (v := getattr(body, k)) is not None}
    if given.get("truncate_prompt_tokens") == _CONTEXT:
        # A prompt of more than the context is rejected here.
        del given["truncate_prompt_tokens"]
    stops = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return v1.SamplingParams(
        **given,
        stop=stops,
        stop_token_ids=body.stop_token_ids or [],
        max_tokens=max_tokens,
        logprobs=logprobs,
    )


def _format(
    given: bodies.ResponseFormat | None, outputs: bodies.StructuredOutputs | None
) -> v1.ResponseFormat:
    if outputs is not None:
        # vLLM's own form of a response format.
        if outputs.choice is not None:
            return v1.ResponseFormat(choice=v1.ResponseFormat.Choice(values=outputs.choice))
        if outputs.json_object:
            return v1.ResponseFormat(json_object=True)
        if outputs.json not in (bodies.ABSENT, b"null"):
            return _schema(bytes(outputs.json))
        for name in ("regex", "grammar", "structural_tag"):
            if getattr(outputs, name):
                raise not_followed(f"structured_outputs.{name}")
        return v1.ResponseFormat()
    if given is None or given.type == "text":
        return v1.ResponseFormat()
    if given.type == "json_object":
        return v1.ResponseFormat(json_object=True)
    if given.type == "json_schema" and given.json_schema:
        return _schema(bytes(given.json_schema.schema))
    raise not_followed(f"response_format.{given.type}")


def _schema(written: bytes) -> v1.ResponseFormat:
    """Return the format of a schema, written as a JSON object or as a string with one inside."""
    text = msgspec.json.decode(written, type=str) if written[:1] == b'"' else written.decode()
    return v1.ResponseFormat(json_schema=v1.ResponseFormat.JsonSchema(schema=text))


def _message(message: bodies.Message) -> v1.ChatMessage:
    if message.content is None or isinstance(message.content, str):
        return v1.ChatMessage(role=message.role, content=message.content or "")
    texts = [p if isinstance(p, str) else p.text for p in message.content]
    if None in texts:
        raise errors.InvalidRequest("this model reads text only", field="messages.content")
    parts = [v1.ContentPart(text=text) for text in texts]
    return v1.ChatMessage(role=message.role, parts=parts)
