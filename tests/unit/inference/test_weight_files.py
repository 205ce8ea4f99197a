"""The files that a start needs are chosen as vLLM chooses them."""

from __future__ import annotations

import pytest

from autoglm.inference.weight_files import files_of, is_pickle, size_of, weights_of


@pytest.mark.parametrize(
    ("files", "size"),
    [
        ({"model-1.safetensors": 3, "model-2.safetensors": 4, "config.json": 9}, 7),
        ({"model.safetensors": 3, "original/a.safetensors": 3}, 3),
        ({"model.safetensors": 4, "consolidated.safetensors": 3}, 3),
        ({"consolidated.safetensors": 3}, 3),
        ({"model.safetensors": 3, "pytorch_model.bin": 5}, 3),
        ({"pytorch_model.bin": 5}, 5),
        ({"README.md": 1}, 0),
    ],
)
def test_only_the_weights_that_are_loaded_count(files: dict[str, int], size: int) -> None:
    assert size_of(files.items()) == size


def test_what_configures_a_model_comes_with_its_weights_and_nothing_else() -> None:
    needed = [
        "config.json", "model-1.safetensors", "tokenizer.model", "chat_template.jinja",
        "modeling_own.py", "1_Pooling/config.json", "LICENSE",
    ]  # fmt: skip
    others = ["pytorch_model.bin", "model.gguf", "original/params.json", "onnx/model.onnx", "a.png"]

    assert files_of(needed + others) == needed


def test_weights_that_can_carry_code_are_recognized() -> None:
    assert [is_pickle(each) for each in weights_of(["a.bin", "config.json"])] == [True]
    assert [is_pickle(each) for each in weights_of(["a.bin", "a.safetensors"])] == [False]
