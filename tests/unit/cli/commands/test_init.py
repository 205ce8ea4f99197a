"""`autoglm init` writes a manifest that is valid, with or without its comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from tests.unit.cli.conftest import Autoglm

from autoglm.api.documents import parse_manifest
from autoglm.cli.commands.init import manifest


def test_the_manifest_is_valid_and_the_next_command_is_named(
    autoglm: Autoglm, tmp_path: Path
) -> None:
    file = tmp_path / "chat.yaml"
    result = autoglm("init", "--model", "Qwen/Qwen3-0.6B", "--output", str(file))

    assert (result.code, result.err) == (0, "")
    assert f"autoglm up -f {file}" in result.out
    resource = parse_manifest(yaml.safe_load(file.read_text()))
    assert (resource.name, resource.spec.model.served_name) == ("qwen3-0-6b", "qwen3-0.6b")


def test_every_field_in_the_comments_is_valid_once_its_comment_is_removed() -> None:
    text = manifest("Qwen/Qwen3-8B", "qwen3-8b", "chat.yaml")
    lines = [re.sub(r"^( *)# (\w+:(?: [\[{\w].*)?)$", r"\1\2", line) for line in text.splitlines()]
    resource = parse_manifest(yaml.safe_load("\n".join(lines)))

    spec = resource.spec
    assert spec.model.max_model_len == 16384
    assert spec.model.aliases == ("default",)
    assert spec.engine.parallelism.tensor == 2
    assert spec.resources is not None and "nvidia.com/gpu" in spec.resources.limits


def test_a_file_is_not_overwritten_without_force(autoglm: Autoglm, tmp_path: Path) -> None:
    file = tmp_path / "echo.yaml"
    file.write_text("mine")

    result = autoglm("init", "--output", str(file))
    assert result.code == 1
    assert "exists; choose another --output, or overwrite it with --force" in result.err
    assert file.read_text() == "mine"

    assert autoglm("init", "--output", str(file), "--force").code == 0
    assert parse_manifest(yaml.safe_load(file.read_text())).spec.engine.type == "echo"


def test_the_manifest_goes_to_stdout_alone(autoglm: Autoglm) -> None:
    result = autoglm("init", "--output", "-")
    assert parse_manifest(yaml.safe_load(result.out)).name == "echo"


@pytest.mark.parametrize("model", ["./nowhere", "s3://bucket/model"])
def test_a_model_that_cannot_be_served_is_wrong_usage(autoglm: Autoglm, model: str) -> None:
    assert autoglm("init", "--model", model, "--output", "-").code == 2
