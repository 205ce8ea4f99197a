"""Chat requests as vLLM's OpenAI API takes them. Pure; called by `chat` and `tokenization`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.vllm import sampling

_TOOL_MODES = {
    v1.ToolChoice.MODE_NONE: "none",
    v1.ToolChoice.MODE_AUTO: "auto",
    v1.ToolChoice.MODE_REQUIRED: "required",
}


def chat_request(request: v1.ChatRequest, *, stream: bool) -> dict[str, Any]:
    """Return the body of /v1/chat/completions that says the same as `request`."""
    body = sampling.given(request.sampling_params)
    if "prompt_logprobs" in body:
        raise errors.InvalidRequest(
            "Chat does not report prompt_logprobs; call Generate.",
            field="sampling_params.prompt_logprobs",
        )
    if "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    if "logprobs" in body:
        body |= {"logprobs": True, "top_logprobs": body["logprobs"]}
    if "logit_bias" in body:
        body["logit_bias"] = {str(token): bias for token, bias in body["logit_bias"].items()}
    if "truncate_prompt_tokens" in body:
        body["truncation_side"] = "left"
    wanted = request.response_format
    match wanted.WhichOneof("format"):
        case "json_object" if wanted.json_object:
            body["response_format"] = {"type": "json_object"}
        case "json_schema":
            named = {"name": wanted.json_schema.name or "answer", "schema": sampling.schema(wanted)}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        case "regex" | "choice" | "grammar":
            body["structured_outputs"] = sampling.constraint(wanted)
    for i, tool in enumerate(request.tools):
        function: dict[str, Any] = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        if tool.parameters:
            field = f"tools[{i}].parameters"
            function["parameters"] = sampling.json_object(tool.parameters, field)
        body.setdefault("tools", []).append({"type": "function", "function": function})
    choice = request.tool_choice
    match choice.WhichOneof("choice"):
        case "function":
            body["tool_choice"] = {"type": "function", "function": {"name": choice.function}}
        case "mode" if choice.mode in _TOOL_MODES:
            body["tool_choice"] = _TOOL_MODES[choice.mode]
    body["messages"] = messages(request.messages)
    body["model"] = request.model
    if request.HasField("parallel_tool_calls"):
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.HasField("add_generation_prompt"):
        body["add_generation_prompt"] = request.add_generation_prompt
    if request.continue_final_message:
        # vLLM rejects both together, but only where both are set.
        body["continue_final_message"] = True
        body.setdefault("add_generation_prompt", True)
    if request.session_id:
        body["session_id"] = request.session_id
    if request.chat_template_kwargs:
        given = sampling.json_object(request.chat_template_kwargs, "chat_template_kwargs")
        body["chat_template_kwargs"] = given
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def messages(turns: Sequence[v1.ChatMessage]) -> list[dict[str, Any]]:
    """Return the messages of a conversation. Raises InvalidRequest."""
    if not turns:
        raise errors.InvalidRequest("messages must hold at least one.", field="messages")
    made = []
    for number, turn in enumerate(turns):
        field = f"messages[{number}]"
        if not turn.role:
            raise errors.InvalidRequest(f"{field}.role is missing.", field=f"{field}.role")
        if turn.content and turn.parts:
            raise errors.InvalidRequest(f"Set {field}.content or {field}.parts.", field=field)
        content = [_part(p, f"{field}.parts[{i}]") for i, p in enumerate(turn.parts)]
        message: dict[str, Any] = {"role": turn.role, "content": content or turn.content}
        for call in turn.tool_calls:
            function = {"name": call.name, "arguments": call.arguments}
            given = {"id": call.id, "type": "function", "function": function}
            message.setdefault("tool_calls", []).append(given)
        for name in ("name", "tool_call_id", "reasoning"):
            if value := getattr(turn, name):
                message[name] = value
        made.append(message)
    return made


def _part(part: v1.ContentPart, field: str) -> dict[str, Any]:
    match part.WhichOneof("part"):
        case "text":
            return {"type": "text", "text": part.text}
        case "image_url" | "audio_url" | "video_url" as kind:
            return {"type": kind, kind: {"url": getattr(part, kind)}}
    raise errors.InvalidRequest(f"{field} is empty.", field=field)
