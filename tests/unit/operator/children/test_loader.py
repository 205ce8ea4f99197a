"""Loaders have what downloads need, and pods what serving needs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_cluster import resource

from autoglm.api import InvalidSpec, parse
from autoglm.api.uri import directory_of
from autoglm.operator.children.deployment import pod_template
from autoglm.operator.children.loader import job
from autoglm.operator.children.metadata import Context
from autoglm.operator.children.network import loader_policy, network_policy
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.template.template import with_template

DEFAULTS = '{"proxy": {"httpsProxy": "http://proxy:3128"}, "caBundle": {"configMapName": "ca"}}'
SETTINGS = OperatorSettings(
    inference_image="i:1", model_defaults=DEFAULTS, lease_namespace="autoglm"
)
PVC = {"type": "pvc", "claimName": "weights"}


def context(uri: str, cache: Any = None, **spec: Any) -> Context:
    model = {"uri": uri, "cache": cache or {}}
    return Context(parse(resource(model=model, engine=spec.pop("engine", {}), **spec)), SETTINGS)


def pod_of(found: Context) -> dict[str, Any]:
    template = with_template(pod_template(found), found.spec.template)
    pod: dict[str, Any] = template["spec"]
    return pod


def job_pod(found: Context) -> dict[str, Any]:
    template = with_template(pod_template(found), found.spec.template)
    pod: dict[str, Any] = job(found, template)["spec"]["template"]["spec"]
    return pod


def ports(policy: dict[str, Any]) -> set[int]:
    return {p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}


def test_only_the_loader_reaches_hub_and_proxy() -> None:
    found = context("org/model", PVC)
    assert ports(loader_policy(found)) >= {443, 3128}
    assert ports(network_policy(found)).isdisjoint({443, 3128})


def test_only_the_operator_connects_to_the_loader() -> None:
    (rule,) = loader_policy(context("org/model", PVC))["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator"
    assert rule["ports"] == [{"protocol": "TCP", "port": 9090}]


def test_the_policies_of_replicas_and_loader_select_different_pods() -> None:
    found = context("org/model", PVC)
    labels = job(found, pod_template(found))["spec"]["template"]["metadata"]["labels"]
    selected = loader_policy(found)["spec"]["podSelector"]["matchLabels"]
    replicas = network_policy(found)["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= labels.items()
    assert not replicas.items() <= labels.items()


def test_the_loader_has_the_credentials_and_certificates_of_downloads() -> None:
    token = {"secretKeyRef": {"name": "hub", "key": "token"}}
    env = [{"name": "HF_TOKEN", "valueFrom": token}]
    pod = job_pod(context("org/model", PVC, engine={"env": env}))
    (loader,) = pod["containers"]
    variables = {e["name"]: e.get("value", e.get("valueFrom")) for e in loader["env"]}
    assert variables["HF_TOKEN"] == token
    assert variables["HTTPS_PROXY"] == "http://proxy:3128"
    assert {v["name"] for v in pod["volumes"]} == {"tmp", "cache", "ca-bundle"}
    assert pod["serviceAccountName"] == "m-inference"
    assert pod["automountServiceAccountToken"] is False
    assert loader["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_loader_runs_where_the_replicas_may_run_without_their_devices() -> None:
    template = {"spec": {"nodeSelector": {"zone": "a"}, "tolerations": [{"operator": "Exists"}]}}
    limits = {"limits": {"nvidia.com/gpu": 1}}
    pod = job_pod(context("org/model", PVC, template=template, resources=limits))
    assert pod["nodeSelector"] == {"zone": "a"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


def test_the_jobs_name_fits_a_label() -> None:
    longest = resource("a" * 52, model={"uri": "org/model", "cache": PVC}, engine={})
    found = Context(parse(longest), SETTINGS)
    assert len(job(found, pod_template(found))["metadata"]["name"]) <= 63


def test_an_error_that_lasts_fails_the_job_and_an_eviction_counts_for_nothing() -> None:
    found = context("org/model", PVC)
    rules = job(found, pod_template(found))["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    assert {66, 76, 78} <= set(rules[1]["onExitCodes"]["values"])
    assert 81 not in rules[1]["onExitCodes"]["values"]


@pytest.mark.parametrize(
    ("uri", "cache"),
    [
        ("org/model", {"type": "hostPath", "path": "/var/models"}),
        ("ms://org/model@v1", {"type": "hostPath", "path": "/var/models"}),
        ("s3://bucket/model", {}),
    ],
    ids=["node", "node-modelscope", "pod"],
)
def test_a_cache_of_a_node_or_pod_is_filled_by_an_init_container(uri: str, cache: Any) -> None:
    requests = {"requests": {"cpu": "4"}, "limits": {"nvidia.com/gpu": 1}}
    found = context(uri, cache, resources=requests)
    pod = pod_of(found)
    (loader,) = pod["initContainers"]
    (engine,) = pod["containers"]
    assert loader["args"][:2] == ["load", "--directory=/cache/models"]
    assert loader["resources"] == {"requests": {"cpu": "4"}, "limits": {}}
    cached = {m["name"]: m for m in engine["volumeMounts"]}["cache"]
    assert cached == {"name": "cache", "mountPath": "/cache", "readOnly": True}
    assert 443 in ports(network_policy(found))


@pytest.mark.parametrize("uri", ["org/model", "ms://org/model@v1"])
def test_a_hubs_model_without_a_cache_is_left_to_the_engine(uri: str) -> None:
    found = context(uri)
    pod = pod_of(found)
    assert "initContainers" not in pod
    assert f"--model-path={uri}" in pod["containers"][0]["args"]
    variables = {entry["name"] for entry in pod["containers"][0]["env"]}
    assert "HF_HUB_OFFLINE" not in variables
    assert ("MODELSCOPE_CACHE" in variables) == uri.startswith("ms://")
    assert 443 in ports(network_policy(found))


def test_a_job_loads_a_model_of_modelscope_and_pods_get_its_path() -> None:
    found = context("ms://org/model@v1", PVC)
    assert "--uri=ms://org/model@v1" in job_pod(found)["containers"][0]["args"]
    (engine,) = pod_of(found)["containers"]
    assert f"--model-path=/cache/models/{directory_of('ms://org/model@v1')}" in engine["args"]
    assert "MODELSCOPE_CACHE" not in {entry["name"] for entry in engine["env"]}
    assert ports(network_policy(found)) == {53, 5353}


def test_an_image_is_mounted_and_needs_no_network() -> None:
    found = context("oci://registry.example/team/glm:1")
    pod = pod_of(found)
    (volume,) = [v for v in pod["volumes"] if "image" in v]
    assert volume["image"]["reference"] == "registry.example/team/glm:1"
    path = f"/sources/{volume['name']}"
    (engine,) = pod["containers"]
    assert f"--model-path={path}" in engine["args"]
    assert {"name": volume["name"], "mountPath": path, "readOnly": True} in engine["volumeMounts"]
    assert ports(network_policy(found)) == {53, 5353}


def test_a_path_on_a_claim_is_mounted_read_only() -> None:
    pod = pod_of(context("pvc://shared/glm/v1"))
    (volume,) = [v for v in pod["volumes"] if v["name"].startswith("source-")]
    assert volume["persistentVolumeClaim"] == {"claimName": "shared", "readOnly": True}
    assert f"--model-path=/sources/{volume['name']}/glm/v1" in pod["containers"][0]["args"]


def test_a_revision_is_one_of_the_source_and_not_of_the_loaded_directory() -> None:
    model = {"uri": "org/model", "revision": "v2", "cache": PVC}
    found = Context(parse(resource(model=model, engine={})), SETTINGS)
    assert "--revision=v2" in job_pod(found)["containers"][0]["args"]
    assert "--revision=v2" not in pod_of(found)["containers"][0]["args"]


@pytest.mark.parametrize(
    "uri",
    ["ms://model", "gs://bucket/m", "https://hub/m", "s3://B", "pvc://a/../b", "oci://"],
)
def test_what_cannot_be_loaded_is_rejected_with_what_can(uri: str) -> None:
    with pytest.raises(InvalidSpec) as raised:
        context(uri)
    for scheme in ("hf://", "ms://", "s3://", "oci://", "pvc://"):
        assert scheme in str(raised.value)
