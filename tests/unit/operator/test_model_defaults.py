"""The defaults of an installation are read strictly, and each lets the resource's own win."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.fake_cluster import resource

from autoglm.api import parse
from autoglm.common.settings import SettingsError
from autoglm.operator.children.companions import service_account
from autoglm.operator.children.deployment import pod_template
from autoglm.operator.children.metadata import Context
from autoglm.operator.children.network import network_policy
from autoglm.operator.settings import OperatorSettings
from autoglm.operator.template.template import with_template

HUB: dict[str, Any] = {"model": {"uri": "org/model"}, "engine": {}}
PROXY = {"httpsProxy": "http://proxy:3128", "noProxy": "localhost"}


def context(defaults: Any, **spec: Any) -> Context:
    settings = OperatorSettings(model_defaults=json.dumps(defaults))
    return Context(parse(resource(**(HUB | spec))), settings)


def environment(defaults: Any, **spec: Any) -> dict[str, Any]:
    (engine,) = pod_template(context(defaults, **spec))["spec"]["containers"]
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in engine["env"]}


def ports(defaults: Any, **spec: Any) -> set[int]:
    """Where replicas may connect to, beyond name resolution."""
    rules = network_policy(context(defaults, **spec))["spec"]["egress"][1:]
    return {port["port"] for rule in rules for port in rule["ports"]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON of the form"),
        ('{"toleration": []}', "unknown field `toleration`"),
        ('{"imagePullSecrets": "a"}', "Expected `array`"),
    ],
)
def test_wrong_defaults_are_rejected_at_the_start(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"--model-defaults .*{why}"):
        OperatorSettings.load({"model_defaults": text})


def test_no_defaults_change_no_pod() -> None:
    plain = Context(parse(resource(**HUB)), OperatorSettings())
    assert pod_template(context({})) == pod_template(plain)


def test_variables_of_the_resource_win() -> None:
    env = [{"name": "HTTPS_PROXY", "value": "http://mine:8080"}, {"name": "HF_TOKEN", "value": "t"}]
    token = {"secretName": "hub", "namespaces": ["*"]}
    given = environment({"proxy": PROXY, "hubToken": token}, engine={"env": env})
    assert (given["HTTPS_PROXY"], given["HF_TOKEN"]) == ("http://mine:8080", "t")
    assert given["NO_PROXY"] == "localhost"


def test_the_template_of_the_resource_wins() -> None:
    defaults = {"tolerations": [{"key": "a"}], "priorityClassName": "low"}
    mine = {"spec": {"tolerations": [{"key": "b"}], "priorityClassName": "high"}}
    pod = with_template(pod_template(context(defaults)), mine)["spec"]
    assert (pod["tolerations"], pod["priorityClassName"]) == ([{"key": "b"}], "high")


def test_pull_secrets_of_both_are_used() -> None:
    mine = {"spec": {"imagePullSecrets": [{"name": "mine"}]}}
    pod = with_template(pod_template(context({"imagePullSecrets": ["ours"]})), mine)["spec"]
    assert pod["imagePullSecrets"] == [{"name": "ours"}, {"name": "mine"}]


def test_a_replica_that_downloads_nothing_gets_no_token_and_no_proxy() -> None:
    defaults = {
        "proxy": PROXY,
        "caBundle": {"configMapName": "ca"},
        "hubToken": {"secretName": "hub", "namespaces": ["*"]},
    }
    on_a_volume = {"model": {"uri": "/models/glm"}}
    given = environment(defaults, **on_a_volume)
    assert not {"HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "HF_TOKEN"} & given.keys()
    names = {v["name"] for v in pod_template(context(defaults, **on_a_volume))["spec"]["volumes"]}
    assert "ca-bundle" not in names
    assert ports(defaults, **on_a_volume) == set()


@pytest.mark.parametrize(("namespaces", "has_token"), [(["other"], False), (["ns"], True)])
def test_only_namespaces_of_the_setting_get_the_token(
    namespaces: list[str], has_token: bool
) -> None:
    token = {"secretName": "hub", "namespaces": namespaces}
    assert ("HF_TOKEN" in environment({"hubToken": token})) is has_token


@pytest.mark.parametrize(
    ("defaults", "env", "expected"),
    [
        ({}, [], {443}),
        ({"proxy": PROXY}, [], {443, 3128}),
        ({}, [{"name": "https_proxy", "value": "http://proxy:8080"}], {443, 8080}),
        ({"proxy": PROXY}, [{"name": "HTTPS_PROXY", "value": "http://p:8080"}], {443, 8080}),
        ({"proxy": PROXY}, [{"name": "HTTPS_PROXY", "value": ""}], {443}),
        ({}, [{"name": "ALL_PROXY", "value": "socks5://proxy:1080"}], {443, 1080}),
        ({}, [{"name": "HTTP_PROXY", "value": "http://proxy"}], {80, 443}),
    ],
)
def test_the_policy_lets_out_what_the_proxies_need(
    defaults: Any, env: list[Any], expected: set[int]
) -> None:
    assert ports(defaults, engine={"env": env}) == expected


def test_annotations_of_the_account_are_the_resources_over_the_installations() -> None:
    defaults = {"serviceAccountAnnotations": {"a/role": "ours", "b/x": "y"}}
    own = {"annotations": {"a/role": "mine"}}
    account = service_account(context(defaults, serviceAccount=own))
    assert account["metadata"]["annotations"] == {"a/role": "mine", "b/x": "y"}
    assert account["automountServiceAccountToken"] is False


def test_other_annotations_of_the_account_replace_the_pods() -> None:
    """Webhooks that give an identity change pods only when these are created."""
    one, other = ({"serviceAccount": {"annotations": {"a/role": role}}} for role in ("x", "y"))
    assert pod_template(context({}, **one)) != pod_template(context({}, **other))
    assert pod_template(context({}, **one)) == pod_template(context({}, **one))


def test_an_identity_of_gke_may_reach_its_metadata_server() -> None:
    own = {"annotations": {"iam.gke.io/gcp-service-account": "models@p.iam.gserviceaccount.com"}}
    assert ports({}) == {443}
    assert ports({}, serviceAccount=own) == {80, 443, 988}
