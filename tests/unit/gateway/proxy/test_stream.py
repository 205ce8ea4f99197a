"""Streams that lose their pod: what is resumed, what ends, and the client's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.responses import chunks_of, forward, opened

from autoglm import v1
from autoglm.api.spec.traffic import Hedging, OutlierDetection, StreamRecovery
from autoglm.common import errors
from autoglm.gateway.endpoints.endpoint import EndpointView, ModelsDiscovered, Phase, State
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.proxy.proxy import Defaults, Proxy
from autoglm.gateway.proxy.retry_budget import RetryPolicy
from autoglm.gateway.proxy.timeouts import StreamTimeouts
from autoglm.gateway.proxy.upstream import Fallbacks, RetryElsewhere, no_fallbacks
from autoglm.gateway.request.memory_budget import Memory
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response
from autoglm.gateway.routing import Router
from autoglm.validation import Operation, RequestInfo

pytestmark = pytest.mark.looptime
WORDS = ["one", "two", "three", "four", "five"]
GONE = errors.StreamBroken("the pod went away")


def chunk(place: int) -> bytes:
    reason = v1.FINISH_REASON_STOP if place + 1 == len(WORDS) else v1.FINISH_REASON_UNSPECIFIED
    made = v1.GenerateChunk(text=WORDS[place], token_ids=[place + 7], finish_reason=reason)
    if reason:
        made.usage.completion_tokens = len(WORDS)
    return made.SerializeToString()


class Pods:
    """Each attempt says the words behind what is resumed, then does as its script says.

    A script is how many words come and what comes then: an error, seconds of silence, or None.
    An error alone comes before the first word.
    """

    def __init__(self, *scripts: Any) -> None:
        self.scripts = list(scripts)
        self.urls: list[str] = []
        self.open = 0
        self.by_url: dict[str, Any] | None = None

    async def __call__(
        self,
        request: GatewayRequest,
        endpoint: EndpointView,
        headers: Mapping[str, str],
        timeout: float,
        fallbacks: Fallbacks = no_fallbacks,
    ) -> Response:
        self.urls.append(endpoint.url)
        if self.by_url is not None:
            self.scripts = [self.by_url.get(endpoint.url, (9, None))]
        script = self.scripts.pop(0)
        self.open += 1
        try:
            if isinstance(script, Exception):
                raise script
            if isinstance(script, float):
                await asyncio.sleep(script)
                script = (9, None)
        except BaseException:
            self.open -= 1
            raise
        resume = v1.GenerateRequest.FromString(request.payload).resume
        said = len(resume.choices[0].token_ids) if resume.choices else 0
        count, then = script
        words = [chunk(place) for place in range(said, min(said + count, len(WORDS)))]
        return Response(forward([*words, *([] if then is None else [then])]), close=self._close)

    def _close(self) -> None:
        self.open -= 1


class Stage:
    def __init__(self, make: Any, pods: Pods, fleet: int = 2, **defaults: Any) -> None:
        clock = asyncio.get_running_loop().time
        self.make, self.pods, self.now = make, pods, clock()
        self.pool = Pool(Random(0))
        self.pool.change_endpoints((), [make.endpoint(n) for n in range(fleet)], self.now)
        _, loaded = make.up()
        for view in self.pool.views:
            self.pool.apply(view.url, ModelsDiscovered((make.model(resumable=True),)), self.now)
            self.pool.apply(view.url, loaded, self.now)
        self.metrics = Metrics(CollectorRegistry())
        policy = defaults.pop("policy", RetryPolicy())
        self.proxy = Proxy(
            self.pool,
            {"grpc": pods},
            policy,
            self.metrics,
            Router(self.metrics, Random(0), "LeastLoaded"),
            Random(0),
            clock,
            defaults=Defaults(**defaults),
        )
        self.record = RequestRecord()
        self.got: list[str] = []
        self.trailers: dict[str, Any] = {}

    async def send(self, **changes: Any) -> list[str]:
        request = self.make.request(
            target="/autoglm.v1.Inference/GenerateStream",
            info=RequestInfo(Operation.GENERATE, "glm", streaming=True),
            deadline=self.now + 600,
            **changes,
        )
        try:
            async with opened(self.proxy, request, self.record) as reply:
                async for data in chunks_of(reply):
                    self.got.append(v1.GenerateChunk.FromString(data).text)
                self.trailers = dict(await reply.trailers())
        finally:
            assert self.pods.open == 0
            assert not any(view.live.in_flight for view in self.pool.views)
        return self.got

    def recoveries(self) -> dict[str, float]:
        samples = next(iter(self.metrics.recoveries.collect())).samples
        return {s.labels["outcome"]: s.value for s in samples if s.name.endswith("_total")}


@pytest.mark.parametrize("cut", range(1, len(WORDS)))
async def test_a_broken_stream_is_resumed_elsewhere(make: Any, cut: int) -> None:
    stage = Stage(make, Pods((cut, GONE), (9, None)))
    assert await stage.send() == WORDS
    assert len(set(stage.pods.urls)) == 2 and stage.record.recoveries == 1
    assert stage.trailers == {"autoglm-recovered": "1"}
    assert stage.recoveries() == {"recovered": 1}
    assert sorted(v.state.phase for v in stage.pool.views) == [Phase.EJECTED, Phase.READY]


async def test_a_stream_may_lose_several_pods(make: Any) -> None:
    stage = Stage(make, Pods((1, GONE), (2, GONE), (1, GONE), (9, None)), fleet=4)
    assert await stage.send() == WORDS
    assert len(set(stage.pods.urls)) == 4 and stage.record.recoveries == 3


async def test_attempts_are_bounded(make: Any) -> None:
    pods = Pods((1, GONE), RetryElsewhere(errors.NoReadyEndpoint("busy")), (1, GONE), (1, GONE))
    stage = Stage(make, pods, fleet=5, recovery=StreamRecovery(max_attempts=2))
    with pytest.raises(errors.StreamBroken, match="no attempts are left"):
        await stage.send()
    assert stage.got == WORDS[:2] and len(stage.pods.urls) == 3


async def test_a_stream_that_has_said_all_needs_no_other_pod(make: Any) -> None:
    stage = Stage(make, Pods((9, GONE)))
    assert await stage.send() == WORDS and len(stage.pods.urls) == 1


@pytest.mark.parametrize(
    ("refusal", "defaults", "outcome", "why"),
    [
        (errors.ResumeImpossible("beam search"), {}, "impossible", "beam search"),
        (errors.Unimplemented("no resume here"), {}, "impossible", "no resume here"),
        (errors.Internal("oh"), {}, "unavailable", "oh"),
        ((9, None), {"policy": RetryPolicy(reserve=0.0, per_second=0.0)}, "exhausted", "budget"),
        (
            (9, None),
            {"recovery": StreamRecovery(max_replay_tokens=1)},
            "impossible",
            "more than 1 tokens",
        ),
    ],
)
async def test_what_cannot_be_exact_is_not_done_and_the_error_says_why(
    make: Any, refusal: Any, defaults: dict[str, Any], outcome: str, why: str
) -> None:
    stage = Stage(make, Pods((2, GONE), refusal), **defaults)
    with pytest.raises(errors.StreamBroken, match=f"the pod went away.*{why}"):
        await stage.send()
    assert stage.got == WORDS[:2] and stage.recoveries() == {outcome: 1}


async def test_a_long_stream_is_recovered_though_memory_is_short(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"{number:0100}" for number in range(2000)]
    monkeypatch.setitem(globals(), "WORDS", words)
    memory = Memory(128 * 1024)
    stage = Stage(make, Pods((1500, GONE), (2000, None)))
    with memory.open("t") as hold:
        assert await stage.send(hold=hold) == words
        assert 0 < hold.size <= memory.share
    assert stage.record.recoveries == 1 and memory.held == 0


async def test_recovery_can_be_turned_off(make: Any) -> None:
    stage = Stage(make, Pods((2, GONE), (9, None)), recovery=StreamRecovery(mode="Off"))
    with pytest.raises(errors.StreamBroken, match="^the pod went away$"):
        await stage.send()


async def test_a_stream_waits_for_a_pod_that_comes_back(make: Any) -> None:
    stage = Stage(make, Pods((2, GONE), (9, None)), fleet=1)
    url = next(iter(stage.pool.views)).url
    _, loaded = make.up()
    loop = asyncio.get_running_loop()
    loop.call_later(5, lambda: stage.pool.apply(url, loaded, loop.time()))
    assert await stage.send() == WORDS


async def test_a_stream_is_resumed_only_where_the_same_model_runs(make: Any) -> None:
    stage = Stage(make, Pods((2, GONE), (9, None)))
    other = make.model(resumable=True, quantization="fp8")
    for view in list(stage.pool.views):
        stage.pool.apply(view.url, ModelsDiscovered((other,)), stage.now)
        break
    with pytest.raises(errors.StreamBroken, match="no endpoint of 'glm' is ready"):
        await stage.send()
    assert len(stage.pods.urls) == 1 and stage.record.recoveries == 0


async def test_a_stalled_stream_is_resumed_elsewhere(make: Any) -> None:
    stage = Stage(make, Pods((2, 100.0), (9, None)), timeouts=StreamTimeouts(chunk_seconds=5))
    assert await stage.send() == WORDS
    assert [v.state.phase for v in stage.pool.views] == [Phase.READY] * 2
    assert asyncio.get_running_loop().time() - stage.now == pytest.approx(5, abs=0.1)


async def test_a_stalled_stream_that_cannot_be_resumed_says_so(make: Any) -> None:
    stage = Stage(
        make,
        Pods((2, 100.0)),
        timeouts=StreamTimeouts(chunk_seconds=5),
        recovery=StreamRecovery(mode="Off"),
    )
    with pytest.raises(errors.DeadlineExceeded, match="no chunk for 5 s"):
        await stage.send()


async def test_a_late_first_token_is_had_elsewhere(make: Any) -> None:
    stage = Stage(make, Pods(100.0, (9, None)), timeouts=StreamTimeouts(first_token_seconds=5))
    assert await stage.send() == WORDS
    assert len(set(stage.pods.urls)) == 2


async def test_a_late_first_token_is_an_error_where_no_other_is(make: Any) -> None:
    stage = Stage(make, Pods(100.0), fleet=1, timeouts=StreamTimeouts(first_token_seconds=5))
    with pytest.raises(errors.DeadlineExceeded, match="no first token of 'glm' within 5 s"):
        await stage.send()


@pytest.mark.parametrize("script", [100.0, (2, 100.0)])
async def test_what_waits_for_a_silent_pod_goes_elsewhere_at_once(make: Any, script: Any) -> None:
    stage = Stage(make, Pods(script, (9, None)))
    loop = asyncio.get_running_loop()
    loop.call_later(3, lambda: stage.proxy.abandon(stage.pods.urls[0], "silent"))
    assert await stage.send() == WORDS
    assert loop.time() - stage.now == pytest.approx(3, abs=0.1)


async def test_what_waits_for_a_silent_pod_stays_where_no_other_is(make: Any) -> None:
    stage = Stage(make, Pods(100.0), fleet=1)
    loop = asyncio.get_running_loop()
    loop.call_later(3, lambda: stage.proxy.abandon(stage.pods.urls[0], "silent"))
    assert await stage.send() == WORDS
    assert loop.time() - stage.now == pytest.approx(100, abs=0.1)


async def test_a_client_that_leaves_ends_the_attempt(make: Any) -> None:
    stage = Stage(make, Pods((2, 100.0)))
    task = asyncio.create_task(stage.send())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.pods.open == 0


def state_of(stage: Stage, url: str) -> State:
    view = stage.pool.view(url)
    assert view is not None
    return view.state


def counted(stage: Stage) -> dict[str, float]:
    samples = next(iter(stage.metrics.hedges.collect())).samples
    return {s.labels["result"]: s.value for s in samples if s.name.endswith("_total")}


HEDGED = Hedging(delay_seconds=2.0)


@pytest.mark.parametrize(
    ("first", "second", "urls", "result"),
    [
        (100.0, (9, None), 2, {"won": 1}),
        (3.0, 100.0, 2, {"lost": 1}),
        (1.0, None, 1, {}),
        (RetryElsewhere(errors.NoReadyEndpoint("no")), (9, None), 2, {}),
    ],
)
async def test_a_late_first_chunk_is_hedged_and_one_response_arrives(
    make: Any, first: Any, second: Any, urls: int, result: dict[str, float]
) -> None:
    stage = Stage(make, Pods(first, second), hedging=HEDGED)
    assert await stage.send() == WORDS
    assert len(set(stage.pods.urls)) == urls and counted(stage) == result


async def test_hedging_stays_within_its_extra_load(make: Any) -> None:
    policy = Hedging(delay_seconds=2.0, max_extra_ratio=0.25)
    stage = Stage(make, Pods(*[3.0] * 60), hedging=policy)
    for _ in range(20):
        stage.got.clear()
        assert await stage.send() == WORDS
    assert len(stage.pods.urls) <= 20 + 1 + 20 * 0.25


async def test_no_request_is_hedged_where_no_other_is(make: Any) -> None:
    stage = Stage(make, Pods(3.0), fleet=1, hedging=HEDGED)
    assert await stage.send() == WORDS and counted(stage) == {}


async def test_both_attempts_failing_is_one_error(make: Any) -> None:
    late = [RetryElsewhere(errors.NoReadyEndpoint(str(n))) for n in range(9)]
    stage = Stage(
        make, Pods(100.0, *late), hedging=HEDGED, timeouts=StreamTimeouts(first_token_seconds=5)
    )
    with pytest.raises(errors.AutoGLMError):
        await stage.send()


async def test_a_client_that_leaves_ends_both_attempts(make: Any) -> None:
    stage = Stage(make, Pods(100.0, 100.0), hedging=HEDGED)
    task = asyncio.create_task(stage.send())
    await asyncio.sleep(5)
    assert stage.pods.open == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_pod_that_fails_again_and_again_is_ejected_then_probed_and_used_again(
    make: Any,
) -> None:
    stage = Stage(
        make, Pods(), outliers=OutlierDetection(consecutive_failures=3, ejection_seconds=5.0)
    )
    bad = next(iter(stage.pool.views)).url
    _, loaded = make.up()
    loop = asyncio.get_running_loop()

    async def send_often(count: int, *, heals: bool) -> list[str]:
        """Which pods got a request; the bad one fails as long as it does not heal."""
        stage.pods.urls.clear()
        for _ in range(count):
            stage.got.clear()
            stage.pods.by_url = {} if heals else {bad: errors.Internal("a bug")}
            with suppress(errors.Internal):
                assert await stage.send() == WORDS
        return stage.pods.urls

    assert (await send_often(40, heals=False)).count(bad) == 3
    assert state_of(stage, bad).why == "3 requests in a row failed"
    await asyncio.sleep(5)
    stage.pool.apply(bad, loaded, loop.time())
    # One request probes it, fails, and it is ejected for longer.
    assert (await send_often(40, heals=False)).count(bad) == 1
    await asyncio.sleep(6)
    stage.pool.apply(bad, loaded, loop.time())
    assert state_of(stage, bad).phase is Phase.EJECTED
    await asyncio.sleep(5)
    stage.pool.apply(bad, loaded, loop.time())
    assert (await send_often(40, heals=True)).count(bad) > 1
    state = state_of(stage, bad)
    assert not state.probing and state.weight(loop.time()) == pytest.approx(0.1)
    assert state.weight(loop.time() + 5) == pytest.approx(0.5)
    assert state.weight(loop.time() + 10) == 1.0
