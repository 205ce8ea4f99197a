"""A snapshot is fetched once, is complete or not there, and follows a branch that moves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.fake_hub import Hub, Model
from tests.support.fake_modelscope import fake_modelscope

from autoglm.common.process import ExitCode
from autoglm.inference.modelscope.api import ModelScopeError
from autoglm.inference.modelscope.snapshot import Snapshot, snapshot, text_of

URI = "ms://org/model"
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with fake_modelscope(org__model=Model(FILES)) as found:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", found.url)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
        yield found


def fetched() -> Snapshot:
    found = snapshot(URI)
    found.fetch(lambda size: None, check=True)
    return found


def downloads(hub: Hub) -> list[str]:
    return [h.get("Range", "") for _, path, h in hub.requests if path.startswith("/storage/")]


def test_of_several_replicas_one_fetches(hub: Hub) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = [each.result() for each in [pool.submit(fetched) for _ in range(4)]]

    assert (found[0].directory / "model.safetensors").read_bytes() == WEIGHTS
    assert len(downloads(hub)) == 1
    assert snapshot(URI).missing == 0


def test_a_download_that_was_ended_resumes_in_the_next_run(hub: Hub) -> None:
    seen: list[int] = []
    found = snapshot(URI)
    found.directory.mkdir(parents=True)
    (found.directory / "model.safetensors.incomplete").write_bytes(WEIGHTS[:1000])
    assert found.present() == 1000

    found.fetch(seen.append, check=True)

    assert downloads(hub) == ["bytes=1000-"]
    assert sum(seen) == found.missing


def test_a_branch_that_moved_is_fetched_again_though_sizes_are_the_same(hub: Hub) -> None:
    fetched()
    hub.models["org/model"] = Model(FILES | {"model.safetensors": WEIGHTS[::-1]})

    found = fetched()

    assert (found.directory / "model.safetensors").read_bytes() == WEIGHTS[::-1]
    assert len(downloads(hub)) == 2


def test_a_complete_snapshot_needs_no_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = fetched().directory
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")

    assert (snapshot(URI).directory, snapshot(URI).missing) == (directory, 0)
    assert text_of(URI, "config.json") == FILES["config.json"].decode()

    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelScopeError, match="cannot be reached"):
        snapshot(URI)


def test_a_corrupt_file_is_not_kept(hub: Hub) -> None:
    hub.models["org/model"] = Model(FILES, corrupted=frozenset({"model.safetensors"}))
    with pytest.raises(ModelScopeError, match="is corrupt") as raised:
        fetched()

    assert raised.value.exit_code is ExitCode.NOT_A_MODEL
    assert not (snapshot(URI).directory / "model.safetensors").exists()


def test_a_file_of_another_size_than_listed_ends_the_download(hub: Hub) -> None:
    found = snapshot(URI)
    hub.models["org/model"] = Model(FILES | {"model.safetensors": WEIGHTS[:-9]})
    with pytest.raises(ModelScopeError):
        found.fetch(lambda size: None)
