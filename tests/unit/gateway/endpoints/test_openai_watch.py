"""What is read from the pages of servers that are not ours."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoglm import v1
from autoglm.gateway.endpoints.endpoint import Load, Signal
from autoglm.gateway.endpoints.openai_watch import NotServing, Reported, models_of, reported_by

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
process_cpu_seconds_total 12.0
"""


@pytest.mark.parametrize(
    ("page", "reported"),
    [
        (VLLM, Reported(running=5, waiting=1, kv_cache_usage=0.5)),
        ("llamacpp:requests_processing 2\nllamacpp:requests_deferred 4\n", Reported(2, 4, None)),
        ("sglang:num_running_reqs 1\nsglang:token_usage 0.1\n", Reported(1, None, 0.1)),
        ("vllm:num_requests_running NaN\n", Reported()),
        ("vllm:num_requests_running{broken 1\n", Reported()),
        ("<html>not metrics</html>", Reported()),
        ("", Reported()),
    ],
)
def test_what_a_page_does_not_say_stays_unknown(page: str, reported: Reported) -> None:
    assert reported_by(page) == reported


def test_unknown_load_is_no_load_of_others() -> None:
    assert set(Reported().load().missing) == set(Signal)
    assert replace(Reported().load(), missing=()) == Load()


def test_models_are_read_from_the_openai_list() -> None:
    model = b'{"id": "m", "max_model_len": 32, "created": 1.5}'
    page = b'{"data": [' + model + b', {"id": "lora", "parent": "m"}]}'
    assert models_of(page) == (
        v1.Model(name="m", max_model_len=32, created=1, engine="openai"),
        v1.Model(name="lora", parent="m", engine="openai"),
    )


@pytest.mark.parametrize("page", [b"", b"[]", b'{"data": [{}]}', b"\xff", b"<html>"])
def test_another_page_is_no_openai_server(page: bytes) -> None:
    with pytest.raises(NotServing):
        models_of(page)
