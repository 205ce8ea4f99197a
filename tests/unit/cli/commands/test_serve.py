from pathlib import Path
from typing import Any

import pytest
import yaml

from autoglm.api.documents import load_documents


def printed(autoglm: Any, *args: str) -> dict[str, Any]:
    """The spec of the manifest that is printed, which is valid."""
    result = autoglm("serve", *args, "--print-manifest")
    assert (result.code, result.err) == (0, "")
    assert len(load_documents(result.out, "printed")) == 1
    manifest: dict[str, Any] = yaml.safe_load(result.out)
    return manifest


def test_a_hub_name_is_served_under_its_last_part(autoglm: Any) -> None:
    manifest = printed(autoglm, "Qwen/Qwen3-8B")
    assert manifest["metadata"] == {"name": "qwen3-8b"}
    assert manifest["spec"] == {
        "model": {"uri": "Qwen/Qwen3-8B", "servedName": "qwen3-8b"},
        "replicas": 1,
    }
    assert printed(autoglm, "hf://Qwen/Qwen3-8B") == manifest


@pytest.mark.parametrize(
    ("arguments", "resource", "served"),
    [
        (["Qwen/Qwen3-0.6B"], "qwen3-0-6b", "qwen3-0.6b"),
        (["meta-llama/Llama-3.1-8B-Instruct"], "llama-3-1-8b-instruct", "llama-3.1-8b-instruct"),
        (["a/b", "--name", "gpt-4.1"], "gpt-4-1", "gpt-4.1"),
        (["a/4bit"], "bit", "4bit"),
    ],
)
def test_a_model_keeps_the_dots_of_its_name_in_requests(
    autoglm: Any, arguments: list[str], resource: str, served: str
) -> None:
    manifest = printed(autoglm, *arguments)
    assert manifest["metadata"]["name"] == resource
    assert manifest["spec"]["model"]["servedName"] == served


def test_options_are_fields(autoglm: Any) -> None:
    options = ("--name", "chat", "--replicas", "2", "--gpus", "4", "--max-model-len", "1000")
    manifest = printed(autoglm, "a/b", *options, "--quantization", "fp8")
    assert manifest["metadata"] == {"name": "chat"}
    assert manifest["spec"] == {
        "model": {
            "uri": "a/b",
            "quantization": {"method": "fp8"},
            "servedName": "chat",
            "maxModelLen": 1000,
        },
        "replicas": 2,
        "engine": {"parallelism": {"tensor": 4}},
        "resources": {"limits": {"nvidia.com/gpu": "4"}},
    }


def test_a_directory_is_served_by_its_path_and_named_by_what_is_above(
    autoglm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-glm" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    manifest = printed(autoglm, "tiny-glm/model")
    assert manifest["metadata"]["name"] == "tiny-glm"
    assert manifest["spec"]["model"]["uri"] == str(tmp_path / "tiny-glm" / "model")


def test_a_model_of_modelscope_is_named_without_its_revision(autoglm: Any) -> None:
    manifest = printed(autoglm, "ms://Qwen/Qwen3-0.6B@v1")
    assert manifest["metadata"]["name"] == "qwen3-0-6b"
    model = {"uri": "ms://Qwen/Qwen3-0.6B@v1", "servedName": "qwen3-0.6b"}
    assert manifest["spec"]["model"] == model


@pytest.mark.parametrize(
    "model", ["s3://bucket/m", "oci://r/m", "gs://a/b", "pvc://c", "ms://m", "./nowhere"]
)
def test_what_cannot_be_loaded_is_a_usage_error_that_names_what_can(
    autoglm: Any, model: str
) -> None:
    result = autoglm("serve", model)
    message = " ".join(result.err.split())
    assert result.code == 2
    assert "give a hub name (ORG/NAME, hf://ORG/NAME, ms://ORG/NAME) or a path" in message


def test_a_wrong_quantization_names_its_field(autoglm: Any) -> None:
    result = autoglm("serve", "a/b", "--quantization", "int4")
    assert result.code == 65
    assert result.err.startswith('quantization = "int4"')


def test_dry_run_prints_the_commands(autoglm: Any, tmp_path: Path) -> None:
    options = ("--run-dir", str(tmp_path), "--grpc-address", "127.0.0.1:5")
    result = autoglm("serve", "a/b", *options, "--dry-run")
    assert result.code == 0
    assert "--grpc-address=127.0.0.1:5" in result.out
    assert "--model-path=a/b --model-name=b" in result.out
