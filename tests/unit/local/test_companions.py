"""Values of Secrets and ConfigMaps reach processes; other objects are skipped with a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm.api import InvalidSpec
from autoglm.local.manifest import Manifests, Text, model_workload, notices, read_all

MODEL = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {name: m}
spec:
  model: {uri: org/model}
  engine:
    env:
    - {name: PLAIN, value: a}
    - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hub, key: token}}}
    - {name: REGION, valueFrom: {configMapKeyRef: {name: settings, key: region}}}
"""
SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: hub}
data: {token: aGZfMTIz}
"""
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {region: eu}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: front}
"""


def manifests(*documents: str) -> Manifests:
    return read_all([Text("---".join(documents))])


def environment(found: Manifests) -> dict[str, str]:
    [placed] = found.placed
    return dict(model_workload(placed, ("autoglm",), None).process.env)


def problems(*documents: str) -> str:
    with pytest.raises(InvalidSpec) as raised:
        manifests(*documents)
    return str(raised.value)


def test_values_of_secrets_and_config_maps_reach_the_process_in_any_order() -> None:
    found = manifests(SECRET, MODEL, CONFIG)

    assert environment(found) == {"PLAIN": "a", "HF_TOKEN": "hf_123", "REGION": "eu"}
    assert found.notes == ()
    assert notices(found.placed[0]) == []


def test_they_may_be_in_another_manifest(tmp_path: Path) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text(SECRET.replace("data: {token: aGZfMTIz}", "stringData: {token: plain}"))

    assert environment(read_all([Text(MODEL), file]))["HF_TOKEN"] == "plain"


def test_a_secret_that_is_not_given_is_taken_from_the_environment() -> None:
    [placed] = manifests(MODEL).placed

    assert environment(manifests(MODEL)) == {"PLAIN": "a"}
    assert notices(placed, {"HF_TOKEN": "hf_1", "REGION": "eu"}) == []


def test_a_variable_without_any_source_is_a_sentence_that_names_its_field() -> None:
    [placed] = manifests(MODEL.replace("key: region", "key: region, optional: true")).placed

    assert notices(placed, {"REGION": "eu"}) == [
        'm: spec.engine.env[1].valueFrom.secretKeyRef.name = "hub": the manifests have no such '
        "Secret in the namespace default; add it to them, or set HF_TOKEN in this shell's "
        "environment"
    ]


def test_a_field_of_a_pod_has_a_value_on_kubernetes_only() -> None:
    reference = "secretKeyRef: {name: hub, key: token}"
    field = MODEL.replace(reference, "fieldRef: {fieldPath: status.podIP}")
    [placed] = manifests(field, CONFIG).placed

    assert notices(placed, {}) == [
        "m: spec.engine.env[1].valueFrom.fieldRef: takes effect on Kubernetes; set HF_TOKEN in "
        "this shell's environment"
    ]


def test_a_secret_of_another_namespace_is_not_read() -> None:
    elsewhere = SECRET.replace("{name: hub}", "{name: hub, namespace: other}")

    assert "HF_TOKEN" not in environment(manifests(MODEL, elsewhere))


def test_a_missing_key_names_those_that_there_are() -> None:
    assert problems(MODEL, SECRET.replace("token:", "tokens:")) == (
        'm: spec.engine.env[1].valueFrom.secretKeyRef.key = "token": Secret hub has no such key; '
        "it has: tokens"
    )


def test_a_missing_key_that_is_optional_is_left_out() -> None:
    optional = MODEL.replace("key: token", "key: other, optional: true")

    assert "HF_TOKEN" not in environment(manifests(optional, SECRET))


def test_data_that_is_not_base64_is_a_problem() -> None:
    assert "data.token is not base64 of a text" in problems(
        MODEL, SECRET.replace("aGZfMTIz", '"?"')
    )


def test_other_kinds_are_skipped_with_a_note() -> None:
    unused = CONFIG.replace("settings", "unused")

    assert manifests(SERVICE, MODEL, unused).notes == (
        "standard input: Service front is skipped: it takes effect on Kubernetes",
        "standard input: ConfigMap unused is skipped: it takes effect on Kubernetes",
    )


def test_items_of_a_list_are_documents() -> None:
    listed = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service}]}"

    assert manifests(f"{listed}\n", MODEL).notes == (
        "standard input: Service without a name is skipped: it takes effect on Kubernetes",
    )


def test_a_misspelt_kind_of_ours_is_not_skipped() -> None:
    assert 'kind = "AutoGLMDeploymnt"' in problems(
        MODEL.replace("AutoGLMDeployment", "AutoGLMDeploymnt")
    )
    assert problems(SERVICE).startswith("standard input: the document: contains no AutoGLMDeploy")


def test_a_short_form_is_a_manifest() -> None:
    [placed] = manifests("{model: org/Model-8B, gpu: 2, memory: 32Gi, max_model_len: 100}").placed
    spec = placed.resource.spec

    assert placed.resource.name == "model-8b"
    assert (spec.model.max_model_len, spec.engine.parallelism.tensor) == (100, 2)
    assert spec.resources.limits == {"nvidia.com/gpu": "2", "memory": "32Gi"}
