"""URIs name where a model is, and what cannot be loaded is rejected with what can."""

from __future__ import annotations

import re

import pytest

from autoglm.api.uri import directory_of, location_of, problem_here, problem_of_uri


@pytest.mark.parametrize(
    ("uri", "claim"),
    [
        ("pvc://weights", ("weights", "")),
        ("pvc://weights/glm/v1", ("weights", "glm/v1")),
        ("s3://weights/glm", ("", "")),
    ],
)
def test_a_claim_and_its_path_are_read(uri: str, claim: tuple[str, str]) -> None:
    assert location_of(uri).claim == claim


@pytest.mark.parametrize("uri", ["s3://bucket/m", "oci://host/m:1", "pvc://claim/m"])
def test_what_only_pods_load_is_rejected_on_this_machine(uri: str) -> None:
    assert problem_of_uri(uri) == ""
    assert "is loaded by pods of a cluster only; give a hub name" in problem_here(uri)


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://B", "pvc://claim/../x", "pvc://UPPER/x", "oci://", "a/b/c"),
        *("ms://model", "ms://a/b/c", "ms://a/b@", "ms://a/b@../c"),
    ],
)
def test_a_malformed_location_is_rejected(uri: str) -> None:
    assert "give a hub name" in problem_of_uri(uri)


@pytest.mark.parametrize(
    "uri", ["/models/glm", "org/model", "hf://org/model", "ms://org/model", "ms://org/model@a/b"]
)
def test_what_both_load_is_accepted_by_both(uri: str) -> None:
    assert (problem_of_uri(uri), problem_here(uri)) == ("", "")


@pytest.mark.parametrize(
    "uri", ["org/model", "ms://a/b@c/d", "s3://bucket/a/b/", f"org/{'x' * 200}", "s3://bucket/ü ♥"]
)
def test_the_directory_of_a_download_is_one_safe_name(uri: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,80}", directory_of(uri))


def test_each_revision_has_a_directory_of_its_own() -> None:
    names = {directory_of("org/model", of) for of in (None, "main", "v2")}
    names |= {directory_of(uri) for uri in ("ms://org/model", "ms://org/model@v2")}
    assert len(names) == 5
    assert directory_of("hf://org/model") == directory_of("org/model")


@pytest.mark.parametrize(
    ("uri", "repository"),
    [
        ("ms://org/model", ("org/model", "")),
        ("ms://org/model@release/v1", ("org/model", "release/v1")),
        ("hf://org/model", ("org/model", "")),
    ],
)
def test_only_the_uri_of_modelscope_has_a_revision(uri: str, repository: tuple[str, str]) -> None:
    assert location_of(uri).repository == repository
