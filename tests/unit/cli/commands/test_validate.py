import io
import json
from pathlib import Path
from typing import Any

import pytest

MANIFEST = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {name: first}
spec:
  replicas: 2
  model: {uri: ./model, servedName: first}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "model.yaml"
    path.write_text(MANIFEST)
    return path


def test_a_valid_manifest_is_named(autoglm: Any, manifest: Path) -> None:
    result = autoglm("validate", str(manifest))
    assert (result.code, result.out, result.err) == (0, "first is valid\n", "")


def test_a_manifest_from_standard_input_is_checked(
    autoglm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(MANIFEST.replace("2", "many")))
    result = autoglm("validate", "-")
    assert result.code == 65
    assert result.err.startswith('stdin: spec.replicas = "many": ')


def test_all_problems_of_all_files_are_reported(autoglm: Any, manifest: Path) -> None:
    manifest.with_name("other.yaml").write_text(
        MANIFEST.replace("replicas: 2", "replicas: -1").replace("servedName", "servedname")
    )
    manifest.with_name("third.yaml").write_text("- a list\n")
    result = autoglm("validate", str(manifest.parent), "--output", "json")
    page = json.loads(result.out)
    assert result.code == 65
    assert page["valid"] is False and page["resources"] == ["first"]
    found = {(Path(each["source"]).name, each["path"]) for each in page["problems"]}
    assert {("other.yaml", "spec.replicas"), ("other.yaml", "spec.model.servedname")} <= found
    assert "third.yaml" in {name for name, _ in found}


def test_names_that_two_files_claim_are_a_problem(autoglm: Any, manifest: Path) -> None:
    manifest.with_name("again.yaml").write_text(MANIFEST)
    result = autoglm("validate", str(manifest.parent))
    assert result.code == 65
    assert "first" in result.err and result.out == ""


def test_a_file_that_is_not_text_is_a_usage_error(autoglm: Any, manifest: Path) -> None:
    manifest.write_bytes(b"\xff\xfe\x00")
    assert autoglm("validate", str(manifest)).code == 2


PROFILE = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMProfile
metadata: {name: small}
spec: {resources: {limits: {nvidia.com/gpu: 1}}}
"""
USER = MANIFEST.replace("  replicas: 2", "  profile: {name: small}")


def test_profiles_are_checked_and_looked_for_in_all_files(autoglm: Any, manifest: Path) -> None:
    manifest.write_text(USER)
    alone = autoglm("validate", str(manifest))
    assert alone.out.splitlines() == [
        "first is valid",
        "first: spec.profile.name = small is not in these manifests, so it is not checked; "
        "profiles are a cluster's: kubectl get autoglmprofiles",
    ]
    manifest.with_name("profile.yaml").write_text(PROFILE)
    both = autoglm("validate", str(manifest.parent))
    assert both.out.splitlines() == ["first is valid", "AutoGLMProfile small is valid"]
    manifest.with_name("profile.yaml").write_text(PROFILE.replace("limits", "limit"))
    assert autoglm("validate", str(manifest.parent)).code == 65
