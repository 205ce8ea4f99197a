"""Which of the engine's requests a request id means."""

from autoglm.inference.vllm.request_ids import engine_ids, predict_id

LIVE = ["r", "chatcmpl-r", "cmpl-r-0", "cmpl-r-1", predict_id("r", 0), "embd-r-0"]


def test_every_kind_of_request_is_found() -> None:
    assert engine_ids("r", LIVE) == LIVE


def test_no_other_request_is_meant() -> None:
    others = ["rr", "r-1", "chatcmpl-r-1", "chatcmpl-rr", "cmpl-r-1-0", "cmpl-r", "predict-r"]

    assert engine_ids("r", others) == []


def test_a_request_id_is_no_pattern() -> None:
    assert engine_ids(".*", LIVE) == []
