"""A document becomes a frozen resource, or a full list of what is wrong with it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from autoglm.api import AutoGLMDeployment, InvalidSpec, Spec, parse
from autoglm.api.parse import lenient
from autoglm.api.spec.operations import Resources
from autoglm.api.spec.traffic import Hedging, Routing, Timeouts
from autoglm.common.settings import ServiceSettings

MINIMAL: dict[str, Any] = {
    "apiVersion": "autoglm.io/v1alpha1",
    "kind": "AutoGLMDeployment",
    "metadata": {"name": "tiny-glm"},
    "spec": {"model": {"uri": "org/model"}},
}

ODD_KEYS: dict[Any, Any] = MINIMAL | {("a", 1): 2}


def document(**spec: Any) -> dict[str, Any]:
    result = copy.deepcopy(MINIMAL)
    result["spec"].update(spec)
    return result


def problems(document: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpec) as raised:
        parse(document)
    return [(problem.path, problem.message) for problem in raised.value.problems]


def paths(document: Any) -> list[str]:
    return [path for path, _ in problems(document)]


def test_a_minimal_document_gets_every_default() -> None:
    resource = parse(MINIMAL)

    assert resource.served_names == ("tiny-glm",)
    assert resource.desired_replicas == 1
    assert resource.spec.engine.type == "vllm"
    assert resource.spec.network.policy == "Strict"
    assert resource.spec.resources == Resources()


def test_a_resource_survives_the_way_through_its_own_document() -> None:
    resource = parse(document(model={"uri": "a/b", "aliases": ["x"]}, scaling={"maxReplicas": 3}))

    again = parse(resource.model_dump(mode="json", by_alias=True, exclude_none=True))

    assert again == resource


def test_every_served_name_counts() -> None:
    model = {
        "uri": "a/b",
        "servedName": "main",
        "aliases": ["default"],
        "adapters": [{"name": "lora", "uri": "./lora"}],
    }

    assert parse(document(model=model)).served_names == ("main", "default", "lora")


@pytest.mark.parametrize(
    ("spec", "replicas"),
    [
        ({"replicas": 3}, 3),
        ({"replicas": 0}, 0),
        ({"scaling": {"minReplicas": 2, "maxReplicas": 9}}, 2),
        # What an autoscaler has written counts within the bounds.
        ({"replicas": 5, "scaling": {"minReplicas": 2, "maxReplicas": 9}}, 5),
        ({"replicas": 99, "scaling": {"minReplicas": 2, "maxReplicas": 9}}, 9),
        ({"replicas": 3, "suspend": True}, 0),
    ],
)
def test_replicas_come_from_the_spec(spec: dict[str, Any], replicas: int) -> None:
    assert parse(document(**spec)).desired_replicas == replicas


def test_all_problems_are_listed_at_once() -> None:
    bad = document(
        replicas=-1,
        model={"maxModelLen": "2048", "servedname": "x", "aliases": ["a", "a"]},
        engine={"args": {"tensor-parallel-size": 2}, "env": [{"name": "A"}]},
        scaling={"minReplicas": 4, "maxReplicas": 2},
    )
    bad["metadata"]["name"] = "Tiny_glm"

    assert paths(bad) == [
        "metadata.name",
        "spec.model.maxModelLen",
        "spec.model.servedname",
        "spec.replicas",
        "spec.scaling.minReplicas",
        "spec.model.uri",
        "spec.engine.args.tensor-parallel-size",
        "spec.engine.env[0]",
        "spec.model.aliases[1]",
    ]


def test_a_problem_names_field_value_and_way_out() -> None:
    with pytest.raises(InvalidSpec) as raised:
        parse(document(scaling={"minReplicas": 4, "maxReplicas": 2}))

    assert str(raised.value) == (
        "spec.scaling.minReplicas = 4: is over spec.scaling.maxReplicas (2); "
        "lower it or raise the other"
    )


def test_a_typing_error_gets_the_nearest_field_as_a_hint() -> None:
    [(path, message)] = problems(document(scaling={"minReplica": 1, "maxReplicas": 2}))

    assert path == "spec.scaling.minReplica"
    assert message.startswith("unknown field; did you mean minReplicas? Valid fields: actuator, ")


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"replicas": 1.5}, "spec.replicas", "must be a whole number"),
        ({"replicas": True}, "spec.replicas", "must be a whole number"),
        ({"replicas": "2"}, "spec.replicas", "must be a whole number"),
        ({"scaling": {}}, "spec.scaling.maxReplicas", "is required"),
        ({"scaling": {"maxReplicas": 2, "metrics": []}}, "spec.scaling.metrics", "at least 1 item"),
        ({"suspend": "yes"}, "spec.suspend", "must be true or false"),
        ({"model": None}, "spec.model", "must be a mapping"),
        ({"model": {}}, "spec.model.uri", "is required; give a hub name"),
        ({"engine": {"type": "sglang"}}, "spec.engine.type", "must be 'vllm' or 'echo'"),
        (
            {"engine": {"gpuMemoryUtilization": 0}},
            "spec.engine.gpuMemoryUtilization",
            "must be greater than 0",
        ),
        (
            {"engine": {"gpuMemoryUtilization": float("nan")}},
            "spec.engine.gpuMemoryUtilization",
            "must be",
        ),
        (
            {"engine": {"env": [{"name": "A", "value": 1}]}},
            "spec.engine.env[0].value",
            "must be a string; put it in quotes",
        ),
        (
            {"engine": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
            "spec.engine.env[1].name",
            "is the same as spec.engine.env[0].name",
        ),
        (
            {"engine": {"type": "echo", "args": {"rate": 1}}, "model": {}},
            "spec.engine.args.rate",
            "the echo engine has no such argument; it has fail, kv_blocks, prefill_rate",
        ),
        (
            {"engine": {"type": "echo"}, "model": {"quantization": {"method": "fp8"}}},
            "spec.model.quantization",
            "is not used by the echo engine",
        ),
        (
            {"resources": {"limits": {"cpu": 0.5}}},
            "spec.resources.limits.cpu",
            "is not a Kubernetes quantity",
        ),
        (
            {"disruption": {"minAvailable": "150%"}},
            "spec.disruption.minAvailable",
            "is neither a number of pods nor a percentage",
        ),
        (
            {"drain": {"gracePeriodSeconds": -1}},
            "spec.drain.gracePeriodSeconds",
            "must be greater than or equal to 0",
        ),
    ],
)
def test_a_wrong_value_is_named(spec: dict[str, Any], path: str, message: str) -> None:
    [(found, text)] = problems(document(**spec))

    assert found == path
    assert message in text


def test_quantities_may_be_numbers_or_text() -> None:
    spec = document(resources={"limits": {"nvidia.com/gpu": 1, "memory": "16Gi", "cpu": "500m"}})

    assert parse(spec).spec.resources.limits == {
        "nvidia.com/gpu": "1",
        "memory": "16Gi",
        "cpu": "500m",
    }


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([1], ""),
        ({"kind": "Deployment", "apiVersion": "apps/v1"}, "kind"),
        ({**MINIMAL, "apiVersion": "autoglm.io/v1"}, "apiVersion"),
        (ODD_KEYS, ""),
    ],
)
def test_what_is_no_resource_of_ours_is_one_problem(document: Any, path: str) -> None:
    assert paths(document) == [path]


def test_a_hostile_document_is_a_problem_and_no_crash() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    circle: dict[str, Any] = {}
    circle["a"] = circle

    assert paths(document(template=deep)) == [""]
    assert paths(document(template=circle)) == [""]
    assert paths(document(model={"uri": "a" * 5000})) == ["spec.model.uri"]


def test_a_flood_of_problems_gives_a_short_message() -> None:
    with pytest.raises(InvalidSpec) as raised:
        parse(document(engine={"x" * 100_000: 1}, **{f"x{i}": 1 for i in range(1000)}))

    assert len(raised.value.problems) == 1001
    assert len(str(raised.value)) < 32_768
    assert str(raised.value).endswith("and 951 more problems")


def test_what_the_api_server_adds_is_accepted() -> None:
    live = document()
    live["metadata"] |= {"uid": "u", "generation": 3, "managedFields": [{}], "finalizers": []}
    live["status"] = {"readyReplicas": 1}

    assert parse(live).metadata.generation == 3


def test_a_resource_and_a_process_drain_equally_long_by_default() -> None:
    default = ServiceSettings.model_fields["shutdown_grace_seconds"].default

    assert parse(MINIMAL).spec.drain.grace_period_seconds == default


def test_every_field_is_documented() -> None:
    parts = AutoGLMDeployment.model_json_schema(by_alias=True)["$defs"]

    fields = [(part, *item) for part in parts for item in parts[part]["properties"].items()]

    assert len(fields) > 70
    # Where a field and its class say the same, pydantic writes it once, at the class.
    silent = [field for field in fields if "description" not in field[2] and "$ref" not in field[2]]
    assert silent == []


@pytest.mark.parametrize(
    ("document", "found", "paths"),
    [
        ({}, Routing(), []),
        ({"timeouts": {"chunkSeconds": 2}}, Routing(timeouts=Timeouts(chunk_seconds=2)), []),
        ({"timeouts": None, "hedging": {"maxExtraRatio": None}}, Routing(hedging=Hedging()), []),
        ({"newer": {"a": 1}, "hedging": {"newer": 1}}, Routing(hedging=Hedging()), []),
        # Names of Python are no names of a document.
        ({"timeouts": {"chunk_seconds": "x"}}, Routing(), []),
        (
            {"policy": "Newer", "timeouts": {"chunkSeconds": 2, "totalSeconds": "3"}},
            Routing(timeouts=Timeouts(chunk_seconds=2)),
            ["policy", "timeouts.totalSeconds"],
        ),
        ({"hedging": "x", "retries": 3}, Routing(), ["retries", "hedging"]),
        ("x", Routing(), [""]),
        ([], Routing(), [""]),
    ],
)
def test_an_invalid_field_of_a_lenient_reader_leaves_all_others(
    document: Any, found: Routing, paths: list[str]
) -> None:
    routing, problems = lenient(Routing, document)
    assert routing == found
    assert [problem.path for problem in problems] == paths


def test_a_lenient_reader_rejects_a_part_without_a_required_field() -> None:
    with pytest.raises(ValidationError, match="model"):
        lenient(Spec, {"replicas": 2, "model": None})
