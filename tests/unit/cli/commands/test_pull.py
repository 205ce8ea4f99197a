"""`autoglm pull` says what it cannot fetch, copies from stores, and checks the disk first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Autoglm

from autoglm.cli.weights.listing import Listing, amount, needs_own_code
from autoglm.inference.weight_files import File

WEIGHTS = bytes(range(256)) * 400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ms://org/model@v1", "--revision", "v2"], "ms://org/model@v1 has a revision"),
        (["oci://registry/model:1"], "oras pull registry/model:1"),
        (["./here"], "./here is a path; serve it as it is"),
        (["s3://bucket/model"], "s3:// needs --to DIR"),
        (["s3://bucket/model", "--to", "x", "--revision", "main"], "--revision is of the hub"),
        (["ftp://host/model"], "it may be hf://, ms://, s3://"),
    ],
)
def test_what_cannot_be_pulled_is_one_sentence(
    autoglm: Autoglm, arguments: list[str], message: str
) -> None:
    result = autoglm("pull", *arguments)

    assert (result.code, result.out) == (2, "")
    assert message in " ".join(result.err.split())


def test_a_model_of_a_store_is_copied_into_a_directory_once(
    autoglm: Autoglm, tmp_path: Path
) -> None:
    source = stored(tmp_path)
    for _ in range(2):
        result = autoglm("pull", f"file://{source}", "--to", str(tmp_path / "copy"))
        assert (result.code, result.out) == (0, f"{tmp_path / 'copy'}\n"), result.err

    assert "of which 102.4 kB are here" in result.err
    assert (tmp_path / "copy/model.safetensors").read_bytes() == WEIGHTS
    assert not (tmp_path / "copy/pytorch_model.bin").exists()


def test_nothing_is_written_where_it_would_not_fit(
    autoglm: Autoglm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = shutil.disk_usage(tmp_path)._replace(free=99_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: used)
    source = stored(tmp_path)

    result = autoglm("pull", f"file://{source}", "--to", str(tmp_path / "copy"))

    assert result.code == 78
    assert f"needs 102.4 kB more, and {tmp_path} has 99.0 kB free: free some" in result.err
    assert not (tmp_path / "copy").exists()


def test_a_package_that_a_store_needs_is_named(
    autoglm: Autoglm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.fsspec", None)
    result = autoglm("pull", "gs://bucket/model", "--to", "copy")

    assert result.code == 1
    assert "gs:// needs the package obstore: pip install obstore" in result.err


def test_a_store_without_a_checkpoint_is_named(autoglm: Autoglm, tmp_path: Path) -> None:
    result = autoglm("pull", f"file://{tmp_path}", "--to", str(tmp_path / "copy"))

    assert result.code == 1
    assert "has no config.json" in result.err


def test_weights_without_safetensors_are_named() -> None:
    pickled = Listing("m", "hub", [File("pytorch_model.bin", 1), File("config.json", 1)])
    assert "its weights are pickles (pytorch_model.bin)" in next(pickled.warnings())
    plain = Listing("m", "hub", [File("model.safetensors", 1)])
    assert list(plain.warnings()) == []
    assert "has no weights" in next(Listing("m", "hub", [File("config.json", 1)]).warnings())


def test_code_of_a_model_is_named_with_the_field_that_allows_it() -> None:
    assert "spec.engine.args.trust_remote_code = true" in needs_own_code(
        "m", {"auto_map": {"a": 1}}
    )
    assert needs_own_code("m", {"model_type": "llama"}) == ""


def test_sizes_have_the_unit_that_suits_them() -> None:
    assert [amount(each) for each in (12, 1_500, 2_000_000, 16_400_000_000)] == [
        "12 B",
        "1.5 kB",
        "2.0 MB",
        "16.4 GB",
    ]


def stored(tmp_path: Path) -> Path:
    source = tmp_path / "store"
    source.mkdir()
    (source / "config.json").write_text('{"model_type": "llama"}')
    (source / "model.safetensors").write_bytes(WEIGHTS)
    (source / "pytorch_model.bin").write_bytes(b"0")
    return source
