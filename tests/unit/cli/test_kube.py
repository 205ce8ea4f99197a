"""Reading through an API that forbids, splits lists into pages, and fails."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from autoglm.cli.cluster import NO_QUERY, ClusterError
from autoglm.cli.kube import read_state
from autoglm.cli.status.cluster import watch

AGD = "/apis/autoglm.io/v1alpha1/namespaces/models/autoglmdeployments"
PODS = "/api/v1/namespaces/models/pods"
ROUTABLE = "/api/v1/namespaces/system/pods/{}:9090/proxy/routable"


def failed(status: int) -> ClusterError:
    error = ClusterError("No", "no")
    error.status = status
    return error


def page(*names: str, more: str = "") -> dict[str, Any]:
    return {"metadata": {"continue": more}, "items": [{"metadata": {"name": n}} for n in names]}


def gateway(name: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": name, "namespace": "system"},
        "status": {"conditions": conditions},
    }


def pool(*pods: str) -> dict[str, Any]:
    known = [{"namespace": "models", "deployment": "a", "pod": p, "ready": True} for p in pods]
    waiting = {"namespace": "models", "deployment": "a", "pod": "late", "ready": False}
    return {"endpoints": [*known, waiting]}


@dataclass(slots=True)
class FakeApi:
    """Responds by path; with an empty list to unknown ones."""

    responses: dict[str, dict[str, Any] | ClusterError] = field(default_factory=dict)

    def send(
        self, method: str, path: str, query: Mapping[str, str] = NO_QUERY, *, timeout: float = 0
    ) -> dict[str, Any]:
        response = self.responses.get(path + query.get("continue", ""), page())
        if isinstance(response, ClusterError):
            raise response
        return response


def test_long_lists_come_whole() -> None:
    api = FakeApi({AGD: page("a", more="#2"), f"{AGD}#2": page("b")})
    observed = read_state(api, "models")
    assert [r["metadata"]["name"] for r in observed.resources] == ["a", "b"]
    assert observed.resources[0]["kind"] == "AutoGLMDeployment"


def test_what_may_not_be_read_is_remembered_and_the_rest_read() -> None:
    observed = read_state(FakeApi({AGD: page("a"), PODS: failed(403)}), "models")
    assert (len(observed.resources), observed.not_accessible) == (1, (("pods in models", "no"),))


@pytest.mark.parametrize("path", [AGD, PODS])
def test_cluster_out_of_reach_is_an_error(path: str) -> None:
    with pytest.raises(ClusterError):
        read_state(FakeApi({path: failed(0)}), "models")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (pool("x", "y"), pool("x"), frozenset({("models", "x")})),
        (pool("x"), failed(403), frozenset({("models", "x")})),
        (failed(503), {"endpoints": [1]}, None),
        (failed(0), pool("x"), None),
    ],
)
def test_pod_is_routable_if_all_responding_gateways_have_it(
    first: Any, second: Any, expected: frozenset[tuple[str, str]] | None
) -> None:
    responses = {
        "/api/v1/pods": {"metadata": {}, "items": [gateway("g1"), gateway("g2")]},
        ROUTABLE.format("g1"): first,
        ROUTABLE.format("g2"): second,
    }
    assert read_state(FakeApi(responses), "models").routable == expected


def test_watching_continues_after_errors(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pages: list[str | ClusterError] = ["one\n", "one\n", ClusterError("NoCluster", "gone"), "two\n"]

    def page_or_raise() -> str:
        now = pages.pop(0)
        if isinstance(now, ClusterError):
            raise now
        return now

    def sleep(_: float) -> None:
        if not pages:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(page_or_raise, sleep)
    assert capsys.readouterr().out == "one\nNoCluster: gone\ntwo\n"
