"""The short form stands for exactly one resource, or says what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.api import InvalidSpec
from autoglm.api.documents import parse_manifest
from autoglm.api.short_form import PIPELINE, ShortForm, is_short_form, name_of, to_manifest


def spec(**fields: Any) -> Any:
    manifest = to_manifest({"model": "org/model", **fields})
    parse_manifest(manifest)
    return manifest["spec"]


def refusal(document: Any) -> str:
    with pytest.raises(InvalidSpec) as raised:
        to_manifest(document)
    return str(raised.value)


def test_the_whole_form_becomes_a_resource() -> None:
    pipeline = [{"task": "text-classification", "labels": ["good", "bad"]}]
    manifest = to_manifest(
        {
            "model": "zai-org/GLM-4-9B-0414",
            "quantization": "int8",
            "replicas": 2,
            "autoscale": {"cpu_threshold": "70%", "min": 2, "max": 10},
            "pipeline": pipeline,
        }
    )

    annotation = manifest["metadata"]["annotations"].pop(PIPELINE)
    assert json.loads(annotation) == pipeline
    assert manifest == {
        "apiVersion": "autoglm.io/v1alpha1",
        "kind": "AutoGLMDeployment",
        "metadata": {"name": "glm-4-9b-0414", "annotations": {}},
        "spec": {
            "model": {
                "uri": "zai-org/GLM-4-9B-0414",
                "quantization": {"method": "int8_per_channel_weight_only"},
            },
            "resources": {"requests": {"cpu": "1"}},
            "scaling": {
                "minReplicas": 2,
                "maxReplicas": 10,
                "metrics": [{"type": "CPU", "target": 70}],
            },
        },
    }
    assert parse_manifest(manifest).desired_replicas == 2


def test_the_least_form_is_one_replica() -> None:
    assert spec() == {"model": {"uri": "org/model"}, "replicas": 1}


@pytest.mark.parametrize("threshold", [70, "70%", "70 %"])
def test_a_threshold_is_a_number_or_a_percentage(threshold: Any) -> None:
    scaling = spec(autoscale={"cpu_threshold": threshold, "max": 3})["scaling"]

    assert scaling["metrics"] == [{"type": "CPU", "target": 70}]


def test_replicas_are_the_fewest_where_no_minimum_is_given() -> None:
    assert spec(replicas=3, autoscale={"max": 5})["scaling"]["minReplicas"] == 3


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ("none", {}),
        ("fp16", {"engine": {"args": {"dtype": "float16"}}}),
        ("fp32", {"engine": {"args": {"dtype": "float32"}}}),
    ],
)
def test_a_precision_is_no_quantization(quantization: str, expected: dict[str, Any]) -> None:
    least = {"model": {"uri": "org/model"}, "replicas": 1}

    assert spec(quantization=quantization) == least | expected


@pytest.mark.parametrize("method", ["fp8", "awq"])
def test_methods_of_vllm_are_passed_on(method: str) -> None:
    assert spec(quantization=method)["model"]["quantization"] == {"method": method}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "model: is required"),
        ([1], "the document: must be a mapping"),
        ({"model": "a", "quant": "int8"}, 'quant = "int8": unknown field'),
        ({"model": "a", "replica": 1}, "did you mean replicas?"),
        ({"model": "a", "quantization": "int4"}, "is not available while loading"),
        ({"model": "a", "autoscale": {}}, "autoscale.max: is required"),
        ({"model": "a", "autoscale": {"max": 1, "min": 2}}, "is under the fewest replicas (2)"),
        (
            {"model": "a", "replicas": 9, "autoscale": {"min": 1, "max": 3}},
            "is not between autoscale.min (1) and autoscale.max (3)",
        ),
        ({"model": "a", "autoscale": {"max": 2, "cpu_threshold": "hot"}}, "cpu_threshold"),
        ({"model": "a", "pipeline": [{"labels": []}]}, "pipeline[0].task: is required"),
    ],
)
def test_a_wrong_form_is_refused_with_its_reason(document: Any, message: str) -> None:
    assert message in refusal(document)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("zai-org/GLM-4-9B-0414", "glm-4-9b-0414"),
        ("/models/Qwen_3.5/", "qwen-3-5"),
        ("org/7B-chat", "b-chat"),
        ("org/___", "model"),
    ],
)
def test_the_name_follows_from_the_model(model: str, name: str) -> None:
    assert name_of(model) == name


@given(st.text())
def test_every_model_gets_a_name_that_kubernetes_takes(model: str) -> None:
    parse_manifest(to_manifest({"model": "a"}, name_of(model)))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*ShortForm.model_fields, "max"]),
                inner,
            )
        ),
    )
)
def test_a_hostile_form_is_refused_and_never_crashes(document: Any) -> None:
    try:
        manifest = to_manifest(document)
    except InvalidSpec as error:
        assert error.problems
    else:
        parse_manifest(manifest)


def test_a_manifest_is_not_taken_for_the_short_form() -> None:
    assert is_short_form({"model": "a"}) and is_short_form({"modle": "a"})
    assert not is_short_form({"kind": "AutoGLMDeployment"}) and not is_short_form("text")


def test_gpus_are_reserved_and_the_model_is_split_over_them() -> None:
    found = spec(gpu=2)

    assert found["resources"] == {"limits": {"nvidia.com/gpu": "2"}}
    assert found["engine"] == {"parallelism": {"tensor": 2}}
    assert "engine" not in spec(gpu=1)


def test_with_a_profile_gpus_are_its_count() -> None:
    assert spec(profile="nvidia-l4", gpu=4)["profile"] == {"name": "nvidia-l4", "count": 4}
    assert spec(profile="nvidia-l4")["profile"] == {"name": "nvidia-l4", "count": 1}
    assert "resources" not in spec(profile="nvidia-l4", gpu=4)


def test_memory_is_request_and_limit() -> None:
    found = spec(memory="32Gi", autoscale={"max": 3})

    assert found["resources"] == {
        "requests": {"memory": "32Gi", "cpu": "1"},
        "limits": {"memory": "32Gi"},
    }


def test_the_context_length_is_the_models() -> None:
    assert spec(max_model_len=8192)["model"] == {"uri": "org/model", "maxModelLen": 8192}


@pytest.mark.parametrize(
    ("field", "value"), [("gpu", 0), ("gpu", "l4"), ("memory", "much"), ("profile", "L4!")]
)
def test_what_is_no_amount_is_rejected_by_its_name(field: str, value: object) -> None:
    assert f"{field} = " in refusal({"model": "a/b", field: value})
