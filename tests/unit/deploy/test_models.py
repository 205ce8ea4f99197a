"""What the chart passes to the operator for the pods of all models, and what a pod then has."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fake_cluster import resource
from tests.unit.deploy.test_chart import container, named, settings_of

from autoglm.operator.children.companions import service_account
from autoglm.operator.children.deployment import pod_template
from autoglm.operator.children.metadata import Context
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.status.validity import valid

Object = dict[str, Any]
Render = Callable[..., list[Object]]
Template = Callable[..., str]
ROLE = r"eks\.amazonaws\.com/role-arn"
EVERYTHING = (
    "models.imagePullSecrets={registry}",
    "models.tolerations[0].key=nvidia.com/gpu",
    "models.tolerations[0].operator=Exists",
    "models.priorityClassName=serving",
    "models.proxy.httpsProxy=http://proxy.example.com:3128",
    "models.caBundle.configMapName=company-ca",
    "models.hubToken.secretName=hub",
    "models.hubToken.namespaces={ns}",
    f"models.serviceAccount.annotations.{ROLE}=arn:aws:iam::1:role/models",
)


def context_of(objects: list[Object]) -> Context:
    """A model of vLLM, for an operator with the settings of the chart."""
    settings = OperatorSettings.load(settings_of(objects, "operator"))
    glm = resource("glm", model={"uri": "zai-org/glm"}, engine={"type": "vllm"})
    return valid(glm, settings)


def test_by_default_models_get_nothing(render: Render) -> None:
    assert not {"model_defaults", "ip_family"} & settings_of(render(), "operator").keys()


def test_values_for_models_reach_their_pods(render: Render) -> None:
    pod = pod_template(context_of(render(*EVERYTHING)))["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert pod["priorityClassName"] == "serving"
    (engine,) = pod["containers"]
    env = {variable["name"]: variable for variable in engine["env"]}
    assert env["HTTPS_PROXY"]["value"] == "http://proxy.example.com:3128"
    assert "127.0.0.1" in env["NO_PROXY"]["value"]
    token = {"secretKeyRef": {"name": "hub", "key": "token"}}
    assert env["HF_TOKEN"]["valueFrom"] == token
    mounts = {mount["name"]: mount["mountPath"] for mount in engine["volumeMounts"]}
    assert env["SSL_CERT_FILE"]["value"] == f"{mounts['ca-bundle']}/ca.crt"
    assert {"name": "ca-bundle", "configMap": {"name": "company-ca"}} in pod["volumes"]


def test_the_installations_pull_secrets_and_priority_are_the_models_by_default(
    render: Render,
) -> None:
    objects = render("imagePullSecrets={registry}", "priorityClassName=high")
    pod = pod_template(context_of(objects))["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["priorityClassName"] == "high"


def test_an_identity_of_the_cloud_reaches_each_account(render: Render) -> None:
    objects = render(
        *EVERYTHING,
        rf"gateway.serviceAccount.annotations.{ROLE}=gateway-role",
        rf"operator.serviceAccount.annotations.{ROLE}=operator-role",
    )
    key = ROLE.replace("\\", "")
    for component in ("gateway", "operator"):
        account = named(objects, "ServiceAccount", f"open-autoglm-{component}")
        assert account["metadata"]["annotations"] == {key: f"{component}-role"}
    account = service_account(context_of(objects))
    assert account["metadata"]["annotations"] == {key: "arn:aws:iam::1:role/models"}


def test_on_ipv6_everything_listens_on_every_address(render: Render) -> None:
    objects = render("ipFamily=IPv6", "gateway.endpointPicker.enabled=true")
    for component in ("gateway", "operator"):
        told = settings_of(objects, component)
        for port in container(objects, component)["ports"]:
            name = f"{port['name']}_address".replace("-", "_")
            assert told[name] == f"[::]:{port['containerPort']}"
    (engine,) = pod_template(context_of(objects))["spec"]["containers"]
    listening = {e["name"]: e["value"] for e in engine["env"] if e["name"].endswith("_ADDRESS")}
    assert listening == {
        "AUTOGLM_GRPC_ADDRESS": "[::]:50051",
        "AUTOGLM_HTTP_ADDRESS": "[::]:8000",
        "AUTOGLM_METRICS_ADDRESS": "[::]:9090",
    }


def test_the_gateways_service_has_both_families_where_the_value_says_so(render: Render) -> None:
    by_default = named(render(), "Service", "open-autoglm-gateway")["spec"]
    assert "ipFamilyPolicy" not in by_default
    objects = render("ipFamily=IPv6", "gateway.service.ipFamilyPolicy=PreferDualStack")
    spec = named(objects, "Service", "open-autoglm-gateway")["spec"]
    assert spec["ipFamilyPolicy"] == "PreferDualStack"


@pytest.mark.parametrize(
    ("value", "named_in_message"),
    [
        ("ipFamily=IPv5", "/ipFamily"),
        ("gateway.service.ipFamilyPolicy=Both", "/gateway/service/ipFamilyPolicy"),
        ("models.proxy.httpsProxy=proxy:3128", "/models/proxy/httpsProxy"),
        ("models.hubToken.namespaces={Team}", "/models/hubToken/namespaces/0"),
        ("models.caBundle.name=a", "name"),
    ],
)
def test_a_wrong_value_is_rejected_by_name(
    template: Template, value: str, named_in_message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(named_in_message)):
        template("--set", value)
