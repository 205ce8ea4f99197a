"""What Envoy itself answers over REST, in the shape of the gateway's errors. Pure.

Such answers have response flags, or a status that the picker never sends; answers of the picker
have neither, and pass as they are.
"""

from __future__ import annotations

from typing import Any

from autoglm.common import errors, status
from autoglm.common.errors import AutoGLMError

_REQUEST_TIMEOUT = 408
_REQUEST_ID = "%REQ(x-request-id)%"
# By response flag (Envoy's access-log documentation has them all), in the order they are tried.
_ERRORS: tuple[tuple[tuple[str, ...], AutoGLMError], ...] = (
    (("UT", "DT"), errors.DeadlineExceeded("the deadline passed before the pod answered")),
    (("SI",), errors.DeadlineExceeded("the answer stood still for too long")),
    (("DPE",), errors.InvalidRequest("the request breaks its protocol")),
    (("UC", "UR", "UPE", "LR"), errors.NoReadyEndpoint("the pod went away; try again later")),
    (("OM",), errors.NoReadyEndpoint("the gateway has no memory left; try again later")),
    (
        ("UF", "UH", "UO", "URX", "NC"),
        errors.NoReadyEndpoint("no pod could be reached; try again later"),
    ),
)


def local_replies() -> dict[str, Any]:
    late = errors.DeadlineExceeded("the deadline passed before the body had arrived")
    by_flag = [_mapper(_has_flags(flags), error) for flags, error in _ERRORS]
    return {"mappers": [*by_flag, _mapper(_is(_REQUEST_TIMEOUT), late)]}


def _has_flags(flags: tuple[str, ...]) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": list(flags)}}


def _is(code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": f"autoglm.status.{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _mapper(which: dict[str, Any], error: AutoGLMError) -> dict[str, Any]:
    return {
        "filter": which,
        "status_code": error.http_status,
        "body_format_override": {
            "json_format": status.http_payload(error, _REQUEST_ID),
            "content_type": "application/json",
        },
    }
