"""`autoglm size NAME` reads the configuration of a model on a hub, and says why it cannot."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_hub import TOKEN, Model, fake_hub
from tests.support.meta_models import MODELS

CONFIG = (MODELS / "qwen3-8b.json").read_bytes()
INDEX = json.dumps({"metadata": {"total_size": 16_381_470_720}, "weight_map": {"a": "b"}}).encode()


def test_a_model_of_the_hub_is_sized_by_its_configuration(autoglm: Any) -> None:
    with fake_hub(org__model=Model({"config.json": CONFIG})) as hub:
        result = autoglm("size", "org/model", "--output", "json", hub=hub.url)

    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["parameters"] == pytest.approx(8.19e9, rel=0.001)
    assert document["basis"]["weights"] == "computed from config.json"


def test_the_index_of_the_weights_is_counted(autoglm: Any) -> None:
    files = {"config.json": CONFIG, "model.safetensors.index.json": INDEX}
    with fake_hub(org__model=Model(files)) as hub:
        result = autoglm("size", "hf://org/model", "--output", "json", hub=hub.url)

    document = json.loads(result.stdout)
    assert document["bytes"]["weights"] == pytest.approx(16_381_470_720)
    assert document["basis"]["weights"] == "counted in model.safetensors.index.json"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("org/gated", 76, "is gated: accept its terms at"),
        ("org/none", 66, "is neither a path here nor a model of"),
        ("org/empty", 67, "has no config.json"),
    ],
)
def test_what_the_hub_rejects_is_one_sentence(
    autoglm: Any, name: str, code: int, message: str
) -> None:
    models = {"org__gated": Model({"config.json": CONFIG}, is_gated=True), "org__empty": Model({})}
    with fake_hub(**models) as hub:
        result = autoglm("size", name, hub=hub.url)

    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith("Error: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_token_opens_a_gated_model(autoglm: Any) -> None:
    with fake_hub(org__gated=Model({"config.json": CONFIG}, is_gated=True)) as hub:
        result = autoglm("size", "org/gated", hub=hub.url, HF_TOKEN=TOKEN)

    assert result.returncode == 0


def test_a_hub_that_nothing_listens_at_is_one_sentence(autoglm: Any) -> None:
    result = autoglm("size", "org/model", hub="http://127.0.0.1:9")

    assert result.returncode == 81
    assert "http://127.0.0.1:9 cannot be reached, and org/model is not in" in result.stderr


def test_a_silent_hub_is_given_up_within_seconds(autoglm: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        result = autoglm("size", "org/model", hub=f"http://127.0.0.1:{silent.getsockname()[1]}")

    assert result.returncode == 81
    assert "cannot be reached" in result.stderr
    assert time.monotonic() - start < 30


def test_an_offline_machine_is_not_called_unreachable(autoglm: Any) -> None:
    result = autoglm("size", "org/model", hub="http://127.0.0.1:9", HF_HUB_OFFLINE="1")

    assert "HF_HUB_OFFLINE forbids to fetch it" in result.stderr


def test_precheck_reads_a_model_that_is_named_with_the_hubs_scheme(
    autoglm: Any, tmp_path: Path
) -> None:
    (tmp_path / "model.yaml").write_text("model: hf://org/model\n")
    with fake_hub(org__model=Model({"config.json": CONFIG})) as hub:
        result = autoglm("precheck", "--local", "-f", "model.yaml", hub=hub.url)

    assert "15.3 GiB of weights" in " ".join(result.stdout.split())
