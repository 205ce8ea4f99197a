"""Merges the metrics of all worker processes of one Envoy. Collected from threads.

The label `process` gives each sample's process. A process that does not respond, for example while
it restarts, is omitted.
"""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from autoglm.gateway.envoy.config.names import Sockets

LABEL = "process"
_TIMEOUT_SECONDS = 2.0
# A counter's creation time, a metric of its own on a page; only this process's is kept.
_CREATED = "_created"
Families = Iterable[Metric]
_log = logging.getLogger("autoglm.gateway")


def of_all(own: CollectorRegistry, sockets: Sockets, processes: int) -> CollectorRegistry:
    """Return a registry of the metrics in `own` and of the other processes at their sockets."""
    others = set(range(processes)) - {sockets.number}
    several: dict[int, Callable[[], Families]] = {
        sockets.number: own.collect,
        **{number: partial(_page_at, sockets.of(number).http) for number in sorted(others)},
    }
    all_of_them = CollectorRegistry(auto_describe=False)
    all_of_them.register(_Merged(several))
    return all_of_them


class _Merged:
    def __init__(self, several: Mapping[int, Callable[[], Families]]) -> None:
        self._several = several

    def describe(self) -> Families:
        return ()

    def collect(self) -> Families:
        return merged({number: families() for number, families in self._several.items()})


def merged(several: Mapping[int, Families]) -> Families:
    """Return one family for each name, with the process as a label of each sample."""
    found: dict[str, Metric] = {}
    for number, families in several.items():
        for family in families:
            into = found.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            into.samples += [
                sample._replace(labels={**sample.labels, LABEL: str(number)})
                for sample in family.samples
            ]
    return found.values()


def _page_at(path: str) -> Iterator[Metric]:
    try:
        page = _fetched(path)
    except (OSError, http.client.HTTPException) as error:
        fields = {"at": path, "why": str(error)}
        _log.warning("cannot collect the metrics of a worker", extra={"fields": fields})
        return
    for family in text_string_to_metric_families(page):
        if not family.name.endswith(_CREATED):
            yield family


def _fetched(path: str) -> str:
    """Raises OSError and HTTPException."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("gateway", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
