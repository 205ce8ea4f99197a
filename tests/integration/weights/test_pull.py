"""`autoglm pull` fetches what vLLM loads with the hub's client, and says before why it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.fake_hub import COMMIT, TOKEN, Hub, Model, fake_hub

CONFIG = b'{"model_type": "llama"}'
WEIGHTS = bytes(range(256)) * 400
MODEL = Model(
    {"config.json": CONFIG, "model.safetensors": WEIGHTS, "pytorch_model.bin": b"0" * 9_000}
)


def got(hub: Hub, file: str) -> list[str]:
    """Return the ranges of the downloads of a file."""
    return [
        headers.get("range", headers.get("Range", ""))
        for method, path, headers in hub.requests
        if method == "GET" and path.endswith(f"/{file}")
    ]


def test_the_files_that_are_loaded_are_pulled_into_the_cache_once(
    autoglm: Any, tmp_path: Path
) -> None:
    with fake_hub(org__model=MODEL) as hub:
        dry = autoglm("pull", "org/model", "--dry-run", "--output", "json", hub=hub.url)
        page = json.loads(dry.stdout)
        assert [each["name"] for each in page["files"]] == ["config.json", "model.safetensors"]
        assert page["missingBytes"] == page["bytes"] == len(CONFIG) + len(WEIGHTS)
        assert not list(tmp_path.glob("hf/**/*.safetensors"))

        first = autoglm("pull", "hf://org/model", hub=hub.url)
        second = autoglm("pull", "org/model", "--output", "json", hub=hub.url)

        assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
        assert len(got(hub, "model.safetensors")) == 1
        assert got(hub, "pytorch_model.bin") == []
    path = tmp_path / "hf/hub/models--org--model/snapshots" / COMMIT
    assert first.stdout.strip() == json.loads(second.stdout)["path"] == str(path)
    assert (path / "model.safetensors").read_bytes() == WEIGHTS
    assert "1 checksums (SHA-256) agree" in first.stderr
    assert "download 102.4 kB of 102.4 kB at" in first.stderr
    # By this an engine finds it without the hub.
    assert (path.parent.parent / "refs/main").read_text() == COMMIT


def test_a_broken_download_resumes_where_it_broke(autoglm: Any) -> None:
    # The client keeps what it got in chunks of 10 MiB.
    large = bytes(11 * 2**20)
    model = Model({"config.json": CONFIG, "model.safetensors": large}, break_after=len(large) - 9)
    with fake_hub(org__model=model) as hub:
        result = autoglm("pull", "org/model", hub=hub.url)

        assert result.returncode == 0, result.stderr
        assert got(hub, "model.safetensors") == ["", f"bytes={10 * 2**20}-"]


def test_a_file_with_another_checksum_is_removed(autoglm: Any, tmp_path: Path) -> None:
    files = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
    model = Model(files, corrupted=frozenset({"model.safetensors"}))
    with fake_hub(org__model=model) as hub:
        result = autoglm("pull", "org/model", "--to", "copy", hub=hub.url)

    assert result.returncode == 67
    assert "model.safetensors of org/model is corrupt" in result.stderr
    assert sorted(each.name for each in (tmp_path / "copy").glob("*")) == [".cache", "config.json"]


def test_a_gated_model_is_one_sentence_until_a_token_opens_it(autoglm: Any) -> None:
    files = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
    with fake_hub(org__gated=Model(files, is_gated=True)) as hub:
        rejected = autoglm("pull", "org/gated", hub=hub.url)
        accepted = autoglm("pull", "org/gated", hub=hub.url, HF_TOKEN=TOKEN)

    assert (rejected.returncode, rejected.stdout) == (76, "")
    expected = "org/gated is gated: accept its terms at http://127.0.0.1"
    assert expected in rejected.stderr and len(rejected.stderr.splitlines()) == 1
    assert accepted.returncode == 0, accepted.stderr


def test_pickles_and_code_of_a_model_are_named(autoglm: Any) -> None:
    config = b'{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}'
    model = Model({"config.json": config, "own.py": b"", "pytorch_model.bin": b"0"})
    with fake_hub(org__model=model) as hub:
        result = autoglm("pull", "org/model", hub=hub.url)

    assert result.returncode == 0
    assert "its weights are pickles (pytorch_model.bin)" in result.stderr
    assert "only with spec.engine.args.trust_remote_code = true" in result.stderr


def test_a_hub_that_nothing_listens_at_has_the_exit_code_of_pods(autoglm: Any) -> None:
    result = autoglm("pull", "org/model", hub="http://127.0.0.1:9")

    assert result.returncode == 81
    assert result.stderr.startswith("Error: http://127.0.0.1:9 cannot be reached for org/model")
