"""`autoglm size` reads a checkpoint, weights included, and says what it needs."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

TINY = Path(__file__).parents[4] / "examples/tiny-glm/model"


def sized(autoglm: Any, *flags: str, model: Path = TINY) -> dict[str, Any]:
    result = autoglm("size", "--model", str(model), "--output", "json", *flags)
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
    document = sized(autoglm, "--parameters", "9B", "--precision", "int4")

    assert document["bytes"]["weights"] == 4.5e9


def test_packed_weights_are_not_counted(autoglm: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    header = json.dumps({"a": {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)

    assert sized(autoglm, model=tmp_path)["parameters"] > 100_000


def test_the_text_says_memory_gpus_and_a_spec(autoglm: Any) -> None:
    result = autoglm("size", "--model", str(TINY / "config.json"), "--parameters", "30B")

    assert "30.00 billion parameters, 8 requests of 4096 tokens" in result.out
    assert "weights (bf16)" in result.out and "55.88 GiB" in result.out
    assert "One replica on A100, H100 80 GB or larger:" in result.out
    assert "limits: {nvidia.com/gpu: 1}" in result.out


def test_what_fits_nowhere_gets_advice(autoglm: Any) -> None:
    result = autoglm("size", "--model", str(TINY), "--parameters", "9T")

    assert "Not enough memory on 8 GPUs of any type." in result.out


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--model", "org/none"), 1, "`hf download org/none config.json --local-dir DIR`"),
        (
            ("--model", str(TINY), "--parameters", "many"),
            2,
            "not a number of parameters such as 9B",
        ),
        (("--model", str(TINY), "--context", "9999"), 2, "maximum of 4096 tokens"),
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

    result = autoglm("size", "--model", str(path))

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: --model")


@pytest.mark.parametrize("weights", [b"", b"short", b"\xff" * 16, b"\x02" + b"\0" * 7 + b"[]"])
def test_hostile_weights_are_refused(autoglm: Any, tmp_path: Path, weights: bytes) -> None:
    (tmp_path / "config.json").write_text((TINY / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(weights)

    assert autoglm("size", "--model", str(tmp_path)).code == 1
