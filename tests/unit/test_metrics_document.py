"""docs/metrics.md and the code name the same metrics, section by section."""

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from autoglm.common import admin_server
from autoglm.common.metrics import Family
from autoglm.gateway.request.metrics import Metrics
from autoglm.inference import observation as inference
from autoglm.operator import metrics as operator

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
GATEWAY = Metrics(CollectorRegistry())
SECTIONS = {
    "Gateway": vars(GATEWAY) | vars(GATEWAY.connections),
    "Pod": vars(inference),
    "Operator": vars(operator.Metrics(CollectorRegistry())),
    "Every process": vars(admin_server),
}
Described = dict[str, tuple[str, set[str]]]


def documented(title: str) -> Described:
    """Kind and labels by name."""
    section = DOCUMENT.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    return {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(section)
    }


def in_code(names: dict[str, Any]) -> Described:
    found = {}
    for metric in names.values():
        if isinstance(metric, MetricWrapperBase | Family):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = metric.labelnames if isinstance(metric, Family) else metric._labelnames
            found[name] = (family.type, set(labels))
    return found


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_has_every_metric_with_its_kind_and_labels(title: str) -> None:
    assert documented(title) == in_code(SECTIONS[title])
