"""Reads JSON bodies of the REST API into a `RequestInfo`.

Bodies must be strict JSON in UTF-8: no NaN, nothing behind the end, no lone surrogates.
`openai_types` says which fields are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from autoglm.validation import openai_types as bodies
from autoglm.validation import prefix_hash, prompt_weight
from autoglm.validation.grpc_messages import GENERATE_MAX_TOKENS, TOKEN_BYTES
from autoglm.validation.http_apis import Body, inference_post
from autoglm.validation.oip import infer_path, of_oip_json
from autoglm.validation.prompts import prompt_list, prompt_prefix
from autoglm.validation.request_info import (
    Billing,
    FieldNames,
    Format,
    Media,
    Operation,
    Prompt,
    RequestInfo,
    Sampling,
    ToolChoice,
    ToolFacts,
    Turn,
    with_cut,
)
from autoglm.validation.scan.abridged import NOTHING, Cut, cut_of, whole_size
from autoglm.validation.scan.form import of_form
from autoglm.validation.scan.json_text import decode

_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "min_tokens",
    "prompt_logprobs",
    "truncate_prompt_tokens",
)
_MEDIA = ("image_url", "audio_url", "video_url")
_CHAT_WORDS = {"logprobs": "top_logprobs", "tool_choice.function": "tool_choice.function.name"}
TEXT_FIELDS = frozenset(
    (
        "messages[].content",
        "messages[].content[]",
        "messages[].content[].text",
        "prompt",
        "prompt[]",
        "input",
        "input[]",
        "input[].content",
        "input[].content[].text",
        "input_data",
        "text_input",
        "inputs[].data",
        "inputs[].data[]",
        "inputs[].data[][]",
    )
)
"""Where bodies have the text of prompts, as `bounds` names fields."""


def of_openai(path: str, body: bytes, content_type: str = "") -> RequestInfo:
    """The facts of a POST. Raises InvalidRequest for a body that cannot be read.

    An API that the table does not know is charged by its body, and so is a request of a known one
    in which neither a prompt nor media are found. A large body is `Abridged`.
    """
    api, cut = inference_post(path), cut_of(body)
    if api is None:
        return replace(prompt_weight.of_any(body), billing=Billing.BODY, unchecked=_whole(body))
    if api.body is Body.OIP:
        info = of_oip_json(infer_path(path) or "", body)
    elif api.body is Body.FORM:
        info = of_form(body, content_type)
    else:
        info = _READERS[api.body](body)
    if cut is not NOTHING:
        info = with_cut(_with_ids(info, cut, api.body), cut, TEXT_FIELDS)
    if api.billing is Billing.TOKENS and not info.prompt_tokens:
        info = replace(info, unchecked=prompt_weight.of_media(body) or _whole(body))
    if (info.operation, info.billing) != (api.operation, api.billing):
        info = replace(info, operation=api.operation, billing=api.billing)
    return info


def _with_ids(info: RequestInfo, cut: Cut, kind: Body) -> RequestInfo:
    """Adds token ids that the body lacks, where its reader does not."""
    more = sum(n.count - n.stand_ins for n in cut.numbers.values())
    if not more or kind not in (Body.PAIRS, Body.INPUTS):
        return info
    return replace(info, unchecked=(*info.unchecked, Prompt("body", more * TOKEN_BYTES, more)))


def _whole(body: bytes) -> tuple[Prompt, ...]:
    return (Prompt("body", whole_size(body)),)


def _of_chat(body: bytes) -> RequestInfo:
    chat = decode(body, bodies.Chat)
    max_name = "max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens"
    return RequestInfo(
        operation=Operation.CHAT,
        field_name=FieldNames("", _CHAT_WORDS | {"max_tokens": max_name}),
        turns=_turns(chat.messages),
        sampling=_sampling(chat, getattr(chat, max_name), chat.top_logprobs),
        tools=None if chat.tools is None else tuple(_tools(chat.tools)),
        tool_choice=_tool_choice(chat.tool_choice),
        add_generation_prompt=bool(chat.add_generation_prompt),
        continue_final_message=bool(chat.continue_final_message),
        prefix=_chat_prefix(chat),
        unchecked=_tool_texts(chat.tools),
        **_common(chat),
    )


def _of_completion(body: bytes) -> RequestInfo:
    completion = decode(body, bodies.Completion)
    logprobs = None if completion.logprobs is None else int(completion.logprobs)
    embedded = completion.prompt_embeds is not None and completion.prompt is None
    return RequestInfo(
        operation=Operation.GENERATE,
        prompts=None if embedded else prompt_list("prompt", completion.prompt, cut_of(body)),
        sampling=_sampling(completion, completion.max_tokens, logprobs, GENERATE_MAX_TOKENS),
        prefix=(
            prefix_hash.NO_PREFIX
            if embedded
            else prompt_prefix("prompt", completion.prompt, cut_of(body))
        ),
        **_common(completion),
    )


def _of_responses(body: bytes) -> RequestInfo:
    asked = decode(body, bodies.Responses)
    text = prompt_weight.weigh("input", asked.input)
    # Media have no text and are not empty; an empty text is put into the chat template.
    size = max(sum(p.size for p in text), 0 if asked.input in (None, []) else 1)
    return RequestInfo(
        operation=Operation.CHAT,
        field_name=FieldNames("", _CHAT_WORDS | {"max_tokens": "max_output_tokens"}),
        prompts=(Prompt("input", size),),
        sampling=_sampling(asked, asked.max_output_tokens, asked.top_logprobs),
        unchecked=(
            *prompt_weight.weigh("instructions", asked.instructions),
            *prompt_weight.weigh("tools", asked.tools),
        ),
        prefix=_responses_prefix(asked),
        stored=asked.previous_response_id or "",
        **_common(asked),
    )


def _responses_prefix(asked: bodies.Responses) -> prefix_hash.Prefix:
    if isinstance(asked.input, list):
        return prompt_weight.messages_prefix(asked.instructions, asked.input, asked.tools)
    if not asked.instructions and not asked.tools:
        return prefix_hash.of_text(asked.input or "")
    turns = [{"role": "user", "content": asked.input or ""}]
    return prompt_weight.messages_prefix(asked.instructions, turns, asked.tools)


def _of_embeddings(body: bytes) -> RequestInfo:
    asked = decode(body, bodies.Embeddings)
    chat = asked.messages is not None or _is_chat(asked.input)
    return RequestInfo(
        operation=Operation.EMBED,
        model=asked.model or "",
        field_name=FieldNames("", {"prompt": "input"}),
        prompts=None if chat else prompt_list("input", asked.input, cut_of(body)),
        sampling=Sampling(truncate_prompt_tokens=asked.truncate_prompt_tokens),
        unchecked=prompt_weight.weigh("messages", asked.messages or asked.input) if chat else (),
    )


def _of_tokenize(body: bytes) -> RequestInfo:
    asked = decode(body, bodies.Tokenize)
    text = prompt_list("prompt", asked.prompt, cut_of(body))
    return RequestInfo(
        operation=Operation.TOKENIZE,
        model=asked.model or "",
        prompts=text if asked.messages is None else None,
        turns=None if asked.messages is None else _turns(asked.messages),
    )


def _of_detokenize(body: bytes) -> RequestInfo:
    asked = decode(body, bodies.Detokenize)
    return RequestInfo(operation=Operation.TOKENIZE, model=asked.model or "")


def _of_predict(body: bytes) -> RequestInfo:
    asked = decode(body, bodies.Predict)
    return RequestInfo(
        operation=Operation.PREDICT,
        field_name=FieldNames("", {"model": "model_name", "prompt": "input_data"}),
        prompts=(Prompt("input_data", len(asked.input_data.encode())),),
        sampling=_sampling(asked, asked.max_tokens, None),
        labels=asked.labels,
        prefix=prefix_hash.of_text(asked.input_data),
        **_common(asked) | {"model": asked.model_name or asked.model or ""},
    )


_READERS: Mapping[Body, Callable[[bytes], RequestInfo]] = {
    Body.CHAT: _of_chat,
    Body.COMPLETION: _of_completion,
    Body.RESPONSES: _of_responses,
    Body.MESSAGES: prompt_weight.of_messages,
    Body.EMBEDDINGS: _of_embeddings,
    Body.PAIRS: prompt_weight.of_pairs,
    Body.INPUTS: prompt_weight.of_inputs,
    Body.BATCH: prompt_weight.of_batch,
    Body.TOKENIZE: _of_tokenize,
    Body.DETOKENIZE: _of_detokenize,
    Body.PREDICT: _of_predict,
    Body.ANY: prompt_weight.of_any,
}


def _common(asked: bodies.Sampled) -> dict[str, Any]:
    return {
        "model": asked.model or "",
        "streaming": bool(asked.stream),
        "stream_options": bool(asked.stream_options),
        "formats": tuple(_formats(asked)),
        "priority": asked.priority or 0,
        "session": asked.session_id or "",
    }


def _sampling(
    asked: bodies.Sampled, max_tokens: int | None, logprobs: int | None, default: int | None = None
) -> Sampling:
    stop = asked.stop
    return Sampling(
        **{name: getattr(asked, name) for name in _SAMPLING},
        n=asked.n,
        max_tokens=max_tokens,
        logprobs=logprobs,
        stop=(stop,) if isinstance(stop, str) else stop or (),
        stop_token_ids=asked.stop_token_ids or (),
        logit_bias=asked.logit_bias or {},
        default_max_tokens=default,
        use_beam_search=bool(asked.use_beam_search),
        echo=bool(asked.echo),
    )


def _chat_prefix(chat: bodies.Chat) -> prefix_hash.Prefix:
    messages = (prefix_hash.Message(m.role, _parts(m)) for m in chat.messages)
    tools = (
        b"%s%s%s" % (t.function.name.encode(), t.function.description, t.function.parameters)
        for t in chat.tools or ()
    )
    return prefix_hash.of_chat(messages, tools)


def _tool_texts(tools: Sequence[bodies.Tool] | None) -> tuple[Prompt, ...]:
    """What of the tools' definitions comes before the prompt, in most chat templates."""
    functions = [tool.function for tool in tools or ()]
    size = sum(
        len(f.name) + len(bytes(f.description)) + len(bytes(f.parameters)) for f in functions
    )
    return (Prompt("tools", size),) if size else ()


def _parts(message: bodies.Message) -> Sequence[str | bytes]:
    content, calls = message.content, bytes(message.tool_calls)
    found: list[str | bytes] = [content] if isinstance(content, str) else []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            found.append(part)
        else:
            found += [part.text] if part.text else [m.url for m in _media("", part)]
    return [*found, calls] if calls else found


def _is_chat(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _turns(messages: Sequence[bodies.Message]) -> Sequence[Turn]:
    return tuple(_turn(f"messages[{i}]", m) for i, m in enumerate(messages))


def _turn(path: str, message: bodies.Message) -> Turn:
    if not isinstance(message.content, list):
        return Turn(path, message.role, size=len((message.content or "").encode()))
    parts = [bodies.Part(text=p) if isinstance(p, str) else p for p in message.content]
    return Turn(
        path,
        message.role,
        size=sum(len((p.text or "").encode()) for p in parts),
        parts=len(parts),
        media=tuple(m for i, p in enumerate(parts) for m in _media(f"{path}.content[{i}]", p)),
    )


def _media(path: str, part: bodies.Part) -> Sequence[Media]:
    found = []
    for kind in _MEDIA:
        value = getattr(part, kind)
        if isinstance(value, str):
            found.append(Media(f"{path}.{kind}", value))
        elif value is not None and value.url is not None:
            found.append(Media(f"{path}.{kind}.url", value.url))
    return found


def _formats(asked: bodies.Sampled) -> Sequence[Format]:
    found = list(_structured(asked.structured_outputs)) if asked.structured_outputs else []
    wanted = asked.response_format
    if wanted is None:
        return found
    text = bytes(wanted.json_schema.schema) if wanted.json_schema else None
    path = "response_format" + (".json_schema.schema" if wanted.type == "json_schema" else ".type")
    return [*found, Format(path, wanted.type, text=text)]


def _structured(outputs: bodies.StructuredOutputs) -> Sequence[Format]:
    found = []
    schema = bytes(outputs.json)
    if schema not in (b"", b"null"):
        found.append(Format("structured_outputs.json", "json_schema", text=_unquoted(schema)))
    if outputs.json_object:
        found.append(Format("structured_outputs.json_object", "json_object"))
    if outputs.choice is not None:
        found.append(Format("structured_outputs.choice", "choice", values=outputs.choice))
    return found + [
        Format(f"structured_outputs.{kind}", kind, text=text)
        for kind in ("regex", "grammar", "structural_tag")
        if (text := getattr(outputs, kind)) is not None
    ]


def _unquoted(schema: bytes) -> bytes:
    """A schema may also be a string that holds its JSON text."""
    return msgspec.json.decode(schema, type=str).encode() if schema.startswith(b'"') else schema


def _tools(tools: Sequence[bodies.Tool]) -> Sequence[ToolFacts]:
    return [
        ToolFacts(
            f"tools[{i}].function",
            tool.function.name,
            None if (schema := bytes(tool.function.parameters)) in (b"", b"null") else schema,
        )
        for i, tool in enumerate(tools)
    ]


def _tool_choice(choice: str | bodies.NamedChoice | None) -> ToolChoice:
    if isinstance(choice, bodies.NamedChoice):
        return ToolChoice("named", choice.function.name)
    return ToolChoice(choice or "")
