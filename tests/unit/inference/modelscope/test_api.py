"""Requests of ModelScope go where its own client sends them, and errors are one sentence."""

from __future__ import annotations

import pytest
from tests.support.fake_hub import Model
from tests.support.fake_modelscope import fake_modelscope

from autoglm.common.process import ExitCode
from autoglm.inference.modelscope.api import ModelScopeError, Repository, endpoint, repository

REPOSITORY = Repository("org/model")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "https://modelscope.cn"),
        ({"MODELSCOPE_ENDPOINT": "www.modelscope.ai/"}, "https://www.modelscope.ai"),
        ({"MODELSCOPE_DOMAIN": "hub.example"}, "https://hub.example"),
        ({"MODELSCOPE_DOMAIN": "a.example", "MODELSCOPE_ENDPOINT": "http://b:1"}, "http://b:1"),
    ],
)
def test_the_variables_of_the_hubs_own_client_name_its_address(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert endpoint() == expected


def test_the_revision_of_a_uri_precedes_that_beside_it() -> None:
    found = [repository(uri, "beside") for uri in ("ms://org/model@own", "ms://org/model")]
    assert [each.revision for each in found] == ["own", "beside"]
    assert repository("ms://org/model") == Repository("org/model", "master")


@pytest.mark.parametrize("uri", ["ms://model", "ms://../x", "ms://org/a b", "ms://org/m@../x"])
def test_a_malformed_name_is_not_requested(uri: str) -> None:
    with pytest.raises(ModelScopeError) as raised:
        repository(uri)
    assert raised.value.exit_code is ExitCode.MODEL_NOT_FOUND


@pytest.mark.parametrize("revision", ["../../other", "/etc", "a/../b"])
def test_a_revision_that_leaves_the_cache_is_rejected(revision: str) -> None:
    with pytest.raises(ModelScopeError, match="give a branch, a tag or a commit"):
        repository("ms://org/model", revision)


def test_files_outside_of_the_directory_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"config.json": b"{}", "../config.json": b"", "/etc/x.json": b"", "a/b.json": b""}
    with fake_modelscope(org__model=Model(files)) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        assert sorted(REPOSITORY.files()) == ["a/b.json", "config.json"]


def test_a_list_that_the_hub_cuts_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{number}.json": b"" for number in range(3000)}
    with fake_modelscope(org__model=Model(files)) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        with pytest.raises(ModelScopeError, match="more files than"):
            REPOSITORY.files()


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_modelscope(org__model=Model({"a.json": b""})) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        with pytest.raises(ModelScopeError, match="has no config.json") as raised:
            REPOSITORY.text("config.json")
    assert raised.value.exit_code is ExitCode.NOT_A_MODEL
