import pytest
from prometheus_client import CollectorRegistry

from autoglm.common.metrics import HistogramFamily
from autoglm.gateway.request.metrics import Metrics


@pytest.mark.parametrize("name", ["duration", "first_chunk"])
def test_latency_buckets_have_the_bounds_of_common_objectives(name: str) -> None:
    histogram: HistogramFamily = getattr(Metrics(CollectorRegistry()), name)
    assert {0.1, 0.3, 0.5, 1.0} <= set(histogram.bounds)
