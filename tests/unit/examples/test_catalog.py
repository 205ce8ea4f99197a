"""Every manifest of the catalog is valid, would start, and is described as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.catalog import FOLDER, README, rows

from autoglm import cli
from autoglm.api.documents import load_documents
from autoglm.local.gpus import NO_GPUS

FILES = sorted(FOLDER.glob("*.yaml"))
ROWS = {
    cells[0].partition("]")[0].lstrip("["): cells
    for line in README.read_text().splitlines()
    if line.startswith("| [")
    for cells in [[cell.strip() for cell in line.split("|")[1:-1]]]
}
by_name = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@pytest.fixture(autouse=True)
def _same_machine_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one GPU has too few for some."""
    monkeypatch.setattr("autoglm.cli.commands.up.find_gpus", lambda: NO_GPUS)


@by_name
@pytest.mark.parametrize(
    "command",
    [("validate",), ("up", "--dry-run", "-f"), ("deploy", "--dry-run", "-c")],
    ids=lambda command: command[0],
)
def test_a_manifest_is_valid_and_would_start(
    file: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*command, str(file)]) == 0, capsys.readouterr().err


@by_name
def test_a_manifest_has_reasons_and_requests_its_gpus(file: Path) -> None:
    text = file.read_text()
    [resource] = load_documents(text, str(file))
    split = resource.spec.engine.parallelism

    assert text.startswith("# ")
    assert text.count("#") >= 2
    assert resource.spec.resources.limits["nvidia.com/gpu"] == str(split.tensor or 1)
    assert resource.spec.resources.requests.keys() >= {"cpu", "memory"}


@by_name
def test_the_readme_has_its_model_and_whether_it_is_gated(file: Path) -> None:
    [resource] = load_documents(file.read_text(), str(file))
    _, model, _, licence, gated, *_ = ROWS[file.name]

    assert model == resource.spec.model.uri
    assert licence
    assert (gated == "yes") == any(e.name == "HF_TOKEN" for e in resource.spec.engine.env)


def test_the_memory_in_the_readme_is_what_size_computes() -> None:
    text = README.read_text()
    assert rows(text) == text, "run: python -m scripts.catalog --write"


def test_the_readme_lists_every_file_and_no_other() -> None:
    assert sorted(ROWS) == [file.name for file in FILES]
    assert len(FILES) >= 15
