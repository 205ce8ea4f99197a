"""Requests: which failures are worth another attempt, and who may write."""

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from autoglm.kube.kinds import CHILDREN, RESOURCE
from autoglm.kube.transport import NotLeading, Refused, Request, TimedOut, Unreachable
from autoglm.kube.verbs import Kube, Limits
from autoglm.operator.metrics import Metrics

pytestmark = pytest.mark.looptime
SERVICES = CHILDREN[1]


class Script:
    """A transport with scripted responses."""

    def __init__(self, *responses: Exception | bytes) -> None:
        self.responses = list(responses)
        self.requests: list[Request] = []

    async def send(self, request: Request, timeout: float) -> bytes:
        self.requests.append(request)
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        yield await self.send(request, 0)

    async def close(self) -> None:
        return


def kube(script: Script, write: float = 3.0) -> Kube:
    return Kube(script, Metrics(CollectorRegistry()), Limits(10, lambda: write))


def refused(status: int, retry_after: float | None = None) -> Refused:
    return Refused(status, "Reason", "message", retry_after=retry_after)


@pytest.mark.parametrize("error", [refused(429), refused(500), refused(503), Unreachable("gone")])
async def test_passing_failures_are_tried_again(error: Exception) -> None:
    script = Script(error, error, b"{}")
    assert await kube(script).apply("/x", {}) == b"{}"
    assert len(script.requests) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_a_clear_no_is_not_tried_again(status: int) -> None:
    script = Script(refused(status))
    with pytest.raises(Refused):
        await kube(script).apply("/x", {})
    assert len(script.requests) == 1


async def test_only_a_patch_that_met_another_write_is_tried_again_after_409() -> None:
    fields = Refused(409, "Conflict", "", causes=[{"reason": "FieldManagerConflict"}])
    script = Script(refused(409), b"{}", fields, refused(409))
    client = kube(script)
    assert await client.apply("/x", {}) == b"{}"
    with pytest.raises(Refused):
        await client.apply("/x", {})
    with pytest.raises(Refused):
        await client.replace("/lease", {})
    assert script.responses == []


async def test_a_write_that_timed_out_is_left_to_the_queue_since_it_may_still_be_carried_out() -> (
    None
):
    script = Script(TimedOut("60 s"), b"{}")
    with pytest.raises(TimedOut):
        await kube(script).apply("/x", {})
    assert len(script.requests) == 1
    reads = Script(TimedOut("10 s"), b"{}")
    assert await kube(reads).get("/x") == b"{}"


async def test_attempts_are_bounded() -> None:
    script = Script(*[Unreachable("gone")] * 9)
    with pytest.raises(Unreachable):
        await kube(script).get("/x")
    assert len(script.requests) == 3


async def test_a_short_retry_after_is_waited_for(looptime: object) -> None:
    import asyncio

    script = Script(refused(429, 1.5), b"{}")
    began = asyncio.get_running_loop().time()
    await kube(script).get("/x")
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.5)


async def test_a_long_retry_after_is_left_to_the_queue() -> None:
    script = Script(refused(429, 30))
    with pytest.raises(Refused) as error:
        await kube(script).get("/x")
    assert error.value.retry_after == 30


async def test_who_does_not_lead_reads_but_does_not_write() -> None:
    script = Script(b"{}")
    standby = kube(script, write=0)
    for write in (
        standby.apply("/x", {}),
        standby.create("/x", {}),
        standby.replace("/x", {}),
        standby.merge("/x", {}),
        standby.delete("/x", "uid"),
    ):
        with pytest.raises(NotLeading):
            await write
    assert await standby.get("/x") == b"{}"


async def test_leading_is_checked_before_every_attempt() -> None:
    left = iter([3.0, 0.0])
    script = Script(Unreachable("gone"), b"{}")
    client = Kube(script, Metrics(CollectorRegistry()), Limits(10, lambda: next(left)))
    with pytest.raises(NotLeading):
        await client.apply("/x", {})
    assert len(script.requests) == 1


async def test_calls_are_counted_by_verb_and_code() -> None:
    registry = CollectorRegistry()
    client = Kube(Script(refused(403), b"{}"), Metrics(registry), Limits(10, lambda: 3))
    with pytest.raises(Refused):
        await client.apply("/x", {})
    await client.get("/x")

    def count(verb: str, code: str) -> float | None:
        labels = {"verb": verb, "code": code}
        return registry.get_sample_value("autoglm_operator_api_calls_total", labels)

    assert (count("PATCH", "403"), count("GET", "200")) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ((), "/api/v1/services"),
        (("ns",), "/api/v1/namespaces/ns/services"),
        (("ns", "web"), "/api/v1/namespaces/ns/services/web"),
    ],
)
def test_paths_of_the_core_group(arguments: tuple[str, ...], path: str) -> None:
    assert SERVICES.path(*arguments) == path


def test_paths_of_other_groups_and_of_subresources() -> None:
    base = "/apis/autoglm.io/v1alpha1/namespaces/ns/autoglmdeployments/glm"
    assert RESOURCE.path("ns", "glm", "status") == f"{base}/status"


BOTTOMLESS = b'{"spec":%s1%s,"status":{}}' % (b'{"a":' * 9_000, b"}" * 9_000)
CUT = b'{"spec":%snull%s,"status":{}}' % (b'{"a":' * 99, b"}" * 99)


async def test_an_object_that_is_too_deep_is_cut_wherever_it_comes_from() -> None:
    seen = kube(Script(BOTTOMLESS, BOTTOMLESS))

    assert await seen.get("/x") == CUT
    assert await seen.apply("/x", {}) == CUT
