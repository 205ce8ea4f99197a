"""Renders errors over HTTP, each API in its own dialect. Pure.

Everything that sends an error over HTTP goes through here, with the path of the request: gateway,
Envoy's local replies and pods, before a stream and inside one. `http_apis` says which dialect a
path has.

    OpenAI      {"error": {"message": …, "type": …, "param": …, "code": …, "request_id": …}}
    Responses   as OpenAI; inside a stream an event of type `error` with the same fields
    Anthropic   {"type": "error", "error": {"type": …, "message": …}, "request_id": …}
    OIP         {"error": "text"}
"""

from __future__ import annotations

import http.client
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autoglm.common import errors
from autoglm.common.errors import AutoGLMError
from autoglm.common.status import REQUEST_ID, visible_message
from autoglm.validation.http_apis import RESPONSES, Dialect, dialect_of

ANTHROPIC_REQUEST_ID = "request-id"
"""Where Anthropic's SDKs read the request id."""
SHOULD_RETRY = "x-should-retry"
"""OpenAI's and Anthropic's SDKs obey it; without it they retry every 5xx."""
EVENT_STREAM = "text/event-stream"
STREAM_HEADERS: Mapping[str, str] = MappingProxyType(
    {"cache-control": "no-cache", "x-accel-buffering": "no"}
)
"""They keep proxies in front from holding an event stream back."""
_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
# Anthropic's own API has 529 for an overload; its SDKs map and retry 503 alike.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_ANTHROPIC_KINDS = {"invalid_request_error", "api_error", *_ANTHROPIC_TYPES.values()}
_MAX_TEXT_BYTES = 1000
_COMPACT = (",", ":")
_SEQUENCE_NUMBER = re.compile(rb'"sequence_number": ?(\d{1,9})')


class UnknownPath(AutoGLMError):
    """A path that the server does not have."""

    reason = "UNKNOWN_PATH"
    grpc_status = "UNIMPLEMENTED"
    http_status = 404


@dataclass(frozen=True, slots=True)
class HttpError:
    """An HTTP response; `body` is JSON."""

    status: int
    headers: dict[str, str]
    body: bytes


def to_http(error: AutoGLMError, request_id: str, path: str) -> HttpError:
    """Return the response to a request for `path`, which may have a query."""
    return in_dialect(error, request_id, dialect_of(path))


def in_dialect(error: AutoGLMError, request_id: str, dialect: Dialect) -> HttpError:
    """Return the response in a dialect, for callers that have no single path."""
    headers = {
        **error.headers,
        **_request_id_headers(request_id, dialect),
        "content-type": "application/json",
    }
    if error.http_status == errors.Unauthenticated.http_status:
        # RFC 6750, 3.
        headers["www-authenticate"] = 'Bearer realm="open-autoglm"'
    if error.http_status == errors.Unimplemented.http_status:
        headers[SHOULD_RETRY] = "false"
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    body = json.dumps(payload(error, request_id, dialect)).encode()
    return HttpError(error.http_status, headers, body)


def request_id_headers(request_id: str, path: str) -> dict[str, str]:
    """Return the headers that carry the request id in every response to a request for `path`."""
    return _request_id_headers(request_id, dialect_of(path))


def _request_id_headers(request_id: str, dialect: Dialect) -> dict[str, str]:
    headers = {REQUEST_ID: request_id}
    if dialect is Dialect.ANTHROPIC:
        headers[ANTHROPIC_REQUEST_ID] = request_id
    return headers


def payload(
    error: AutoGLMError, request_id: str, dialect: Dialect, code: int = 0
) -> dict[str, object]:
    """Return the JSON of an error; `code` is the HTTP status if it is not the error's own."""
    code = code or error.http_status
    message = visible_message(error)
    # Without a default, so that mypy rejects a dialect that is not here.
    match dialect:
        case Dialect.OIP:
            return {"error": message}
        case Dialect.ANTHROPIC:
            kind = {"type": _ANTHROPIC_TYPES.get(code, _other_type(code)), "message": message}
            return {"type": "error", "error": kind, "request_id": request_id}
        case Dialect.OPENAI:
            return {
                "error": {
                    "message": message,
                    "type": _OPENAI_TYPES.get(code, _other_type(code)),
                    "param": error.field or None,
                    "code": error.reason.lower(),
                    "request_id": request_id,
                }
            }


def _other_type(code: int) -> str:
    return "invalid_request_error" if code < 500 else "api_error"


def stream_event(error: AutoGLMError, request_id: str, path: str, before: bytes = b"") -> bytes:
    """Return the server-sent event that ends a broken stream, so that none takes it as whole.

    `before` is the end of what was sent: an event of the Responses API continues its numbering. It
    has the fields that the API documents and `error`, which its SDKs raise.
    """
    dialect = dialect_of(path)
    content = payload(error, request_id, dialect)
    name = "error" if dialect is Dialect.ANTHROPIC else ""
    if is_responses(path):
        name, error_fields = "error", content["error"]
        assert isinstance(error_fields, dict), "OpenAI's dialect"
        sent = _SEQUENCE_NUMBER.findall(before)
        content = {
            "type": "error",
            **{field: error_fields[field] for field in ("code", "message", "param")},
            "sequence_number": int(sent[-1]) + 1 if sent else 0,
            **content,
        }
    event = f"event: {name}\n" if name else ""
    return f"{event}data: {json.dumps(content, separators=_COMPACT)}\n\n".encode()


def is_responses(path: str) -> bool:
    """Return whether a path is of the Responses API, stored responses included."""
    return f"{path.partition('?')[0]}/".startswith(f"{RESPONSES}/")


def is_in_dialect(content: object, dialect: Dialect) -> bool:
    """Return whether decoded JSON is an error of the dialect; `request_id` may be missing."""
    error = content.get("error") if isinstance(content, dict) else None
    match dialect:
        case Dialect.OIP:
            return isinstance(error, str)
        case Dialect.ANTHROPIC:
            is_known = isinstance(error, dict) and error.get("type") in _ANTHROPIC_KINDS
            return is_known and isinstance(content, dict) and content.get("type") == "error"
        case Dialect.OPENAI:
            return isinstance(error, dict) and "message" in error


def translated(body: bytes, code: int, request_id: str, dialect: Dialect) -> bytes:
    """Translate another framework's error to the dialect, unless it has that form already."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = body.decode(errors="replace") if len(body) <= _MAX_TEXT_BYTES else ""
    if is_in_dialect(content, dialect):
        return body
    error = _Foreign(_message_of(content) or http.client.responses.get(code, "error"))
    return json.dumps(payload(error, request_id, dialect, code)).encode()


class _Foreign(AutoGLMError):
    """Carries a text of another server, which may be shown."""

    reason = "UPSTREAM_ERROR"


def _message_of(content: object) -> str:
    if isinstance(content, str):
        return content.strip()
    if not isinstance(content, dict):
        return ""
    found = (content[name] for name in ("error", "message", "detail") if content.get(name))
    return _message_of(next(found, ""))
