"""vLLM's command line from our options."""

import pytest

from autoglm.inference.engine import EngineOptions
from autoglm.inference.vllm.launch import command_line


def test_what_is_not_set_is_left_to_vllm() -> None:
    assert command_line(EngineOptions("/m")) == [
        "--model=/m",
        "--tensor-parallel-size=1",
        "--pipeline-parallel-size=1",
        "--served-model-name",
        "/m",
    ]


def test_the_served_name_comes_before_the_aliases() -> None:
    options = EngineOptions("/m", served_name="glm", aliases=("a", "b"))

    assert command_line(options)[-4:] == ["--served-model-name", "glm", "a", "b"]


@pytest.mark.parametrize(
    ("name", "value", "arguments"),
    [
        ("enforce_eager", True, ["--enforce-eager"]),
        ("enable-prefix-caching", False, ["--no-enable-prefix-caching"]),
        ("seed", 3, ["--seed=3"]),
        ("load_format", None, []),
        ("limit_mm_per_prompt", {"image": 2}, ['--limit-mm-per-prompt={"image": 2}']),
        ("lora_modules", ["a=/a", "b=/b"], ["--lora-modules", "a=/a", "b=/b"]),
        ("chat_template", "-dash", ["--chat-template=-dash"]),
    ],
)
def test_further_arguments(name: str, value: object, arguments: list[str]) -> None:
    bare = command_line(EngineOptions("/m"))

    assert command_line(EngineOptions("/m", engine_args={name: value})) == bare + arguments


def test_media_domains_are_one_option() -> None:
    options = EngineOptions("/m", allowed_media_domains=("a.example", "b.example"))

    found = command_line(options)
    at = found.index("--allowed-media-domains")
    assert found[at + 1 : at + 3] == ["a.example", "b.example"]


def test_an_option_given_twice_is_refused() -> None:
    options = EngineOptions("/m", engine_args={"max-model-len": 9, "dtype": "auto"})

    with pytest.raises(ValueError, match=r"dtype: set dtype .*max_model_len: set max_model_len"):
        command_line(options)
