"""Reads messages of `autoglm.v1` into a `RequestInfo`.

Paths are those of protos/autoglm/v1. `streaming` comes from the method, which alone knows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from autoglm import v1
from autoglm.validation import prefix_hash
from autoglm.validation.request_info import (
    COMPLETION_MAX_TOKENS,
    MEDIA_PARTS,
    REAL_PARAMETERS,
    WHOLE_PARAMETERS,
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
from autoglm.validation.scan.abridged import NOTHING, Cut

TEXT_FIELDS = frozenset(
    (
        "text",
        "texts[]",
        "input_data",
        "messages[].content",
        "messages[].parts[].text",
        "chat.messages[].content",
        "chat.messages[].parts[].text",
    )
)
"""Where messages have the text of prompts, as `bounds` names fields."""
_OPTIONAL = frozenset((*WHOLE_PARAMETERS, *REAL_PARAMETERS))
_TOP_LEVEL = {
    name: name
    for name in (
        "model",
        "messages",
        "tools",
        "tool_choice",
        "tool_choice.function",
        "labels",
        "chat_template_kwargs",
    )
}
_WORDS = FieldNames("sampling_params.", _TOP_LEVEL | {"prompt": "text"})
_PREDICT = FieldNames(
    "sampling_params.", _TOP_LEVEL | {"model": "model_name", "prompt": "input_data"}
)
_EMBED = FieldNames("sampling_params.", _TOP_LEVEL | {"prompt": "texts"})
_MODES = {
    v1.ToolChoice.MODE_NONE: "none",
    v1.ToolChoice.MODE_AUTO: "auto",
    v1.ToolChoice.MODE_REQUIRED: "required",
}


def of_generate(
    request: v1.GenerateRequest, *, streaming: bool = False, cut: Cut = NOTHING
) -> RequestInfo:
    """Return the facts of a generation. `cut` is the part that the request lacks, as below."""
    if request.WhichOneof("prompt") == "token_ids":
        rest = cut.numbers.get("token_ids.ids")
        count = len(request.token_ids.ids) + (rest.count if rest else 0)
        prompt = Prompt.of_ids("token_ids.ids", count)
        prefix = prefix_hash.of_token_ids(request.token_ids.ids, count)
    else:
        prompt = Prompt("text", utf8_size(request.text))
        prefix = prefix_hash.of_text(request.text)
    info = RequestInfo(
        operation=Operation.GENERATE,
        model=request.model,
        field_name=_WORDS,
        streaming=streaming,
        prompts=(prompt,),
        sampling=_sampling(request.sampling_params, COMPLETION_MAX_TOKENS),
        formats=_formats(request.response_format),
        priority=request.priority,
        session=request.session_id,
        prefix=prefix,
    )
    return with_cut(info, cut, TEXT_FIELDS)


def of_chat(request: v1.ChatRequest, *, streaming: bool = False, cut: Cut = NOTHING) -> RequestInfo:
    """Return the facts of a chat."""
    messages = (prefix_hash.Message(m.role, tuple(_parts(m))) for m in request.messages)
    tools = (f"{t.name}{t.description}{t.parameters}" for t in request.tools)
    tools_size = sum(len(t.name) + len(t.description) + len(t.parameters) for t in request.tools)
    opens_turn = request.add_generation_prompt or not request.HasField("add_generation_prompt")
    info = RequestInfo(
        operation=Operation.CHAT,
        model=request.model,
        field_name=_WORDS,
        streaming=streaming,
        turns=_turns("messages", request.messages),
        sampling=_sampling(request.sampling_params),
        formats=_formats(request.response_format),
        tools=tuple(
            ToolFacts(f"tools[{i}]", t.name, t.parameters or None)
            for i, t in enumerate(request.tools)
        )
        or None,
        tool_choice=_tool_choice(request.tool_choice),
        template_kwargs=request.chat_template_kwargs,
        add_generation_prompt=opens_turn,
        continue_final_message=request.continue_final_message,
        priority=request.priority,
        session=request.session_id,
        prefix=prefix_hash.of_chat(messages, tools),
        unchecked=(Prompt("tools", tools_size),) if tools_size else (),
    )
    return with_cut(info, cut, TEXT_FIELDS)


def of_embed(request: v1.EmbedRequest, *, cut: Cut = NOTHING) -> RequestInfo:
    """Return the facts of a request for embeddings."""
    info = RequestInfo(
        operation=Operation.EMBED,
        model=request.model,
        field_name=_EMBED,
        prompts=tuple(Prompt(f"texts[{i}]", utf8_size(t)) for i, t in enumerate(request.texts)),
    )
    return with_cut(info, cut, TEXT_FIELDS)


def of_predict(request: v1.PredictRequest, *, cut: Cut = NOTHING) -> RequestInfo:
    """Return the facts of a prediction, with or without labels."""
    info = RequestInfo(
        operation=Operation.PREDICT,
        model=request.model_name,
        field_name=_PREDICT,
        prompts=(Prompt("input_data", utf8_size(request.input_data)),),
        sampling=_sampling(request.sampling_params),
        labels=request.labels,
        priority=request.priority,
        prefix=prefix_hash.of_text(request.input_data),
    )
    return with_cut(info, cut, TEXT_FIELDS)


def of_tokenize(request: v1.TokenizeRequest, *, cut: Cut = NOTHING) -> RequestInfo:
    """Return the facts of a request for tokens, of a text or of a chat."""
    chat = request.WhichOneof("input") == "chat"
    text = (Prompt("text", utf8_size(request.text)),)
    info = RequestInfo(
        operation=Operation.TOKENIZE,
        model=request.model,
        field_name=FieldNames("", {"messages": "chat.messages", "prompt": "text"}),
        prompts=None if chat else text,
        turns=_turns("chat.messages", request.chat.messages) if chat else None,
        billing=Billing.FREE,
    )
    return with_cut(info, cut, TEXT_FIELDS)


def _parts(message: v1.ChatMessage) -> Iterator[str]:
    if message.content:
        yield message.content
    for part in message.parts:
        if kind := part.WhichOneof("part"):
            yield getattr(part, kind)
    for call in message.tool_calls:
        yield f"{call.name}{call.arguments}"


def _sampling(params: v1.SamplingParams, default_max_tokens: int | None = None) -> Sampling:
    fields = ((field.name, value) for field, value in params.ListFields())
    given: dict[str, Any] = {name: value for name, value in fields if name in _OPTIONAL}
    return Sampling(
        **given,
        stop=params.stop,
        stop_token_ids=params.stop_token_ids,
        logit_bias=dict(params.logit_bias),
        default_max_tokens=default_max_tokens,
    )


def _formats(response_format: v1.ResponseFormat) -> Sequence[Format]:
    kind = response_format.WhichOneof("format")
    if kind is None:
        return ()
    path = f"response_format.{kind}"
    if kind == "json_object":
        return (Format(path, kind),) if response_format.json_object else ()
    if kind == "json_schema":
        return (Format(f"{path}.schema", kind, text=response_format.json_schema.schema),)
    if kind == "choice":
        return (Format(f"{path}.values", kind, values=response_format.choice.values),)
    return (Format(path, kind, text=getattr(response_format, kind)),)


def _tool_choice(choice: v1.ToolChoice) -> ToolChoice:
    if choice.WhichOneof("choice") == "function":
        return ToolChoice("named", choice.function)
    # A mode of a newer API is passed on by number, so that the rule can name it.
    return ToolChoice(_MODES.get(choice.mode, str(choice.mode) if choice.mode else ""))


def _turns(path: str, messages: Sequence[v1.ChatMessage]) -> Sequence[Turn]:
    return tuple(
        Turn(
            f"{path}[{number}]",
            message.role,
            size=utf8_size(message.content) + sum(utf8_size(p.text) for p in message.parts),
            parts=len(message.parts),
            has_text=bool(message.content),
            media=tuple(
                Media(f"{path}[{number}].parts[{i}].{kind}", getattr(part, kind))
                for i, part in enumerate(message.parts)
                if (kind := part.WhichOneof("part")) in MEDIA_PARTS
            ),
            empty_part=next(
                (
                    f"{path}[{number}].parts[{i}]"
                    for i, part in enumerate(message.parts)
                    if part.WhichOneof("part") is None
                ),
                "",
            ),
        )
        for number, message in enumerate(messages)
    )
