"""Before an engine starts, what its settings name by ms:// is fetched and becomes paths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_hub import Hub, Model
from tests.support.fake_modelscope import fake_modelscope

from autoglm.common.process import ExitCode
from autoglm.inference.modelscope.api import ModelScopeError
from autoglm.inference.modelscope.start import with_paths
from autoglm.inference.settings import InferenceSettings
from autoglm.inference.startup import Startup

FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"0" * 5_000_000}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    models = {name: Model(FILES) for name in ("org__model", "org__tokenizer", "org__lora")}
    with fake_modelscope(**models) as found:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", found.url)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "cache"))
        yield found


def settings(**given: Any) -> InferenceSettings:
    return InferenceSettings.load({"engine": "vllm", **given})


async def test_engines_get_directories_and_keep_the_models_name(hub: Hub, tmp_path: Path) -> None:
    given = settings(
        model_path="ms://org/model",
        revision="v1",
        tokenizer="ms://org/tokenizer",
        adapter=["a=ms://org/lora@v1", "b=/loras/b"],
    )
    options = (await with_paths(given, Startup(0.0))).engine_options()

    models = tmp_path / "cache/models"
    assert options.model == str(models / "org--model/snapshots/v1")
    assert (options.served_name, options.revision) == ("org/model", None)
    assert options.tokenizer == str(models / "org--tokenizer/snapshots/master")
    lora = f"a={models / 'org--lora/snapshots/v1'}"
    assert options.engine_args["lora_modules"] == [lora, "b=/loras/b"]
    assert (Path(options.model) / "model.safetensors").stat().st_size == 5_000_000


async def test_a_download_is_progress_of_the_start(hub: Hub) -> None:
    startup = Startup(0.0)
    await with_paths(settings(model_path="ms://org/model"), startup)

    total = sum(map(len, FILES.values()))
    assert startup.total_bytes == total
    assert startup.view(0.0)["downloaded_bytes"] == total


async def test_other_models_are_left_to_the_engine() -> None:
    given = settings(model_path="org/model", tokenizer="/models/tokenizer", adapter=["a=org/lora"])
    assert await with_paths(given, Startup(0.0)) == given


async def test_a_model_that_does_not_fit_is_not_begun(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shutil.disk_usage(tmp_path)._replace(free=99)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: used)

    with pytest.raises(ModelScopeError, match="set MODELSCOPE_CACHE to another disk") as raised:
        await with_paths(settings(model_path="ms://org/model"), Startup(0.0))

    assert raised.value.exit_code is ExitCode.DISK_FULL
    assert not (tmp_path / "cache").exists()


async def test_a_cache_that_cannot_be_written_is_named(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "file"))

    with pytest.raises(ModelScopeError, match="cannot be stored") as raised:
        await with_paths(settings(model_path="ms://org/model"), Startup(0.0))
    assert raised.value.exit_code is ExitCode.BAD_SETTINGS
