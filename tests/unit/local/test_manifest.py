"""A resource becomes flags in one way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoglm.api import AutoGLMDeployment, InvalidSpec, parse
from autoglm.api.rules import ECHO_ARGS
from autoglm.gateway.settings import GatewaySettings
from autoglm.inference.settings import InferenceSettings
from autoglm.local.manifest import (
    GATEWAY,
    Placed,
    gateway_workload,
    inference_flags,
    model_workload,
    notices,
    read,
)
from autoglm.local.planning import Addresses, Process, Workload

HERE = Path("/models")


def resource(**spec: Any) -> AutoGLMDeployment:
    return parse(
        {
            "apiVersion": "autoglm.io/v1alpha1",
            "kind": "AutoGLMDeployment",
            "metadata": {"name": "m"},
            "spec": {"model": {"uri": "org/model"}, **spec},
        }
    )


FULL = resource(
    model={
        "uri": "./weights",
        "revision": "abc",
        "servedName": "served",
        "aliases": ["one", "two"],
        "tokenizer": "../tokenizer",
        "maxModelLen": 2048,
        "quantization": {"method": "fp8", "kvCacheDtype": "fp8"},
        "adapters": [{"name": "lora", "uri": "./lora"}],
    },
    engine={
        "args": {"reasoning-parser": "glm45", "limit_mm_per_prompt": {"image": 2}},
        "parallelism": {"tensor": 2, "data": 4},
        "maxNumSeqs": 8,
        "gpuMemoryUtilization": 0.3,
        "features": {"prefixCaching": False},
    },
    drain={"gracePeriodSeconds": 5},
)


def test_a_minimal_resource_leaves_everything_else_to_the_pod() -> None:
    assert inference_flags(Placed(resource(), HERE), None) == (
        "--engine=vllm",
        "--model-path=org/model",
        "--model-name=m",
        "--shutdown-grace-seconds=30.0",
    )


def test_every_field_that_a_process_can_honour_becomes_a_flag() -> None:
    assert inference_flags(Placed(FULL, HERE), "file:/tmp/spans") == (
        "--engine=vllm",
        "--model-path=/models/weights",
        "--model-name=served",
        "--model-alias=one",
        "--model-alias=two",
        "--adapter=lora=/models/lora",
        "--max-model-len=2048",
        "--max-num-seqs=8",
        "--quantization=fp8",
        "--kv-cache-dtype=fp8",
        "--tensor-parallel-size=2",
        "--gpu-memory-utilization=0.3",
        "--tokenizer=/tokenizer",
        "--revision=abc",
        "--engine-arg=reasoning_parser=glm45",
        '--engine-arg=limit_mm_per_prompt={"image": 2}',
        "--engine-arg=data_parallel_size=4",
        "--engine-arg=enable_prefix_caching=false",
        "--shutdown-grace-seconds=5.0",
        "--traces=file:/tmp/spans",
    )


def test_arguments_of_the_echo_engine_are_flags_of_their_own() -> None:
    echo = resource(model={}, engine={"type": "echo", "args": {"token-rate": 50, "kv_blocks": 8}})

    flags = inference_flags(Placed(echo, HERE), None)

    assert flags[2:4] == ("--echo-token-rate=50", "--echo-kv-blocks=8")


def test_every_flag_is_one_that_the_service_knows() -> None:
    known = set(InferenceSettings.model_fields)
    echo = {name.removeprefix("echo_") for name in known if name.startswith("echo_")}

    assert echo == ECHO_ARGS
    assert {_field(flag) for flag in inference_flags(Placed(FULL, HERE), "none")} <= known
    gateway = gateway_workload(
        [Placed(FULL, HERE)], (), Addresses(), Path("/e"), ("--traces=none",)
    )
    assert {_field(flag) for flag in gateway.process.argv[1:]} <= set(GatewaySettings.model_fields)


def _field(flag: str) -> str:
    return flag.partition("=")[0].removeprefix("--").replace("-", "_")


def test_the_resource_says_where_spans_go_unless_the_user_does() -> None:
    traced = resource(observability={"tracing": {"endpoint": "http://c:4317", "sampleRatio": 0.5}})

    own = inference_flags(Placed(traced, HERE), None)
    overridden = inference_flags(Placed(traced, HERE), "console")

    assert own[-2:] == ("--traces=otlp:http://c:4317", "--trace-sample-ratio=0.5")
    assert overridden[-1] == "--traces=console"


def test_a_workload_is_the_resource_as_processes() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "TOKEN", "valueFrom": {"secretKeyRef": {}}}]
    given = resource(replicas=2, engine={"type": "echo", "env": env}, model={})

    assert model_workload(Placed(given, HERE), ("autoglm",), None) == Workload(
        "m",
        2,
        Process(
            (
                "autoglm",
                "inference",
                "--engine=echo",
                "--model-name=m",
                "--shutdown-grace-seconds=30.0",
            ),
            env=(("A", "1"),),
            grace_seconds=30.0,
        ),
    )


def test_replicas_are_no_part_of_the_revision() -> None:
    few, many = (
        model_workload(Placed(resource(replicas=n), HERE), ("autoglm",), None) for n in (1, 3)
    )

    assert few.revision == many.revision


def test_the_gateway_drains_as_long_as_the_slowest_model() -> None:
    slow = Placed(resource(drain={"gracePeriodSeconds": 90}), HERE)

    workload = gateway_workload(
        [Placed(resource(), HERE), slow], ("autoglm",), Addresses(), Path("/run/e.json")
    )

    assert workload == Workload(
        GATEWAY,
        1,
        Process(
            (
                "autoglm",
                "gateway",
                "--endpoints-file=/run/e.json",
                "--shutdown-grace-seconds=90.0",
            ),
            addresses=Addresses(),
            grace_seconds=90.0,
            is_routed=False,
        ),
    )


HUB_TOKEN = {"name": "hub", "key": "token"}


def test_fields_for_clusters_only_are_reported() -> None:
    assert notices(Placed(resource(replicas=2), HERE)) == []
    scaled = resource(
        scaling={"minReplicas": 2, "maxReplicas": 4},
        engine={
            "env": [
                {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
            ]
        },
    )
    assert notices(Placed(scaled, HERE), {}) == [
        "m: spec.scaling takes effect on Kubernetes; `autoglm up` runs 2 replicas (minReplicas)",
        'm: spec.engine.env[0].valueFrom.secretKeyRef.name = "hub": the manifests have no such '
        "Secret in the namespace default; add it to them, or set HF_TOKEN in this shell's "
        "environment",
    ]


PROFILE = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMProfile
metadata: {name: small}
spec: {engine: {args: {enforce_eager: true}}}
"""
USER = """
apiVersion: autoglm.io/v1alpha1
kind: AutoGLMDeployment
metadata: {name: m}
spec: {model: {uri: a/b}, profile: {name: small}}
"""


def test_a_profile_of_another_file_is_merged_and_needs_no_notice(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(USER)
    second.write_text(PROFILE)

    (placed,) = read([first, second])

    assert placed.resource.spec.engine.args == {"enforce_eager": True}
    assert notices(placed) == []


def test_a_profile_of_the_cluster_is_reported_as_one() -> None:
    assert notices(Placed(resource(profile={"name": "nvidia-l4"}), HERE)) == [
        "m: spec.profile takes effect on Kubernetes; `autoglm up` runs without it; add the "
        "AutoGLMProfile to the manifests to use its engine arguments"
    ]


def test_profiles_alone_are_nothing_to_run(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(PROFILE)

    with pytest.raises(InvalidSpec, match="contains no AutoGLMDeployment"):
        read([file])
