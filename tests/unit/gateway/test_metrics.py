"""docs/metrics.md and the code name the same metrics."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram

from autoglm.gateway.metrics import Metrics

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)


def documented() -> dict[str, tuple[str, set[str]]]:
    """Kind and labels by name, from the gateway's section."""
    section = DOCUMENT.read_text().split("## Gateway\n")[1].split("\n## ")[0]
    return {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in ROW.findall(section)
    }


def in_code() -> dict[str, tuple[str, set[str]]]:
    found = {}
    for metric in vars(Metrics(CollectorRegistry())).values():
        (family,) = metric.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, set(metric._labelnames))
    return found


def test_document_has_every_metric_with_its_kind_and_labels() -> None:
    assert documented() == in_code()


@pytest.mark.parametrize("name", ["duration", "first_chunk"])
def test_latency_buckets_have_the_bounds_of_common_objectives(name: str) -> None:
    histogram: Histogram = getattr(Metrics(CollectorRegistry()), name)
    assert {0.1, 0.3, 0.5, 1.0} <= set(histogram._upper_bounds)
