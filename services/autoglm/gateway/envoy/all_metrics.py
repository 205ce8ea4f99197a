"""The metrics of all processes that decide for one Envoy, as one page. Asked from threads.

Each sample says by the label `process` whose it is. A process that does not answer, as while it
starts anew, is left out.
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
_ANSWER_SECONDS = 2.0
# When a counter began, which a page shows as a metric of its own; the first one's is kept.
_BEGUN = "_created"
Families = Iterable[Metric]
_log = logging.getLogger("autoglm.gateway")


def of_all(own: CollectorRegistry, sockets: Sockets, processes: int) -> CollectorRegistry:
    """What `own` has, and what the others at their sockets have."""
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
    """One family of each name, each sample with its process."""
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
        _log.warning(
            "a process shows no metrics", extra={"fields": {"at": path, "why": str(error)}}
        )
        return
    for family in text_string_to_metric_families(page):
        if not family.name.endswith(_BEGUN):
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
        super().__init__("gateway", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
