"""Nothing goes in or out of a replica but what serving needs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_cluster import resource

from autoglm.api import parse
from autoglm.operator.children.metadata import Context
from autoglm.operator.children.network import is_wanted, network_policy
from autoglm.operator.settings import OperatorSettings

SETTINGS = OperatorSettings(gateway_namespace="gw", monitoring_namespace="prometheus")


def policy(settings: OperatorSettings = SETTINGS, **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = network_policy(Context(parse(resource(**spec)), settings))["spec"]
    return body


def egress(**spec: Any) -> list[dict[str, Any]]:
    """Beyond name resolution."""
    rules: list[dict[str, Any]] = policy(**spec)["egress"]
    return rules[1:]


def tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def test_what_no_rule_allows_is_denied() -> None:
    assert policy()["policyTypes"] == ["Ingress", "Egress"]


def test_only_gateways_monitoring_and_the_operator_may_connect() -> None:
    gateways = {
        "app.kubernetes.io/name": "open-autoglm",
        "app.kubernetes.io/component": "gateway",
    }
    operators = gateways | {"app.kubernetes.io/component": "operator"}

    assert policy()["ingress"] == [
        {
            "from": [{**namespace("gw"), "podSelector": {"matchLabels": gateways}}],
            "ports": tcp(50051, 8000, 9090),
        },
        {
            "from": [
                namespace("prometheus"),
                {**namespace("autoglm-system"), "podSelector": {"matchLabels": operators}},
            ],
            "ports": tcp(9090),
        },
    ]


def test_name_resolution_is_all_that_an_echo_reaches() -> None:
    rules = policy()["egress"]

    assert len(rules) == 1
    assert {port["port"] for port in rules[0]["ports"]} == {53, 5353}


@pytest.mark.parametrize(
    ("model", "ports"),
    [
        ({"uri": "org/model"}, [tcp(443)]),
        ({"uri": "ms://org/model"}, [tcp(443)]),
        ({"uri": "/models/glm"}, []),
        ({"uri": "/models/glm", "tokenizer": "org/model"}, [tcp(443)]),
        ({"uri": "/m", "adapters": [{"name": "a", "uri": "org/lora"}]}, [tcp(443)]),
    ],
)
def test_only_replicas_that_need_the_hub_may_connect_to_it(model: Any, ports: Any) -> None:
    assert [rule["ports"] for rule in egress(model=model, engine={})] == ports


@pytest.mark.parametrize(
    ("uri", "variable"), [("org/model", "HF_ENDPOINT"), ("ms://org/model", "MODELSCOPE_ENDPOINT")]
)
def test_a_mirror_of_the_hub_has_its_own_port(uri: str, variable: str) -> None:
    env = [{"name": variable, "value": "http://mirror:8080"}]

    assert egress(model={"uri": uri}, engine={"env": env}) == [{"ports": tcp(443, 8080)}]


@pytest.mark.parametrize(
    ("endpoint", "rule"),
    [
        ("http://otel:4317", {"to": [namespace("ns")], "ports": tcp(4317)}),
        ("http://otel.obs:4317", {"to": [namespace("obs")], "ports": tcp(4317)}),
        ("http://otel.obs.svc.cluster.local:1", {"to": [namespace("obs")], "ports": tcp(1)}),
        ("https://10.1.2.3", {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": tcp(443)}),
        (
            "http://[fd00::1]:4317",
            {"to": [{"ipBlock": {"cidr": "fd00::1/128"}}], "ports": tcp(4317)},
        ),
        ("https://traces.example.com", {"ports": tcp(443)}),
    ],
)
def test_spans_go_to_their_collector(endpoint: str, rule: Any) -> None:
    assert egress(observability={"tracing": {"endpoint": endpoint}}) == [rule]


def test_the_policy_can_be_left_out() -> None:
    assert not is_wanted(Context(parse(resource(network={"policy": "None"})), SETTINGS))
