"""The tiny GLM-4 that the repository ships: small enough, a GLM-4, with well-formed lessons."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

HOME = Path(__file__).parents[3] / "examples" / "tiny-glm"
MODEL = HOME / "model"
BUDGET = 3_000_000


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MODEL / "config.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def lessons() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((HOME / "questions.yaml").read_text(encoding="utf-8"))
    return loaded


def test_all_files_fit_the_budget() -> None:
    assert sum(file.stat().st_size for file in MODEL.rglob("*") if file.is_file()) <= BUDGET


def test_it_is_a_glm4_in_bf16(config: dict[str, Any]) -> None:
    assert config["model_type"] == "glm4"
    assert config["architectures"] == ["Glm4ForCausalLM"]
    assert config["dtype"] == "bfloat16"


def test_a_context_of_2048_tokens_fits(config: dict[str, Any]) -> None:
    assert config["max_position_embeddings"] >= 2048


def test_end_and_padding_are_the_same_in_every_file(config: dict[str, Any]) -> None:
    generation = json.loads((MODEL / "generation_config.json").read_text())
    tokens = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    names = json.loads((MODEL / "tokenizer_config.json").read_text())
    ids = {token["content"]: token["id"] for token in tokens}
    expected = (ids[names["eos_token"]], ids[names["pad_token"]])
    assert (config["eos_token_id"], config["pad_token_id"]) == expected
    assert (generation["eos_token_id"], generation["pad_token_id"]) == expected


def test_sampling_defaults_are_left_to_the_request() -> None:
    generation = json.loads((MODEL / "generation_config.json").read_text())
    assert not {"do_sample", "temperature", "top_p", "top_k"} & generation.keys()


def test_the_shipped_chat_template_is_the_one_in_the_source() -> None:
    assert (MODEL / "chat_template.jinja").read_text() == (HOME / "chat_template.jinja").read_text()


def test_no_question_has_two_answers(lessons: dict[str, Any]) -> None:
    questions = [item["question"] for item in lessons["questions"]]
    assert len(questions) == len(set(questions))


def test_every_text_has_one_of_the_labels(lessons: dict[str, Any]) -> None:
    classes = lessons["classification"]
    assert list(classes["texts"]) == list(classes["unseen"]) == classes["labels"]


def test_unseen_texts_were_not_learnt(lessons: dict[str, Any]) -> None:
    learnt = {text for texts in lessons["classification"]["texts"].values() for text in texts}
    unseen = {text for texts in lessons["classification"]["unseen"].values() for text in texts}
    assert not learnt & unseen


def test_every_tool_question_calls_a_tool_that_exists(lessons: dict[str, Any]) -> None:
    tools = {tool["function"]["name"] for tool in lessons["tools"]}
    assert {item["call"]["name"] for item in lessons["tool_questions"]} <= tools
