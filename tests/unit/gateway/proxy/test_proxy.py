import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.responses import forward, opened

from autoglm.common import errors
from autoglm.gateway.endpoints.endpoint import EndpointView, Phase
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.proxy.proxy import Proxy
from autoglm.gateway.proxy.retry_budget import RetryPolicy
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, no_fallbacks
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, body_of
from autoglm.gateway.routing import Router

NOT_NOW = errors.NoReadyEndpoint("not now")


class Script:
    """An upstream with a script for each attempt: an error to raise, or chunks to send."""

    def __init__(self, *responses: BaseException | list[Any]) -> None:
        self.responses = list(responses)
        self.attempts: list[tuple[str, float]] = []
        self.open = 0

    async def __call__(
        self,
        request: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> Response:
        self.attempts.append((endpoint.url, round(timeout, 3)))
        response = self.responses.pop(0)
        if isinstance(response, BaseException):
            raise response
        self.open += 1
        return Response(forward(response), close=self._close)

    def _close(self) -> None:
        self.open -= 1


class Stage:
    """A pool of pods that are ready, and a proxy to them."""

    def __init__(self, make: Any, pods: int, script: Script, **policy: Any) -> None:
        clock = asyncio.get_running_loop().time
        self.make, self.script, self.now = make, script, clock()
        self.pool = Pool(Random(0))
        self.pool.change_endpoints((), [make.endpoint(n) for n in range(pods)], self.now)
        for view in self.pool.views:
            for event in make.up():
                self.pool.apply(view.url, event, self.now)
        metrics, policy_ = Metrics(CollectorRegistry()), RetryPolicy(**policy)
        router = Router(metrics, Random(0), "LeastLoaded")
        self.proxy = Proxy(self.pool, {"grpc": script}, policy_, metrics, router, Random(0), clock)
        self.record = RequestRecord()

    async def send(self) -> bytes:
        request = self.make.request(deadline=self.now + 10)
        async with opened(self.proxy, request, self.record) as reply:
            assert sum(view.live.in_flight for view in self.pool.views) == 1
            return await body_of(reply)

    def phases(self) -> list[Phase]:
        return sorted(view.state.phase for view in self.pool.views)

    def is_idle(self) -> bool:
        return self.script.open == 0 and not any(v.live.in_flight for v in self.pool.views)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("refusal", "phase"),
    [
        (RetryElsewhere(NOT_NOW, gone=True), Phase.EJECTED),
        (RetryElsewhere(NOT_NOW, draining=True), Phase.DRAINING),
        (RetryElsewhere(NOT_NOW), Phase.READY),
    ],
)
async def test_refused_call_is_served_elsewhere_and_the_pool_hears_of_it(
    make: Any, refusal: RetryElsewhere, phase: Phase
) -> None:
    stage = Stage(make, 2, Script(refusal, [b"a", b"b"]))
    assert await stage.send() == b"ab"
    (first, _), (second, _) = stage.script.attempts
    assert first != second and stage.record.attempts == 2
    assert stage.phases() == sorted([phase, Phase.READY]) and stage.is_idle()


@pytest.mark.looptime
async def test_client_gets_the_last_error_when_all_attempts_fail(make: Any) -> None:
    refusals = [RetryElsewhere(errors.NoReadyEndpoint(str(n)), gone=True) for n in range(9)]
    stage = Stage(make, 5, Script(*refusals), attempts=3)
    with pytest.raises(errors.NoReadyEndpoint, match="^2$"):
        await stage.send()
    assert len({url for url, _ in stage.script.attempts}) == 3 and stage.is_idle()


@pytest.mark.looptime
@pytest.mark.parametrize(("pods", "attempts"), [(1, 2), (2, 2), (3, 3), (5, 3)])
async def test_a_refusal_is_repeated_at_the_same_pod_once_at_most(
    make: Any, pods: int, attempts: int
) -> None:
    refusals = [RetryElsewhere(NOT_NOW, refused=True) for _ in range(9)]
    stage = Stage(make, pods, Script(*refusals), attempts=3)
    with pytest.raises(errors.NoReadyEndpoint):
        await stage.send()
    assert len(stage.script.attempts) == attempts and stage.is_idle()


@pytest.mark.looptime
async def test_a_pod_that_refuses_one_request_still_gets_it_again(make: Any) -> None:
    stage = Stage(make, 1, Script(RetryElsewhere(NOT_NOW, refused=True), [b"a"]))
    assert await stage.send() == b"a"


@pytest.mark.looptime
async def test_lost_connections_are_retried_after_a_refusal(make: Any) -> None:
    lost = RetryElsewhere(NOT_NOW)
    stage = Stage(make, 1, Script(RetryElsewhere(NOT_NOW, refused=True), lost, [b"a"]))
    assert await stage.send() == b"a"


@pytest.mark.looptime
async def test_nothing_is_tried_again_over_budget(make: Any) -> None:
    refusals = [RetryElsewhere(NOT_NOW) for _ in range(9)]
    stage = Stage(make, 3, Script(*refusals), reserve=1.0, ratio=0.0, per_second=0.0)
    for attempts in (2, 1, 1):
        stage.script.attempts.clear()
        with pytest.raises(errors.NoReadyEndpoint):
            await stage.send()
        assert len(stage.script.attempts) == attempts


@pytest.mark.looptime
async def test_other_errors_are_the_response(make: Any) -> None:
    stage = Stage(make, 2, Script(errors.QueueFull("full")))
    with pytest.raises(errors.QueueFull):
        await stage.send()
    assert len(stage.script.attempts) == 1 and stage.is_idle()


@pytest.mark.looptime
async def test_nothing_is_tried_again_after_the_first_chunk(make: Any) -> None:
    stage = Stage(make, 2, Script([b"a", errors.StreamBroken("gone")]))
    with pytest.raises(errors.StreamBroken):
        await stage.send()
    assert len(stage.script.attempts) == 1 and stage.is_idle()
    assert stage.phases() == [Phase.EJECTED, Phase.READY]


@pytest.mark.looptime
async def test_deadline_is_what_is_left_of_it(make: Any) -> None:
    script = Script(*[RetryElsewhere(NOT_NOW)] * 9, [b"a"])
    # The pauses between attempts are random; one near 0 would move no clock, but not eight.
    stage = Stage(make, 10, script, attempts=10)
    await stage.send()
    first, *_, last = (timeout for _, timeout in stage.script.attempts)
    assert first == 10 and 9 < last < 10


@pytest.mark.looptime
async def test_no_attempt_is_made_past_the_deadline(make: Any) -> None:
    stage = Stage(make, 1, Script())
    await asyncio.sleep(11)
    with pytest.raises(errors.DeadlineExceeded):
        await stage.send()


@pytest.mark.looptime
async def test_cancelled_call_leaves_nothing_behind(make: Any) -> None:
    stage = Stage(make, 1, Script([b"a"]))
    request = make.request(deadline=stage.now + 10)

    async def hold() -> None:
        async with opened(stage.proxy, request):
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.is_idle()
