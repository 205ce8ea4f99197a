"""Counters and histograms that are updated on every request, at little cost.

Their children are plain numbers without locks: one thread updates them, the event loop's, and a
scrape reads them from another thread. `prometheus_client` writes them out.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import partial
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_Child = TypeVar("_Child")


class CounterChild:
    """The value of a counter for one set of label values."""

    __slots__ = ("created", "value")

    def __init__(self) -> None:
        self.created = time.time()
        self.value = 0.0

    def inc(self) -> None:
        """Add one."""
        self.value += 1.0


class HistogramChild:
    """The observations of a histogram for one set of label values."""

    __slots__ = ("bounds", "counts", "created", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.created = time.time()
        self.counts = [0] * (len(bounds) + 1)
        """The observations of each bucket, without those of the buckets below it."""
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        """Add an observation."""
        observe((self,), amount)


def observe(children: tuple[HistogramChild, ...], amount: float) -> None:
    """Add an observation to several histograms."""
    for child in children:
        child.counts[bisect_left(child.bounds, amount)] += 1
        child.sum += amount


class Family(Collector, Generic[_Child]):
    """A metric with labels."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: tuple[str, ...],
        make: Callable[[], _Child],
        registry: CollectorRegistry,
    ) -> None:
        self.name, self.documentation, self.labelnames = name, documentation, labelnames
        self._make = make
        self._children: dict[tuple[str, ...], _Child] = {}
        registry.register(self)

    def labels(self, *values: str) -> _Child:
        """Return the child for the label values; callers cache it."""
        if len(values) != len(self.labelnames):
            raise ValueError(f"{self.name} needs values of {self.labelnames}, not {values}")
        key = tuple(map(str, values))
        if key not in self._children:
            self._children[key] = self._make()
        return self._children[key]

    def describe(self) -> Iterable[Metric]:
        """Return the metric without samples."""
        return [self._empty()]

    @abstractmethod
    def _empty(self) -> Metric: ...

    def children(self) -> list[tuple[tuple[str, ...], _Child]]:
        """Return the label values and children so far."""
        # Copied in one step of the interpreter, as requests may add children meanwhile.
        return list(self._children.items())


class CounterFamily(Family[CounterChild]):
    """As `prometheus_client.Counter`."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: tuple[str, ...],
        *,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        super().__init__(name, documentation, labelnames, CounterChild, registry)

    def collect(self) -> Iterable[Metric]:
        """Return the metric with the samples of all children."""
        metric, has_created = self._empty(), _has_created()
        for values, child in self.children():
            metric.add_metric(values, child.value, child.created if has_created else None)
        return [metric]

    def _empty(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.documentation, labels=self.labelnames)


class HistogramFamily(Family[HistogramChild]):
    """As `prometheus_client.Histogram`."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labelnames: tuple[str, ...],
        *,
        buckets: Iterable[float],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self.bounds = tuple(map(float, buckets))
        make = partial(HistogramChild, self.bounds)
        super().__init__(name, documentation, labelnames, make, registry)

    def collect(self) -> Iterable[Metric]:
        """Return the metric with the samples of all children."""
        metric, has_created = self._empty(), _has_created()
        bounds = [*map(floatToGoString, self.bounds), "+Inf"]
        for values, child in self.children():
            buckets = list(zip(bounds, accumulate(child.counts), strict=True))
            metric.add_metric(values, buckets, child.sum)
            if has_created:
                labels = dict(zip(self.labelnames, values, strict=True))
                metric.add_sample(f"{self.name}_created", labels, child.created)
        return [metric]

    def _empty(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.documentation, labels=self.labelnames)


def _has_created() -> bool:
    """Return whether `prometheus_client` is to show `_created` samples."""
    (metric,) = Counter("probe", "", registry=None).collect()
    return len(metric.samples) > 1
