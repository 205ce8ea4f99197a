"""`autoglm size` reads a checkpoint, weights included, and says what it needs."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

TINY = Path(__file__).parents[4] / "examples/tiny-glm/model"


def sized(autoglm: Any, *flags: str, model: Path = TINY) -> dict[str, Any]:
    result = autoglm("size", str(model), "--output", "json", *flags)
    assert (result.code, result.err) == (0, "")
    document: dict[str, Any] = json.loads(result.out)
    return document


def test_parameters_are_counted_in_the_weights(autoglm: Any) -> None:
    document = sized(autoglm)

    # bf16 weights and a header.
    assert document["parameters"] * 2 == pytest.approx(
        (TINY / "model.safetensors").stat().st_size, rel=0.01
    )
    assert document["precision"] == "bf16"


def test_the_kv_cache_follows_context_and_concurrency(autoglm: Any) -> None:
    document = sized(autoglm, "--context", "1024", "--concurrency", "3")

    assert document["bytes"]["kv_token"] == 2 * 2 * 2 * 32 * 2
    assert document["bytes"]["kv_cache"] == 512 * 1024 * 3


def test_given_parameters_and_precision_win(autoglm: Any) -> None:
    document = sized(autoglm, "--parameters", "9B", "--precision", "fp16")

    assert document["bytes"]["weights"] == pytest.approx(18e9)
    assert document["basis"]["weights"] == "as given, stored as bf16"


def test_the_model_may_be_given_by_a_flag(autoglm: Any) -> None:
    assert autoglm("size", "--model", str(TINY)).out == autoglm("size", str(TINY)).out


def test_one_gpu_has_a_row_for_each_number(autoglm: Any) -> None:
    document = sized(autoglm, "--gpu", "l4")

    # The tiny model has four heads.
    assert [gpu["tensorParallel"] for gpu in document["gpus"]] == [1, 2, 4]
    assert {gpu["name"] for gpu in document["gpus"]} == {"L4"}


def test_what_is_counted_and_what_is_estimated_is_said(autoglm: Any) -> None:
    assert sized(autoglm)["basis"] == {
        "weights": "counted in 1 file of weights",
        "kv_cache": "computed from config.json",
        "runtime": "estimated",
    }
    assert sized(autoglm, model=TINY / "config.json")["basis"]["weights"].startswith("counted")


def test_an_unknown_type_is_called_an_estimate(autoglm: Any, tmp_path: Path) -> None:
    config = json.loads((TINY / "config.json").read_text()) | {"model_type": "new"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))

    assert sized(autoglm, model=tmp_path)["basis"]["weights"] == "estimated as a Llama's"


def test_layers_for_speculative_decoding_are_not_counted(autoglm: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    tensors = {
        "model.layers.1.w": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]},
        "model.layers.2.w": {"dtype": "BF16", "shape": [100], "data_offsets": [16, 216]},
    }
    header = json.dumps(tensors).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)

    assert sized(autoglm, model=tmp_path)["bytes"]["weights"] == pytest.approx(16)


def test_packed_weights_are_not_counted(autoglm: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    header = json.dumps({"a": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)

    document = sized(autoglm, model=tmp_path)

    assert document["parameters"] > 100_000
    assert document["bytes"]["weights"] == pytest.approx(8)


def test_the_text_says_memory_gpus_and_a_spec(autoglm: Any) -> None:
    result = autoglm("size", str(TINY / "config.json"), "--parameters", "30B")

    assert "30.00 billion parameters, 8 requests of 4096 tokens" in result.out
    assert "weights (bf16)" in result.out and "55.88 GiB" in result.out
    assert "One replica on A100, H100 80 GB or larger:" in result.out
    assert "limits: {nvidia.com/gpu: 1}" in result.out


def test_the_spec_names_the_vendors_resource(autoglm: Any) -> None:
    result = autoglm("size", str(TINY), "--parameters", "30B", "--gpu", "MI300X")

    assert "limits: {amd.com/gpu: 1}" in result.out


def test_small_amounts_are_in_mib(autoglm: Any) -> None:
    assert " 16 MiB " in autoglm("size", str(TINY)).out


def test_what_fits_nowhere_gets_advice(autoglm: Any) -> None:
    result = autoglm("size", str(TINY), "--parameters", "9T")

    assert "Not enough memory on 8 GPUs of any type." in result.out


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ((), 2, "give one model"),
        ((str(TINY), "--model", str(TINY)), 2, "give one model"),
        (("./none",), 1, "./none: none does not exist"),
        (("s3://bucket/model",), 1, "s3:// is not read for sizes"),
        ((str(TINY), "--parameters", "many"), 2, "not a number of parameters such as 9B"),
        ((str(TINY), "--parameters", "0"), 2, "not a number of parameters such as 9B"),
        ((str(TINY), "--context", "9999"), 2, "maximum of 4096 tokens"),
        ((str(TINY), "--gpu", "L5"), 2, "is not in the table of GPUs"),
    ],
)
def test_wrong_usage_names_the_way_out(
    autoglm: Any, flags: tuple[str, ...], code: int, message: str
) -> None:
    result = autoglm("size", *flags)

    assert result.code == code
    assert message in " ".join(result.err.split())


@pytest.mark.parametrize("text", ["", "[1]", "{}", "[" * 100_000, '{"num_hidden_layers": 1e400}'])
def test_a_hostile_configuration_is_refused(autoglm: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)

    result = autoglm("size", str(path))

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {path}")


@pytest.mark.parametrize("weights", [b"", b"short", b"\xff" * 16, b"\x02" + b"\0" * 7 + b"[]"])
def test_hostile_weights_are_refused(autoglm: Any, tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(weights)

    assert autoglm("size", "--model", str(tmp_path)).code == 1
