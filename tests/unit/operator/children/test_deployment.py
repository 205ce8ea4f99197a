"""A replica's pod runs the engine with the least that it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support.fake_cluster import resource

from autoglm.api import parse
from autoglm.api.engine_flags import engine_flags
from autoglm.inference.settings import InferenceSettings
from autoglm.operator.children.deployment import deployment, pod_template
from autoglm.operator.children.metadata import Context
from autoglm.operator.settings import OperatorSettings

SETTINGS = OperatorSettings(
    inference_image="inference:1", echo_image="echo:1", tracing_endpoint="http://otel.obs.svc:4317"
)
MODEL = {"uri": "org/model"}


def template(**spec: Any) -> dict[str, Any]:
    vllm: dict[str, Any] = {"model": MODEL, "engine": {}}
    return pod_template(Context(parse(resource(**(vllm | spec))), SETTINGS))


def engine(**spec: Any) -> dict[str, Any]:
    container: dict[str, Any] = template(**spec)["spec"]["containers"][0]
    return container


def environment(**spec: Any) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in engine(**spec)["env"]}


# The restricted profile, written down a second time from Kubernetes' page on it.
VOLUMES = "configMap csi downwardAPI emptyDir ephemeral persistentVolumeClaim projected secret"


def forbidden(pod: Mapping[str, Any]) -> Iterator[str]:
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares the node's namespaces"
    shared = pod["securityContext"]
    for volume in pod["volumes"]:
        if not volume.keys() - {"name"} <= set(VOLUMES.split()):
            yield f"volume {volume}"
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = container["securityContext"]
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            yield "may escalate"
        if "ALL" not in own["capabilities"]["drop"] or own["capabilities"].get("add"):
            yield "capabilities"
        if not own.get("runAsNonRoot", shared.get("runAsNonRoot")):
            yield "may be root"
        if own.get("runAsUser", shared.get("runAsUser")) == 0:
            yield "is root"
        if own.get("seccompProfile", shared.get("seccompProfile")) != {"type": "RuntimeDefault"}:
            yield "seccomp"
        if any(port.get("hostPort") for port in container["ports"]):
            yield "host port"


@pytest.mark.parametrize("spec", [{}, {"engine": {"type": "echo"}, "model": {}}])
def test_pods_meet_the_restricted_profile(spec: dict[str, Any]) -> None:
    pod = template(**spec)["spec"]

    assert list(forbidden(pod)) == []
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_the_engine_gets_the_flags_that_a_local_process_gets() -> None:
    own = engine(replicas=3)
    flags = engine_flags(parse(resource(model=MODEL, engine={})), lambda uri: uri)

    assert (own["command"], own["args"]) == (["autoglm"], ["inference", *flags])


def test_the_pods_settings_understand_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)

    settings = InferenceSettings.load({})

    assert settings.grpc_address == "0.0.0.0:50051"
    assert settings.http_address == "0.0.0.0:8000"
    assert settings.metrics_address == "0.0.0.0:9090"


def test_everything_that_is_written_has_a_volume() -> None:
    pod = template()["spec"]
    mounts = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
    variables = environment()

    assert mounts == {"/tmp": "tmp", "/dev/shm": "shm", "/cache": "cache"}
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME"):
        assert variables[name].startswith(tuple(mounts))
    assert "PYTHONDONTWRITEBYTECODE" not in variables


def test_text_of_users_is_not_replaced_by_variables() -> None:
    own = engine(engine={"args": {"chat_template": "$(HF_TOKEN)"}})

    assert "--engine-arg=chat_template=$$(HF_TOKEN)" in own["args"]


def test_a_users_variable_wins() -> None:
    secret = {"secretKeyRef": {"name": "hub", "key": "token"}}
    env = [{"name": "HF_HOME", "value": "/x"}, {"name": "HF_TOKEN", "valueFrom": secret}]

    variables = environment(engine={"env": env})

    assert (variables["HF_HOME"], variables["HF_TOKEN"]) == ("/x", secret)


@pytest.mark.parametrize(
    ("uri", "offline"), [("org/model", None), ("/models/glm", "1")], ids=["hub", "volume"]
)
def test_a_model_on_a_volume_never_uses_the_hub(uri: str, offline: str | None) -> None:
    assert environment(model={"uri": uri}).get("HF_HUB_OFFLINE") == offline


@pytest.mark.parametrize(
    ("grace", "pre_stop", "termination"),
    [(30, 3, 43), (0.5, 1, 12), (120.2, 3, 134), (0, None, 10)],
)
def test_the_grace_period_covers_drain_and_what_is_around_it(
    grace: float, pre_stop: int | None, termination: int
) -> None:
    pod = template(drain={"gracePeriodSeconds": grace})["spec"]
    hook = pod["containers"][0].get("lifecycle")

    assert hook == (pre_stop and {"preStop": {"sleep": {"seconds": pre_stop}}})
    assert pod["terminationGracePeriodSeconds"] == termination


@pytest.mark.parametrize(
    ("parallelism", "given", "limits"),
    [
        ({}, {}, None),
        ({"tensor": 2, "pipeline": 2}, {}, {"nvidia.com/gpu": "4"}),
        ({"tensor": 2}, {"amd.com/gpu": "2"}, {"amd.com/gpu": "2"}),
        ({"tensor": 2}, {"nvidia.com/gpu": 0, "cpu": 4}, {"nvidia.com/gpu": "0", "cpu": "4"}),
        ({}, {"nvidia.com/gpu": 1}, {"nvidia.com/gpu": "1"}),
    ],
)
def test_parallelism_requests_gpus_where_the_user_does_not(
    parallelism: Any, given: Any, limits: Any
) -> None:
    own = engine(engine={"parallelism": parallelism}, resources={"limits": given})

    assert own.get("resources", {}).get("limits") == limits


@pytest.mark.parametrize(
    ("cache", "volume"),
    [
        ({}, {"emptyDir": {"sizeLimit": "320Gi"}}),
        ({"type": "emptyDir", "sizeLimit": "1Gi"}, {"emptyDir": {"sizeLimit": "1Gi"}}),
        (
            {"type": "pvc", "claimName": "hub"},
            {"persistentVolumeClaim": {"claimName": "hub"}},
        ),
        (
            {"type": "hostPath", "path": "/data"},
            {"hostPath": {"path": "/data", "type": "DirectoryOrCreate"}},
        ),
    ],
)
def test_the_cache_is_the_volume_that_was_requested(cache: Any, volume: Any) -> None:
    volumes = template(model=MODEL | {"cache": cache})["spec"]["volumes"]

    assert {"name": "cache", **volume} in volumes


def test_kubelet_probes_the_engines_health() -> None:
    own = engine()

    assert own["readinessProbe"]["grpc"] == {"port": 50051}
    for probe in ("startupProbe", "livenessProbe"):
        assert own[probe]["httpGet"] == {"path": "/health/live", "port": 9090}


@pytest.mark.parametrize(("given", "seconds"), [({}, 600), ({"stallSeconds": 45}, 46)])
def test_a_process_may_stall_as_long_as_a_start_may(given: Any, seconds: int) -> None:
    probe = engine(startup=given)["startupProbe"]

    assert probe["periodSeconds"] * probe["failureThreshold"] == seconds


def test_a_start_that_makes_progress_has_no_deadline() -> None:
    context = Context(parse(resource(model=MODEL, engine={})), SETTINGS)

    body = deployment(context, pod_template(context), "r1", 1)

    assert body["spec"]["progressDeadlineSeconds"] == 2**31 - 1


def test_new_telemetry_makes_new_pods() -> None:
    other = {"tracing": {"endpoint": "http://elsewhere:4317"}}

    assert template()["metadata"] != template(observability=other)["metadata"]
