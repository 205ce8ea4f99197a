"""Formats Envoy's local replies over REST as the gateway's errors. Pure.

Local replies have response flags, or a status that the picker never sends; responses of the picker
have neither and pass unchanged. Each path has the errors of its own dialect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autoglm.common import errors
from autoglm.common.errors import AutoGLMError
from autoglm.gateway.envoy.config.parts import Json, header
from autoglm.validation import http_errors
from autoglm.validation.http_apis import DIALECTS, Dialect

_REQUEST_TIMEOUT = 408
_REQUEST_ID = "%REQ(x-request-id)%"


def _unavailable(message: str) -> AutoGLMError:
    return errors.NoReadyEndpoint(message, retry_after=1.0)


# Errors by response flag (listed in Envoy's access-log documentation), in the order of matching.
_ERRORS: tuple[tuple[tuple[str, ...], AutoGLMError], ...] = (
    (("UT", "DT"), errors.DeadlineExceeded("the deadline passed before the pod responded")),
    (("SI",), errors.DeadlineExceeded("the response stalled for too long")),
    (("DPE",), errors.InvalidRequest("the request violates its protocol")),
    (("UC", "UR", "UPE", "LR"), _unavailable("the pod disconnected; try again later")),
    (("OM",), _unavailable("the gateway has no memory left; try again later")),
    (
        ("UF", "UH", "UO", "URX", "NC"),
        _unavailable("no pod could be reached; try again later"),
    ),
)


def local_replies() -> dict[str, Any]:
    """Return the local reply configuration of the HTTP listener."""
    late = errors.DeadlineExceeded("the deadline passed before the body had arrived")
    by_flag = [(_has_flags(flags), error) for flags, error in _ERRORS]
    every = [*by_flag, (_is(_REQUEST_TIMEOUT), late)]
    return {"mappers": [mapper for which, error in every for mapper in _mappers(which, error)]}


def _has_flags(flags: tuple[str, ...]) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": list(flags)}}


def _is(code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": f"autoglm.status.{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _mappers(which: Json, error: AutoGLMError) -> Iterator[Json]:
    """Yield a mapper for each dialect; the first that matches is used."""
    for form, dialect in DIALECTS:
        has_path = {"header_filter": {"header": _path_matches(form)}}
        yield _mapper({"and_filter": {"filters": [which, has_path]}}, error, dialect)


def _path_matches(form: str) -> Json:
    """Match the path, which may have a query string."""
    return {
        "name": ":path",
        "string_match": {"safe_regex": {"regex": f"(?s)(?:{form})(?:\\?.*)?"}},
        "treat_missing_header_as_empty": True,
    }


def _mapper(which: Json, error: AutoGLMError, dialect: Dialect) -> Json:
    rendered = http_errors.in_dialect(error, _REQUEST_ID, dialect)
    return {
        "filter": which,
        "status_code": rendered.status,
        "headers_to_add": [header(name, value) for name, value in rendered.headers.items()],
        "body_format_override": {
            "json_format": http_errors.payload(error, _REQUEST_ID, dialect),
            "content_type": "application/json",
        },
    }
