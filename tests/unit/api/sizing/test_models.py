"""Sizes of real models agree with transformers' own classes.

tests/data/counted_models.json has what tests/support/meta_models.py counts on torch's meta device.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.meta_models import COUNTED, TOKENS, configs

from autoglm.api.sizing import CHECKED, shape_of
from autoglm.api.sizing.fields import NAMES, defaults

CONFIGS = configs()
RECORDED: dict[str, dict[str, Any]] = json.loads(COUNTED.read_text())
MOST = 0.02


def test_every_model_is_recorded() -> None:
    assert RECORDED.keys() == CONFIGS.keys()


def test_types_that_are_called_checked_are_checked() -> None:
    assert {config["model_type"] for config in CONFIGS.values()} == CHECKED


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_right_within_two_percent(name: str) -> None:
    assert shape_of(CONFIGS[name]).parameters == pytest.approx(
        RECORDED[name]["parameters"], rel=MOST
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_size_of_the_checkpoint_is_right_within_two_percent(name: str) -> None:
    assert shape_of(CONFIGS[name]).weight_bytes() == pytest.approx(
        RECORDED[name]["bytes"], rel=MOST
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_the_kv_cache_is_right_within_two_percent(name: str) -> None:
    shape = shape_of(CONFIGS[name])
    numbers = sum(layer.numbers * min(TOKENS, layer.window or TOKENS) for layer in shape.layers)

    assert numbers == pytest.approx(RECORDED[name]["kv_numbers"], rel=MOST)


def test_gpt_oss_has_the_published_size() -> None:
    assert shape_of(CONFIGS["gpt-oss-20b"]).weight_bytes() == pytest.approx(13.76e9, rel=MOST)


def test_an_encoder_has_no_kv_cache() -> None:
    shape = shape_of(CONFIGS["bge-m3"])

    assert shape.kv_bytes(8192, "fp16") == 0
    assert (shape.is_encoder, shape.served_precision) == (True, "fp16")


def test_a_transcriber_keeps_the_audio_of_a_request() -> None:
    shape = shape_of(CONFIGS["whisper-large-v3"])

    assert shape.kv_bytes(1, "fp16") == 32 * 2 * 1280 * 2 * (1 + 1500)


def test_fields_that_a_hub_omits_have_the_defaults_of_their_type() -> None:
    # Of eight fields of the text, its config.json has four.
    assert shape_of(CONFIGS["gemma-3-4b"]).heads == 8


def test_defaults_have_known_fields_only() -> None:
    names = {name for entry in defaults().values() for name in entry["fields"]}

    assert names <= NAMES
