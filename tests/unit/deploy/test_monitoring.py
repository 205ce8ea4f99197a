"""Dashboards and alerts query metrics that exist."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from autoglm.gateway.request.metrics import Metrics as GatewayMetrics
from autoglm.operator.metrics import Metrics as OperatorMetrics

Object = dict[str, Any]
Render = Callable[..., list[Object]]
ROOT = Path(__file__).parents[3]
DASHBOARDS = sorted((ROOT / "deploy/dashboards").glob("*.json"))
_METRIC = re.compile(r"\bautoglm_[a-z_]+")
_SELECTOR = re.compile(r"\bautoglm_[a-z_]+(\{[^}]*\})?")
_LABEL_VALUES = re.compile(r"label_values\((\S+), (\w+)\)")


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Names as Prometheus has them."""
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    OperatorMetrics(registry)
    documented = _METRIC.findall((ROOT / "docs/metrics.md").read_text())
    own = {metric.name + suffix for metric in registry.collect() for suffix in ("", "_total")}
    return own | {*documented}


def queries(dashboard: Object) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def unknown_in(text: str, known: set[str]) -> set[str]:
    return {name for name in _METRIC.findall(text) if name.removesuffix("_bucket") not in known}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_query_metrics_that_exist(path: Path, known: set[str]) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["panels"]
    for query in queries(dashboard):
        assert not unknown_in(query, known)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_use_their_own_variables_only(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", path.read_text())) - {"__rate_interval", "__all"}
    assert used <= variables


def test_alerts_query_metrics_that_exist(render: Render, known: set[str]) -> None:
    alerts = list(alerts_of(render("monitoring.rules.enabled=true")))
    assert len(alerts) == 9
    for alert in alerts:
        assert not unknown_in(alert["expr"], known)


def test_alerts_of_one_installation_ignore_metrics_of_another(render: Render) -> None:
    selected = [
        selector
        for alert in alerts_of(render("monitoring.rules.enabled=true"))
        for selector in _SELECTOR.findall(alert["expr"])
    ]
    assert selected
    assert all('namespace="autoglm-system"' in labels for labels in selected), selected


def test_no_leader_is_noticed_where_no_operator_is_scraped(render: Render) -> None:
    (expr,) = (
        alert["expr"]
        for alert in alerts_of(render("monitoring.rules.enabled=true"))
        if alert["alert"] == "AutoGLMNoLeader"
    )
    assert "sum by (job)" in expr
    assert "or 0 * absent(" in expr


def test_every_alert_says_what_and_what_to_do(render: Render) -> None:
    for alert in alerts_of(render("monitoring.rules.enabled=true")):
        assert alert["annotations"].keys() == {"summary", "description"}
        assert alert["labels"]["severity"] in ("warning", "critical")


def test_a_threshold_reaches_its_alert(render: Render) -> None:
    value = "monitoring.rules.thresholds.errorAnswers=0.123"
    exprs = [alert["expr"] for alert in alerts_of(render("monitoring.rules.enabled=true", value))]
    assert len([expr for expr in exprs if expr.endswith("> 0.123")]) == 1


def alerts_of(objects: list[Object]) -> Iterator[Object]:
    for item in objects:
        if item["kind"] == "PrometheusRule":
            for group in item["spec"]["groups"]:
                yield from group["rules"]
