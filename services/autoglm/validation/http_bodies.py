"""Reads JSON bodies of the REST API into a `RequestInfo`.

Bodies must be strict JSON in UTF-8: no NaN, nothing behind the end, no lone surrogates.
`openai_types` says which fields are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from autoglm.validation import openai_types as bodies
from autoglm.validation import prefix_hash, prompts
from autoglm.validation.http_apis import Body, inference_post
from autoglm.validation.oip import infer_path, of_oip_json
from autoglm.validation.request_info import (
    COMPLETION_MAX_TOKENS,
    MEDIA_PARTS,
    NO_TOOL_CHOICE,
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
    utf8_size,
    with_cut,
)
from autoglm.validation.scan.abridged import NOTHING, cut_of, whole_size
from autoglm.validation.scan.form import of_form
from autoglm.validation.scan.json_text import decode

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
    """Return the facts of a POST. Raises InvalidRequest for a body that cannot be read.

    An API that the table does not know is charged by its body, and so is a request of a known one
    in which neither a prompt nor media are found. A large body is `Abridged`.
    """
    api, cut = inference_post(path), cut_of(body)
    if api is None:
        return replace(prompts.of_any(body), billing=Billing.BODY, unchecked=_whole(body))
    if (read := _READERS.get(api.body)) is not None:
        info = read(body)
    elif api.body is Body.OIP:
        info = of_oip_json(infer_path(path) or "", body)
    else:
        info = of_form(body, content_type)
    if cut is not NOTHING:
        ids = sum(n.count - n.stand_ins for n in cut.numbers.values())
        if ids and api.body in (Body.PAIRS, Body.INPUTS):
            # Readers of other bodies have counted them.
            unread = Prompt.of_ids("body", ids)
            info = replace(info, unchecked=(*info.unchecked, unread))
        info = with_cut(info, cut, TEXT_FIELDS)
    if api.billing is Billing.TOKENS and not info.prompt_tokens:
        info = replace(info, unchecked=prompts.of_media(body) or _whole(body))
    if info.operation is not api.operation or info.billing is not api.billing:
        info = replace(info, operation=api.operation, billing=api.billing)
    return info


def _whole(body: bytes) -> tuple[Prompt, ...]:
    return (Prompt("body", whole_size(body)),)


def _of_chat(body: bytes) -> RequestInfo:
    chat = decode(body, bodies.Chat)
    functions = [tool.function for tool in chat.tools or ()]
    # Most chat templates have the tools' definitions before the prompt.
    tools_size = sum(
        len(f.name) + len(bytes(f.description)) + len(bytes(f.parameters)) for f in functions
    )
    max_name = "max_tokens" if chat.max_completion_tokens is None else "max_completion_tokens"
    return RequestInfo(
        operation=Operation.CHAT,
        field_name=FieldNames("", _CHAT_WORDS | {"max_tokens": max_name}),
        turns=_turns(chat.messages),
        sampling=_sampling(chat, getattr(chat, max_name), chat.top_logprobs),
        tools=None
        if chat.tools is None
        else tuple(
            ToolFacts(
                f"tools[{i}].function",
                f.name,
                None if (schema := bytes(f.parameters)) in (b"", b"null") else schema,
            )
            for i, f in enumerate(functions)
        ),
        tool_choice=_tool_choice(chat.tool_choice),
        add_generation_prompt=bool(chat.add_generation_prompt),
        continue_final_message=bool(chat.continue_final_message),
        prefix=prefix_hash.of_chat(
            (prefix_hash.Message(m.role, _parts(m)) for m in chat.messages),
            (b"%s%s%s" % (f.name.encode(), f.description, f.parameters) for f in functions),
        ),
        unchecked=(Prompt("tools", tools_size),) if tools_size else (),
        **_common(chat),
    )


def _of_completion(body: bytes) -> RequestInfo:
    completion, cut = decode(body, bodies.Completion), cut_of(body)
    logprobs = None if completion.logprobs is None else int(completion.logprobs)
    found: Sequence[Prompt] | None = None
    prompt, prefix = completion.prompt, prefix_hash.NO_PREFIX
    if isinstance(prompt, str):
        text = prompt.encode()
        found, prefix = (Prompt("prompt", len(text)),), prefix_hash.of_text(text)
    elif prompt is not None or completion.prompt_embeds is None:
        found = prompts.prompt_list("prompt", prompt, cut)
        prefix = prompts.prompt_prefix("prompt", prompt, cut)
    return RequestInfo(
        operation=Operation.GENERATE,
        prompts=found,
        sampling=_sampling(completion, completion.max_tokens, logprobs, COMPLETION_MAX_TOKENS),
        prefix=prefix,
        **_common(completion),
    )


def _of_responses(body: bytes) -> RequestInfo:
    request = decode(body, bodies.Responses)
    text = prompts.weigh("input", request.input)
    # Media have no text and are not empty; an empty text is put into the chat template.
    size = max(sum(p.size for p in text), 0 if request.input in (None, []) else 1)
    if isinstance(request.input, str | None) and not request.instructions and not request.tools:
        prefix = prefix_hash.of_text(request.input or "")
    else:
        turns: list[Any] = [{"role": "user", "content": request.input or ""}]
        messages = request.input if isinstance(request.input, list) else turns
        prefix = prompts.messages_prefix(request.instructions, messages, request.tools)
    return RequestInfo(
        operation=Operation.CHAT,
        field_name=FieldNames("", _CHAT_WORDS | {"max_tokens": "max_output_tokens"}),
        prompts=(Prompt("input", size),),
        sampling=_sampling(request, request.max_output_tokens, request.top_logprobs),
        unchecked=(
            *prompts.weigh("instructions", request.instructions),
            *prompts.weigh("tools", request.tools),
        ),
        prefix=prefix,
        stored=request.previous_response_id or "",
        **_common(request),
    )


def _of_embeddings(body: bytes) -> RequestInfo:
    request = decode(body, bodies.Embeddings)
    first = request.input[0] if isinstance(request.input, list) and request.input else None
    chat = request.messages is not None or isinstance(first, dict)
    return RequestInfo(
        operation=Operation.EMBED,
        model=request.model or "",
        field_name=FieldNames("", {"prompt": "input"}),
        prompts=None if chat else prompts.prompt_list("input", request.input, cut_of(body)),
        sampling=Sampling(truncate_prompt_tokens=request.truncate_prompt_tokens),
        unchecked=prompts.weigh("messages", request.messages or request.input) if chat else (),
    )


def _of_tokenize(body: bytes) -> RequestInfo:
    request = decode(body, bodies.Tokenize)
    text = prompts.prompt_list("prompt", request.prompt, cut_of(body))
    return RequestInfo(
        operation=Operation.TOKENIZE,
        model=request.model or "",
        prompts=text if request.messages is None else None,
        turns=None if request.messages is None else _turns(request.messages),
    )


def _of_detokenize(body: bytes) -> RequestInfo:
    request = decode(body, bodies.Detokenize)
    return RequestInfo(operation=Operation.TOKENIZE, model=request.model or "")


def _of_predict(body: bytes) -> RequestInfo:
    request = decode(body, bodies.Predict)
    return RequestInfo(
        operation=Operation.PREDICT,
        field_name=FieldNames("", {"model": "model_name", "prompt": "input_data"}),
        prompts=(Prompt("input_data", utf8_size(request.input_data)),),
        sampling=_sampling(request, request.max_tokens, None),
        labels=request.labels,
        prefix=prefix_hash.of_text(request.input_data),
        **_common(request) | {"model": request.model_name or request.model or ""},
    )


_READERS: Mapping[Body, Callable[[bytes], RequestInfo]] = {
    Body.CHAT: _of_chat,
    Body.COMPLETION: _of_completion,
    Body.RESPONSES: _of_responses,
    Body.MESSAGES: prompts.of_messages,
    Body.EMBEDDINGS: _of_embeddings,
    Body.PAIRS: prompts.of_pairs,
    Body.INPUTS: prompts.of_inputs,
    Body.BATCH: prompts.of_batch,
    Body.TOKENIZE: _of_tokenize,
    Body.DETOKENIZE: _of_detokenize,
    Body.PREDICT: _of_predict,
    Body.ANY: prompts.of_any,
}


def _tool_choice(choice: str | bodies.NamedChoice | None) -> ToolChoice:
    if isinstance(choice, bodies.NamedChoice):
        return ToolChoice("named", choice.function.name)
    return ToolChoice(choice) if choice else NO_TOOL_CHOICE


def _common(request: bodies.Sampled) -> dict[str, Any]:
    return {
        "model": request.model or "",
        "streaming": request.stream or False,
        "stream_options": bool(request.stream_options),
        "formats": _formats(request)
        if request.structured_outputs or request.response_format
        else (),
        "priority": request.priority or 0,
        "session": request.session_id or "",
    }


def _sampling(
    request: bodies.Sampled,
    max_tokens: int | None,
    logprobs: int | None,
    default: int | None = None,
) -> Sampling:
    stop = request.stop
    return Sampling(
        n=request.n,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        seed=request.seed,
        max_tokens=max_tokens,
        min_tokens=request.min_tokens,
        logprobs=logprobs,
        prompt_logprobs=request.prompt_logprobs,
        truncate_prompt_tokens=request.truncate_prompt_tokens,
        stop=(stop,) if isinstance(stop, str) else stop or (),
        stop_token_ids=request.stop_token_ids or (),
        logit_bias=request.logit_bias or {},
        default_max_tokens=default,
        use_beam_search=request.use_beam_search or False,
        echo=request.echo or False,
    )


def _parts(message: bodies.Message) -> Sequence[str | bytes]:
    content, calls = message.content, bytes(message.tool_calls)
    if isinstance(content, str) and not calls:
        return (content,)
    found: list[str | bytes] = [content] if isinstance(content, str) else []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            found.append(part)
        else:
            found += [part.text] if part.text else [m.url for m in _media("", part)]
    return [*found, calls] if calls else found


def _turns(messages: Sequence[bodies.Message]) -> Sequence[Turn]:
    found = []
    for number, message in enumerate(messages):
        path, content = f"messages[{number}]", message.content
        if not isinstance(content, list):
            found.append(Turn(path, message.role, size=utf8_size(content or "")))
            continue
        parts = [bodies.Part(text=p) if isinstance(p, str) else p for p in content]
        media = (m for i, p in enumerate(parts) for m in _media(f"{path}.content[{i}]", p))
        size = sum(utf8_size(p.text or "") for p in parts)
        found.append(Turn(path, message.role, size=size, parts=len(parts), media=tuple(media)))
    return tuple(found)


def _media(path: str, part: bodies.Part) -> Sequence[Media]:
    found = []
    for kind in MEDIA_PARTS:
        value = getattr(part, kind)
        if isinstance(value, str):
            found.append(Media(f"{path}.{kind}", value))
        elif value is not None and value.url is not None:
            found.append(Media(f"{path}.{kind}.url", value.url))
    return found


def _formats(request: bodies.Sampled) -> Sequence[Format]:
    found = []
    if outputs := request.structured_outputs:
        schema = bytes(outputs.json)
        if schema not in (b"", b"null"):
            # A schema may also be a string that holds its JSON text.
            is_text = schema.startswith(b'"')
            text = msgspec.json.decode(schema, type=str).encode() if is_text else schema
            found.append(Format("structured_outputs.json", "json_schema", text=text))
        if outputs.json_object:
            found.append(Format("structured_outputs.json_object", "json_object"))
        if outputs.choice is not None:
            found.append(Format("structured_outputs.choice", "choice", values=outputs.choice))
        found += [
            Format(f"structured_outputs.{kind}", kind, text=given)
            for kind in ("regex", "grammar", "structural_tag")
            if (given := getattr(outputs, kind)) is not None
        ]
    if wanted := request.response_format:
        is_schema = wanted.type == "json_schema"
        path = "response_format" + (".json_schema.schema" if is_schema else ".type")
        schema_text = bytes(wanted.json_schema.schema) if wanted.json_schema else None
        found.append(Format(path, wanted.type, text=schema_text))
    return found
