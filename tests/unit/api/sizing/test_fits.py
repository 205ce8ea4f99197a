"""Memory is computed from a model's own configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.api.sizing import (
    GIB,
    GPUS,
    RUNTIME_BYTES,
    UTILIZATION,
    Layer,
    Load,
    UnknownGpu,
    UnknownModel,
    fits,
    fits_on,
    gpu_named,
    host,
    need,
    shape_of,
)

# Qwen3-8B, which has 8.19 billion parameters.
QWEN: dict[str, Any] = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 40960,
}
LOAD = Load("bf16", "bf16", context=16384, concurrency=4)


def test_parameters_follow_from_the_configuration() -> None:
    assert shape_of(QWEN).parameters == pytest.approx(8.19e9, rel=0.001)


def test_counted_parameters_win_over_estimated_ones() -> None:
    assert shape_of(QWEN).with_parameters(7 * 10**9).parameters == pytest.approx(7e9, abs=3)


def test_counted_bytes_win_over_estimated_ones() -> None:
    shape = shape_of(QWEN).with_stored_bytes(10**9)

    assert shape.weight_bytes() == pytest.approx(1e9)
    assert shape.parameters == shape_of(QWEN).parameters


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("fp16", 2), ("bf16", 2)])
def test_weights_take_the_bytes_of_their_precision(precision: str, size: float) -> None:
    shape = shape_of(QWEN)

    assert need(shape, replace(LOAD, precision=precision)).weights == size * shape.parameters


def test_a_quantization_while_loading_leaves_embeddings_as_they_are() -> None:
    shape = shape_of(QWEN)
    tables = 2 * 151936 * 4096

    eight = need(shape, replace(LOAD, precision="fp8")).weights

    assert eight == pytest.approx(shape.parameters - tables + 2 * tables, rel=0.001)


def test_weights_in_32_bits_are_served_in_16() -> None:
    assert shape_of({**QWEN, "torch_dtype": "float32"}).served_precision == "bf16"
    assert shape_of({**QWEN, "torch_dtype": "bfloat16"}).served_precision is None


def test_the_kv_cache_holds_keys_and_values_of_every_token() -> None:
    needed = need(shape_of(QWEN), LOAD)

    assert needed.kv_token == 2 * 36 * 8 * 128 * 2
    assert needed.kv_cache == needed.kv_token * 16384 * 4
    assert needed.total == needed.weights + needed.kv_cache + RUNTIME_BYTES


@pytest.mark.parametrize(
    ("change", "layer"),
    [
        ({}, Layer(2 * 8 * 128)),
        ({"num_key_value_heads": None}, Layer(2 * 32 * 128)),
        ({"head_dim": None}, Layer(2 * 8 * 128)),
        ({"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128}, Layer(576)),
        ({"layer_types": ["sliding_attention"], "sliding_window": 512}, Layer(2048, 512)),
        ({"layer_types": ["mamba"]}, Layer(0)),
        ({"text_config": {**QWEN, "num_hidden_layers": 1, "num_key_value_heads": 2}},
         Layer(2 * 2 * 128)),
        ({"multi_query_attention": True, "num_key_value_heads": None,
          "multi_query_group_num": 2, "head_dim": None, "kv_channels": 64}, Layer(2 * 2 * 64)),
    ],
)  # fmt: skip
def test_kinds_of_attention_need_caches_of_their_own(change: dict[str, Any], layer: Layer) -> None:
    assert shape_of({**QWEN, "num_hidden_layers": 1, **change}).layers[0] == layer


def test_a_state_takes_the_same_memory_for_every_length() -> None:
    shape = replace(shape_of(QWEN), layers=(Layer(0, state=100), Layer(2)))

    assert shape.kv_bytes(1000, "fp8") == 100 + 2 * 1000


def test_a_window_bounds_the_cache() -> None:
    shape = replace(shape_of(QWEN), layers=(Layer(10, window=100), Layer(10)))

    assert shape.kv_bytes(1000, "fp8") == 10 * 100 + 10 * 1000


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ({"torch_dtype": "float16"}, "fp16"),
        ({"dtype": "float32"}, "fp32"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "int4"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "int8"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4"),
    ],
)
def test_the_stored_precision_is_known(config: dict[str, Any], precision: str) -> None:
    assert shape_of({**QWEN, **config}).precision == precision


def test_a_gpu_that_fits_holds_all_of_it() -> None:
    found = {fit.gpu.name: fit for fit in fits(shape_of(QWEN), LOAD)}

    # 15.3 GiB of weights, 9 of cache and 2 besides are too much for one GPU with 24 GB.
    assert found["L4, A10 24 GB"].tensor_parallel == 2
    assert found["A100 40 GB"].tensor_parallel == 1
    assert found["A100 40 GB"].used == pytest.approx(26.26 * GIB, rel=0.001)
    assert found["A100, H100 80 GB"].concurrency == 24


def test_latent_caches_are_whole_on_every_gpu() -> None:
    latent = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128}
    shape = shape_of({**QWEN, **latent}).with_parameters(60 * 10**9)
    [fit] = [f for f in fits(shape, LOAD) if f.gpu.name == "A100, H100 80 GB"]

    assert fit.tensor_parallel == 2
    cache = shape.kv_bytes(16384, "bf16") * 4
    assert fit.used == pytest.approx(60 * 10**9 + RUNTIME_BYTES + cache)


def test_each_number_of_one_gpu_that_fits_is_listed() -> None:
    found = fits_on(gpu_named("L4"), shape_of(QWEN), LOAD)

    assert [fit.tensor_parallel for fit in found] == [2, 4, 8]
    assert {fit.gpu.name for fit in found} == {"L4"}


@pytest.mark.parametrize(
    ("name", "gib"),
    [("l4", 22.5), ("NVIDIA L4", 22.5), ("rtx4090", 24.0), ("A100-80GB", 79.2), ("h200", 140.0),
     ("mi300x", 191.0), ("A100 40GB", 39.5)],
)  # fmt: skip
def test_a_gpu_is_known_by_its_usual_names(name: str, gib: float) -> None:
    assert gpu_named(name).gib == gib


@pytest.mark.parametrize(
    ("name", "message"),
    [("a100", "may be A100-40GB, A100-80GB"), ("L5", "is not in the table of GPUs"), ("", "T4")],
)
def test_an_unknown_gpu_names_those_that_are_known(name: str, message: str) -> None:
    with pytest.raises(UnknownGpu, match=message):
        gpu_named(name)


def test_every_name_of_a_gpu_is_of_one_gpu() -> None:
    names = [model for gpu in GPUS for model in gpu.models]

    assert len(names) == len(set(names))
    assert {gpu_named(name).name for name in names} == set(names)


def test_what_no_machine_holds_has_no_fit() -> None:
    assert {f.tensor_parallel for f in fits(shape_of(QWEN).with_parameters(10**13), LOAD)} == {None}


def test_the_host_takes_the_weights_in() -> None:
    pod = host(shape_of(QWEN).with_stored_bytes(2 * 10**9), gpus=2)

    assert pod.cpu == 6
    assert pod.memory == pytest.approx(2 * 10**9 + 8 * GIB)
    assert pod.disk == pytest.approx(2.2 * 10**9)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "has no hidden_size; only language models"),
        ({**QWEN, "num_hidden_layers": "many"}, "num_hidden_layers = 'many'"),
        ({**QWEN, "num_hidden_layers": 10**8}, "at most 10000 are supported"),
        ({**QWEN, "num_attention_heads": 0}, "num_attention_heads = 0"),
        ({**QWEN, "vocab_size": None}, "has no vocab_size"),
    ],
)
def test_a_wrong_configuration_names_what_is_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownModel) as raised:
        shape_of(config)

    assert message in str(raised.value)


_VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just({})
)


_ODD = ["kv_lora_rank", "num_experts", "text_config", "layer_types", "quantization_config"]


@given(st.dictionaries(st.sampled_from([*QWEN, *_ODD]), _VALUES))
def test_a_hostile_configuration_is_refused_and_never_crashes(change: dict[str, Any]) -> None:
    try:
        shape = shape_of({**QWEN, **change})
    except UnknownModel:
        return
    for fit in fits(shape, LOAD):
        assert fit.used <= fit.gpu.gib * GIB * UTILIZATION
