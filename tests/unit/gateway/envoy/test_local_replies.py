"""Envoy's own answers over REST."""

from __future__ import annotations

from autoglm.gateway.envoy.local_replies import local_replies


def test_every_answer_of_envoys_own_is_an_error_of_openais_shape() -> None:
    for mapper in local_replies()["mappers"]:
        error = mapper["body_format_override"]["json_format"]["error"]
        assert error["request_id"] == "%REQ(x-request-id)%"
        assert mapper["status_code"] in (400, 503, 504)
        assert error["code"] and error["message"]


def test_no_flag_is_judged_twice() -> None:
    filters = [mapper["filter"] for mapper in local_replies()["mappers"]]
    flags = [f for one in filters for f in one.get("response_flag_filter", {}).get("flags", ())]
    assert len(flags) == len(set(flags))
