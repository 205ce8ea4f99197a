"""Requests of the Open Inference Protocol: the text that is read, and the field an error names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autoglm import v1, validation
from autoglm.common.errors import InvalidRequest
from autoglm.v1 import open_inference_pb2 as oip
from autoglm.validation import RequestInfo, of_oip, of_openai
from autoglm.validation.scan.abridged import Cut


def judge(info: RequestInfo) -> None:
    validation.validate(info, v1.Model(name="m", max_model_len=100, max_token_bytes=8), ["m"])


def oip_request(**fields: Any) -> Any:
    text = {"name": "text_input", "datatype": "BYTES", "shape": [1]}
    return oip.ModelInferRequest(**{"model_name": "m", "inputs": [text]} | fields)


def test_oip_reads_text_from_raw_and_typed_contents() -> None:
    raw = b"\x02\x00\x00\x00Hi"
    judge(of_oip(oip_request(raw_input_contents=[raw])))
    typed = oip_request()
    typed.inputs[0].contents.bytes_contents.append(b"Hi")
    judge(of_oip(typed))
    assert of_oip(typed).size == 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"raw_input_contents": [b"\x09\x00\x00\x00Hi"]}, "raw_input_contents[0]"),
        ({"raw_input_contents": [b"\x01\x00\x00\x00\xff"]}, "raw_input_contents[0]"),
        ({"raw_input_contents": [b"", b""]}, "raw_input_contents"),
        ({"inputs": []}, "inputs.text_input"),
        ({}, "inputs[0].contents.bytes_contents"),
        ({"inputs": [{"name": "text_input", "datatype": "FP32"}]}, "inputs[0].datatype"),
        (
            {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [2]}]},
            "inputs[0].shape",
        ),
        (
            {
                "raw_input_contents": [b"\x02\x00\x00\x00Hi"],
                "parameters": {"top_p": {"double_param": 2.0}},
            },
            "parameters.top_p",
        ),
        ({"parameters": {"top_p": {"string_param": "x"}}}, "parameters.top_p"),
    ],
)
def test_oip_names_the_protocols_fields(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        if fields.get("parameters"):
            fields = {"raw_input_contents": [b"\x02\x00\x00\x00Hi"]} | fields
        judge(of_oip(oip_request(**fields)))
    assert caught.value.field == field


def test_oip_over_rest_takes_the_model_from_the_path() -> None:
    text = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Hi"]}
    body = json.dumps({"inputs": [text], "parameters": {"max_tokens": 5}}).encode()
    info = of_openai("/v2/models/m/infer", body)
    judge(info)
    assert (info.model, info.sampling.max_tokens, info.size) == ("m", 5, 2)


def test_a_tensor_that_was_cut_may_be_shorter_than_its_length_says() -> None:
    cut = Cut({"raw_input_contents[]": 10})
    info = of_oip(oip_request(raw_input_contents=[b"\x0c\x00\x00\x00Hi"]), cut=cut)
    assert info.size == 12
    for raw in (b"\x0c", b"\x01\x00\x00\x00Hi"):
        with pytest.raises(InvalidRequest):
            of_oip(oip_request(raw_input_contents=[raw]), cut=cut)
