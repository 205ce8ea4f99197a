"""Envoy's own responses over REST."""

from __future__ import annotations

import re
from typing import Any

import pytest

from autoglm.gateway.envoy.config.local_replies import local_replies
from autoglm.validation.http_apis import INFERENCE_POSTS

_ID = "%REQ(x-request-id)%"


def _mapper(flag: str, path: str) -> Any:
    """The one that Envoy uses: the first whose filters all match."""
    for mapper in local_replies()["mappers"]:
        which, has_path = mapper["filter"]["and_filter"]["filters"]
        form = has_path["header_filter"]["header"]["string_match"]["safe_regex"]["regex"]
        flags = which.get("response_flag_filter", {}).get("flags", ())
        if flag in flags and re.fullmatch(form, path):
            return mapper
    raise AssertionError(f"no mapper for {flag} on {path}")


def _body(flag: str, path: str) -> Any:
    return _mapper(flag, path)["body_format_override"]["json_format"]


@pytest.mark.parametrize("flag", ["UT", "SI", "DPE", "UC", "OM", "UF"])
def test_a_response_of_envoys_own_is_in_the_paths_dialect(flag: str) -> None:
    openai = _body(flag, "/v1/chat/completions?a=b")["error"]
    assert openai["request_id"] == _ID and openai["code"] and openai["message"]
    anthropic = _body(flag, "/v1/messages")
    assert anthropic["type"] == "error" and anthropic["request_id"] == _ID
    assert set(anthropic["error"]) == {"type", "message"}
    assert isinstance(_body(flag, "/v2/models/a/b/infer?x")["error"], str)


def test_every_inference_path_and_every_other_one_has_a_mapper() -> None:
    for path in (*(api.path.replace("{model:.+}", "a/b") for api in INFERENCE_POSTS), "/", "/x\ny"):
        assert _mapper("UT", path)["status_code"] == 504


def test_every_response_has_the_request_id_in_the_dialects_headers() -> None:
    def names(path: str) -> set[str]:
        return {x["header"]["key"] for x in _mapper("UF", path)["headers_to_add"]}

    assert {"x-request-id", "retry-after"} <= names("/v1/completions")
    assert {"x-request-id", "request-id", "retry-after"} <= names("/v1/messages")


def test_no_flag_is_judged_twice() -> None:
    default = [
        flag
        for mapper in local_replies()["mappers"]
        for which, has_path in [mapper["filter"]["and_filter"]["filters"]]
        if "(?:.*)" in has_path["header_filter"]["header"]["string_match"]["safe_regex"]["regex"]
        for flag in which.get("response_flag_filter", {}).get("flags", ())
    ]
    assert len(default) == len(set(default)) > 0
