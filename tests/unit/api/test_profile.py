"""A profile fills in what a resource leaves open, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.api import API_VERSION, KIND, AutoGLMDeployment, InvalidSpec, parse
from autoglm.api.profile import parse_profile, times, with_profile

L4: dict[str, Any] = {
    "resources": {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"nvidia.com/gpu": "1"},
    },
    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "engine": {"args": {"enforce_eager": True, "block-size": 16}, "maxNumSeqs": 64},
}


def profile(**spec: Any) -> Any:
    head = {"apiVersion": API_VERSION, "kind": "AutoGLMProfile", "metadata": {"name": "p"}}
    return {**head, "spec": spec}


def merged(own: dict[str, Any], given: dict[str, Any], count: int = 1) -> AutoGLMDeployment:
    spec = {"model": {"uri": "a/b"}, "profile": {"name": "p", "count": count}, **own}
    head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "m"}}
    return with_profile(parse({**head, "spec": spec}), parse_profile(profile(**given)).spec)


def test_a_resource_that_sets_nothing_gets_all_of_the_profile() -> None:
    spec = merged({}, L4).spec

    assert spec.resources.requests == {"cpu": "4", "memory": "16Gi"}
    assert spec.resources.limits == {"nvidia.com/gpu": "1"}
    assert spec.template == {
        "spec": {
            "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        }
    }
    assert spec.engine.args == {"enforce_eager": True, "block-size": 16}
    assert (spec.engine.max_num_seqs, spec.engine.parallelism.devices) == (64, 1)
    assert spec.profile is None


def test_fields_of_the_resource_win() -> None:
    own = {
        "resources": {"limits": {"memory": "8Gi"}},
        "engine": {"args": {"block_size": 32}, "maxNumSeqs": 8, "image": "mine:1"},
        "template": {
            "spec": {
                "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L40S", "disk": "ssd"},
                "tolerations": [{"key": "spot"}],
            }
        },
    }
    spec = merged(own, L4 | {"engine": L4["engine"] | {"image": "other:1"}}).spec

    # A request of the profile over the resource's own limit would be rejected.
    assert spec.resources.requests == {"cpu": "4"}
    assert spec.resources.limits == {"memory": "8Gi", "nvidia.com/gpu": "1"}
    assert spec.engine.args == {"enforce_eager": True, "block_size": 32}
    assert (spec.engine.max_num_seqs, spec.engine.image) == (8, "mine:1")
    pod = spec.template["spec"]
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L40S", "disk": "ssd"}
    assert [t["key"] for t in pod["tolerations"]] == ["nvidia.com/gpu", "spot"]


def test_count_multiplies_resources_and_splits_the_model_over_the_gpus() -> None:
    spec = merged({}, L4, count=4).spec

    assert spec.resources.requests == {"cpu": "16", "memory": "64Gi"}
    assert spec.resources.limits == {"nvidia.com/gpu": "4"}
    assert spec.engine.parallelism.tensor == 4


@pytest.mark.parametrize(
    ("parallelism", "tensor"),
    [
        ({"pipeline": 2}, 2),
        ({"pipeline": 2, "data": 2}, 1),
        ({"tensor": 2}, 2),
        # Four GPUs cannot be divided by three: the operator reports that.
        ({"pipeline": 3}, None),
    ],
)
def test_tensor_parallelism_is_what_the_other_kinds_leave(
    parallelism: dict[str, int], tensor: int | None
) -> None:
    spec = merged({"engine": {"parallelism": parallelism}}, L4, count=4).spec

    assert spec.engine.parallelism.tensor == tensor


def test_the_echo_engine_takes_no_settings_of_vllm() -> None:
    own = {"model": {}, "engine": {"type": "echo"}}
    spec = merged(own, L4 | {"engine": L4["engine"] | {"image": "vllm:1"}}, count=2).spec

    assert (spec.engine.args, spec.engine.image, spec.engine.parallelism.devices) == ({}, None, 1)
    assert spec.resources.limits == {"nvidia.com/gpu": "2"}


def test_a_profile_without_gpus_splits_no_model() -> None:
    cpu = {"resources": {"requests": {"cpu": "500m", "memory": "1.5Gi"}}}
    spec = merged({}, cpu, count=2).spec

    assert spec.resources.requests == {"cpu": "1000m", "memory": "3.0Gi"}
    assert (spec.engine.parallelism.tensor, spec.template) == (None, {})


def test_a_malformed_template_is_left_for_the_operator_to_report() -> None:
    assert merged({"template": {"spec": "x"}}, L4).spec.template == {"spec": "x"}


@pytest.mark.parametrize(
    ("quantity", "count", "expected"),
    [("1", 3, "3"), ("16Gi", 2, "32Gi"), ("500m", 3, "1500m"), ("1e3", 2, "2e3"), ("0", 8, "0")],
)
def test_a_multiple_of_a_quantity_keeps_its_unit(quantity: str, count: int, expected: str) -> None:
    assert times(quantity, count) == expected


@given(st.dictionaries(st.sampled_from(["cpu", "memory", "nvidia.com/gpu"]), st.just("7")))
def test_a_resource_name_that_is_set_is_never_taken_from_the_profile(own: dict[str, str]) -> None:
    spec = merged({"resources": {"requests": own}}, L4, count=3).spec

    assert {name: spec.resources.requests.get(name) for name in own} == own
    assert not own.keys() & spec.resources.limits.keys()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"engine": {"args": {"max-num-seqs": 1}}}, "set spec.engine.maxNumSeqs instead"),
        (
            {"engine": {"args": {"tensor_parallel_size": 2}}},
            "set spec.engine.parallelism.tensor of the AutoGLMDeployment instead",
        ),
        ({"resources": {"limits": {"memory": "lots"}}}, "is not a Kubernetes quantity"),
        ({"nodeselector": {}}, "did you mean nodeSelector?"),
        ({"tolerations": [{"effect": "Never"}]}, "spec.tolerations[0].effect"),
    ],
)
def test_an_invalid_profile_is_rejected_with_the_way_out(
    given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidSpec) as raised:
        parse_profile(profile(**given))
    assert problem in str(raised.value)
