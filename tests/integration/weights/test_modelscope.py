"""`pull`, `load`, `size` and a start of a pod take ms:// as they take models of the other hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_hub import Hub, Model
from tests.support.fake_modelscope import TOKEN, fake_modelscope
from tests.support.meta_models import MODELS

from autoglm.api.uri import directory_of

CONFIG = (MODELS / "qwen3-8b.json").read_bytes()
WEIGHTS = bytes(range(256)) * 400
FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"0" * 9_000,
    "assets/logo.png": b"1",
}
MODEL = Model(FILES)


def got(hub: Hub, file: str) -> list[str]:
    """Return the ranges of the downloads of a large file."""
    return [h.get("Range", "") for _, path, h in hub.requests if path.endswith(f"/{file}")]


def test_the_files_that_are_loaded_are_pulled_into_the_cache_once(
    autoglm: Any, tmp_path: Path
) -> None:
    with fake_modelscope(org__model=MODEL) as hub:
        dry = autoglm("pull", "ms://org/model", "--dry-run", "--output", "json", hub=hub.url)
        page = json.loads(dry.stdout)
        assert [each["name"] for each in page["files"]] == ["config.json", "model.safetensors"]
        assert page["missingBytes"] == page["bytes"] == len(CONFIG) + len(WEIGHTS)
        assert not (tmp_path / "ms").exists()

        first = autoglm("pull", "ms://org/model", hub=hub.url)
        second = autoglm("pull", "ms://org/model", "--output", "json", hub=hub.url)
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert len(got(hub, "model.safetensors")) == 1

    path = tmp_path / "ms/models/org--model/snapshots/master"
    assert first.stdout.strip() == json.loads(second.stdout)["path"] == str(path)
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert not (path / "pytorch_model.bin").exists()
    assert "2 checksums (SHA-256) agree" in first.stderr
    assert "Serve it: autoglm serve ms://org/model" in first.stderr


@pytest.mark.parametrize("arguments", [["ms://org/model@v1"], ["ms://org/model", "--revision=v1"]])
def test_a_revision_is_given_in_the_uri_or_beside_it(
    autoglm: Any, tmp_path: Path, arguments: list[str]
) -> None:
    with fake_modelscope(org__model=MODEL) as hub:
        result = autoglm("pull", *arguments, hub=hub.url)

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "ms/models/org--model/snapshots/v1/config.json").exists()
    assert "Serve it: autoglm serve ms://org/model@v1" in result.stderr


def test_a_broken_download_resumes_where_it_broke(autoglm: Any, tmp_path: Path) -> None:
    with fake_modelscope(org__model=Model(FILES, break_after=40_000)) as hub:
        result = autoglm("pull", "ms://org/model", "--to", "copy", hub=hub.url)
        assert result.returncode == 0, result.stderr
        assert got(hub, "model.safetensors") == ["", "bytes=40000-"]

    assert (tmp_path / "copy/model.safetensors").read_bytes() == WEIGHTS


def test_a_file_with_another_checksum_is_removed(autoglm: Any, tmp_path: Path) -> None:
    model = Model(FILES, corrupted=frozenset({"model.safetensors"}))
    with fake_modelscope(org__model=model) as hub:
        result = autoglm("pull", "ms://org/model", "--to", "copy", hub=hub.url)

    assert result.returncode == 67
    assert "model.safetensors of ms://org/model is corrupt" in result.stderr
    assert not (tmp_path / "copy/model.safetensors").exists()


def test_a_token_opens_a_gated_model_and_stays_with_the_hub(autoglm: Any) -> None:
    with fake_modelscope(org__gated=Model(FILES, is_gated=True)) as hub:
        rejected = autoglm("pull", "ms://org/gated", hub=hub.url)
        accepted = autoglm("pull", "ms://org/gated", hub=hub.url, MODELSCOPE_API_TOKEN=TOKEN)
        (storage,) = [h for _, path, h in hub.requests if path.startswith("/storage/")]

    assert (rejected.returncode, rejected.stdout) == (76, "")
    assert "ms://org/gated is gated: accept its terms at http://127.0.0.1" in rejected.stderr
    assert len(rejected.stderr.splitlines()) == 1
    assert accepted.returncode == 0, accepted.stderr
    assert TOKEN not in " ".join(storage.values())


def test_pickles_are_named(autoglm: Any) -> None:
    model = Model({"config.json": CONFIG, "pytorch_model.bin": b"0"})
    with fake_modelscope(org__model=model) as hub:
        result = autoglm("pull", "ms://org/model", hub=hub.url)

    assert "its weights are pickles (pytorch_model.bin)" in result.stderr


def test_an_unreachable_hub_and_an_unknown_model_have_the_exit_codes_of_pods(autoglm: Any) -> None:
    unreachable = autoglm("pull", "ms://org/model", hub="http://127.0.0.1:9")
    assert unreachable.returncode == 81
    assert "http://127.0.0.1:9 cannot be reached for ms://org/model" in unreachable.stderr
    with fake_modelscope() as hub:
        unknown = autoglm("pull", "ms://org/model", hub=hub.url)
    assert unknown.returncode == 66
    assert "ms://org/model is no model of http://127.0.0.1" in unknown.stderr


def test_a_model_is_sized_by_its_configuration(autoglm: Any) -> None:
    with fake_modelscope(org__model=MODEL) as hub:
        result = autoglm("size", "ms://org/model", "--output", "json", hub=hub.url)

    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["parameters"] == pytest.approx(8.19e9, rel=0.001)


def test_a_loader_fills_the_directory_that_pods_read(autoglm: Any, tmp_path: Path) -> None:
    uri = "ms://org/model@v1"
    command = ("load", "--directory", str(tmp_path / "models"), "--uri", uri)
    message = ("--termination-message-file", str(tmp_path / "message"))
    with fake_modelscope(org__model=MODEL) as hub:
        first = autoglm(*command, *message, hub=hub.url)
        requests = len(hub.requests)
        second = autoglm(*command, *message, hub=hub.url)
        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert len(hub.requests) == requests
    with fake_modelscope() as hub:
        assert autoglm(*command[:-1], "ms://org/none", *message, hub=hub.url).returncode == 66

    path = tmp_path / "models" / directory_of(uri)
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert (tmp_path / "message").read_text().startswith("ModelNotFound: ms://org/none")


def test_a_pod_that_gets_no_model_says_why_before_its_engine_starts(autoglm: Any) -> None:
    addresses = [f"--{name}-address=127.0.0.1:0" for name in ("grpc", "http", "metrics")]
    with fake_modelscope(org__gated=Model(FILES, is_gated=True)) as hub:
        for uri, code, reason in (
            ("ms://org/none", 66, "ModelNotFound: ms://org/none is no model of"),
            ("ms://org/gated", 76, "GatedModel: ms://org/gated is gated"),
        ):
            result = autoglm("inference", f"--model-path={uri}", *addresses, hub=hub.url)
            assert result.returncode == code
            assert f"autoglm inference: {reason}" in result.stderr


def test_precheck_reads_what_a_model_needs(autoglm: Any, tmp_path: Path) -> None:
    manifest = autoglm("serve", "ms://org/model", "--print-manifest", hub="").stdout
    (tmp_path / "model.yaml").write_text(manifest)
    with fake_modelscope(org__model=MODEL) as hub:
        result = autoglm("precheck", "--local", "-f", "model.yaml", hub=hub.url)

    assert "ms://org/model, 15.3 GiB of weights" in " ".join(result.stdout.split())
