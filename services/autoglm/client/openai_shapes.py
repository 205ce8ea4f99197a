"""Converts messages, tools and formats from OpenAI's dictionaries to API messages.

API messages pass through unchanged. Invalid and unknown keys raise InvalidRequest. Called by
`requests`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autoglm import v1
from autoglm.common.errors import InvalidRequest

_MODES = {
    "none": v1.ToolChoice.MODE_NONE,
    "auto": v1.ToolChoice.MODE_AUTO,
    "required": v1.ToolChoice.MODE_REQUIRED,
}
_MESSAGE_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning")
_TOOL_FIELDS = ("name", "description", "parameters", "strict")
_URL_PARTS = ("image_url", "audio_url", "video_url")


def message(value: v1.ChatMessage | Mapping[str, Any], where: str) -> v1.ChatMessage:
    if isinstance(value, v1.ChatMessage):
        return value
    fields = _fields(value, where, _MESSAGE_FIELDS)
    content = fields.pop("content", "")
    if isinstance(content, str):
        fields["content"] = content
    else:
        fields["parts"] = [_part(p, f"{where}.content[{i}]") for i, p in enumerate(content)]
    calls = fields.pop("tool_calls", ())
    fields["tool_calls"] = [_call(c, f"{where}.tool_calls[{i}]", i) for i, c in enumerate(calls)]
    try:
        return v1.ChatMessage(**fields)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{where}: {error}", field=where) from error


def _part(value: v1.ContentPart | Mapping[str, Any], where: str) -> v1.ContentPart:
    if isinstance(value, v1.ContentPart):
        return value
    kind = value.get("type", "text")
    if kind == "text":
        return v1.ContentPart(text=value.get("text", ""))
    if kind in _URL_PARTS and kind in value:
        url = value[kind]
        return v1.ContentPart(**{kind: url["url"] if isinstance(url, Mapping) else url})
    raise InvalidRequest(
        f"{where}: a part has the type text, {', '.join(_URL_PARTS)}, and a key of that name",
        field=where,
    )


def _call(value: v1.ToolCall | Mapping[str, Any], where: str, index: int) -> v1.ToolCall:
    if isinstance(value, v1.ToolCall):
        return value
    function = value.get("function", value)
    if not isinstance(function, Mapping) or "name" not in function:
        raise InvalidRequest(f"{where}: a tool call needs a name", field=where)
    return v1.ToolCall(
        id=value.get("id", ""),
        name=function["name"],
        arguments=json_text(function.get("arguments", "")),
        index=value.get("index", index),
    )


def tool(value: v1.Tool | Mapping[str, Any], where: str) -> v1.Tool:
    if isinstance(value, v1.Tool):
        return value
    function = value.get("function", {k: v for k, v in value.items() if k != "type"})
    fields = _fields(function, where, _TOOL_FIELDS)
    return v1.Tool(
        name=fields.get("name", ""),
        description=fields.get("description", ""),
        parameters=json_text(fields.get("parameters", "")),
    )


def tool_choice(value: v1.ToolChoice | Mapping[str, Any] | str | None) -> v1.ToolChoice | None:
    if value is None or isinstance(value, v1.ToolChoice):
        return value
    if isinstance(value, str) and value in _MODES:
        return v1.ToolChoice(mode=_MODES[value])
    if isinstance(value, Mapping) and "name" in (function := value.get("function", {})):
        return v1.ToolChoice(function=function["name"])
    raise InvalidRequest(
        f"tool_choice must be {', '.join(_MODES)} or a function, not {value!r}", field="tool_choice"
    )


def response_format(
    value: v1.ResponseFormat | Mapping[str, Any] | None,
) -> v1.ResponseFormat | None:
    """Convert OpenAI's `{"type": "json_schema", ...}`, or vLLM's `regex`, `choice`, `grammar`."""
    if value is None or isinstance(value, v1.ResponseFormat):
        return value
    kind = value.get("type") or next(iter(value), "")
    if kind == "text":
        return None
    if kind == "json_object":
        return v1.ResponseFormat(json_object=True)
    content = value.get(kind)
    if kind == "json_schema" and isinstance(content, Mapping):
        schema = v1.ResponseFormat.JsonSchema(
            name=content.get("name", ""), schema=json_text(content.get("schema", ""))
        )
        return v1.ResponseFormat(json_schema=schema)
    if kind == "choice" and isinstance(content, list | tuple):
        return v1.ResponseFormat(choice=v1.ResponseFormat.Choice(values=content))
    if kind == "regex" and isinstance(content, str):
        return v1.ResponseFormat(regex=content)
    if kind == "grammar" and isinstance(content, str):
        return v1.ResponseFormat(grammar=content)
    raise InvalidRequest(
        "response_format must be text, json_object, json_schema, regex, choice or grammar,"
        f" not {dict(value)!r}",
        field="response_format",
    )


def json_text(value: Mapping[str, Any] | str) -> str:
    """Return a mapping as JSON text; text stays unchanged."""
    return value if isinstance(value, str) else json.dumps(value)


def _fields(value: Mapping[str, Any], where: str, names: tuple[str, ...]) -> dict[str, Any]:
    fields = {k: v for k, v in value.items() if v is not None}
    unknown = sorted(fields.keys() - set(names))
    if unknown:
        raise InvalidRequest(
            f"{where} has no field {unknown[0]!r}; valid fields: {', '.join(names)}",
            field=f"{where}.{unknown[0]}",
        )
    return fields
