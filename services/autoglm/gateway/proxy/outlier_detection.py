"""Outlier detection: decides which endpoints are to be ejected. Pure; fed by the attempts.

A circuit breaker for each endpoint (failures in a row) and outlier detection within a model's
endpoints (share of failures, time to the first chunk), as in Envoy's outlier detection. Errors of
clients and cancellations are never counted; lost connections are the pool's part. The pool ejects,
sends one probe request, and ramps up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from statistics import fmean, median

from autoglm.api.spec.traffic import OutlierDetection
from autoglm.common import errors
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled
from autoglm.gateway.request.request import Response

# Fewer requests in an interval are no sample.
_MIN_REQUESTS = 10
# Seconds to the first chunk below which no endpoint is an outlier.
_FAST = 0.1
_NOT_IMPLEMENTED = 501


@dataclass(slots=True)
class Record:
    """Counters of one endpoint since `since`."""

    since: float
    in_a_row: int = 0
    requests: int = 0
    failures: int = 0
    waited: float = 0.0
    responses: int = 0

    @property
    def mean_wait(self) -> float | None:
        return self.waited / self.responses if self.responses >= _MIN_REQUESTS else None


class Health:
    """The records of all endpoints, by URL."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def note(self, url: str, now: float, *, failed: bool, waited: float | None = None) -> None:
        """Record a request that has ended; `waited` is the seconds to its first chunk."""
        record = self._records.get(url)
        if record is None:
            record = self._records[url] = Record(now)
        record.requests += 1
        if failed:
            record.failures += 1
            record.in_a_row += 1
        else:
            record.in_a_row = 0
        if waited is not None:
            record.waited += waited
            record.responses += 1

    def forget(self, url: str) -> None:
        self._records.pop(url, None)

    def is_due(self, url: str, policy: OutlierDetection, now: float) -> bool:
        """Return whether `judge` is worth its cost, which grows with the number of endpoints."""
        record = self._records.get(url)
        if record is None:
            return False
        if now - record.since >= policy.interval_seconds:
            return True
        return record.in_a_row > 0 and bool(_opens(record, policy))

    def judge(
        self, url: str, policy: OutlierDetection, ready: Collection[str], total: int, now: float
    ) -> str:
        """Return why the endpoint is to be ejected; empty where it is not to or may not be.

        `ready` are the model's endpoints that accept requests, of `total`.
        """
        record = self._records.get(url)
        if record is None:
            return ""
        why = _opens(record, policy)
        if not why and now - record.since >= policy.interval_seconds:
            why = self._stands_out(url, record, policy, ready)
            self._records[url] = Record(now, record.in_a_row)
        if not why or not _may_eject(url, policy, ready, total):
            return ""
        self.forget(url)
        return why

    def _stands_out(
        self, url: str, record: Record, policy: OutlierDetection, ready: Collection[str]
    ) -> str:
        if record.requests >= _MIN_REQUESTS and policy.failure_percent:
            percent = 100 * record.failures / record.requests
            if percent >= policy.failure_percent:
                return f"{percent:.0f} % of its requests failed"
        waits = [
            wait
            for other in ready
            if other != url
            and (kept := self._records.get(other)) is not None
            and (wait := kept.mean_wait) is not None
        ]
        mine = record.mean_wait
        if mine is None or not waits or not policy.latency_factor:
            return ""
        usual = max(median(waits), _FAST)
        if mine < policy.latency_factor * usual:
            return ""
        return f"its first chunks take {mine:.2g} s, those of the others {fmean(waits):.2g} s"


def _opens(record: Record, policy: OutlierDetection) -> str:
    if policy.consecutive_failures and record.in_a_row >= policy.consecutive_failures:
        return f"{record.in_a_row} requests in a row failed"
    return ""


def _may_eject(url: str, policy: OutlierDetection, ready: Collection[str], total: int) -> bool:
    if url not in ready or len(ready) < 2:
        return False
    return 100 * (total - len(ready) + 1) <= policy.max_ejection_percent * total


def is_failure(error: BaseException | None, response: Response | None) -> bool | None:
    """Return whether an attempt's outcome is a failure of its endpoint; None if neither."""
    if error is None:
        return None if response is None else _is_failed(response)
    if isinstance(error, Stalled):
        return True
    if isinstance(error, RetryElsewhere):
        return None if error.draining or error.gone else True
    if isinstance(error, errors.AutoGLMError):
        return True if isinstance(error, errors.Internal | errors.EngineDead) else None
    return None


def _is_failed(response: Response) -> bool | None:
    if response.served_by_fallback:
        return True
    if response.status < 400:
        return False
    return True if response.status >= 500 and response.status != _NOT_IMPLEMENTED else None
