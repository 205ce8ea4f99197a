"""The limit layer: what a request of a tenant is charged for, by how it ended."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.support.responses import forward

from autoglm import v1
from autoglm.common import errors, status
from autoglm.common.metrics import CounterFamily
from autoglm.gateway.limits.metering import Limits
from autoglm.gateway.limits.tenants import TenantPolicy, Tenants
from autoglm.gateway.request.principal import Principal
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, Trailers
from autoglm.validation import Operation, RequestInfo
from autoglm.validation.http_errors import to_http
from autoglm.validation.request_info import Billing, Prompt, Sampling

STREAM = "/autoglm.v1.Inference/GenerateStream"
UNARY = "/autoglm.v1.Inference/Generate"
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
PROMPT, MOST = 100, 400


def chunk(tokens: int, usage: v1.Usage | None = None) -> bytes:
    return v1.GenerateChunk(token_ids=range(tokens), usage=usage).SerializeToString()


COUNTED = v1.Usage(prompt_tokens=90, completion_tokens=7)


def counters() -> tuple[CounterFamily, CounterFamily]:
    registry = CollectorRegistry()
    refused = CounterFamily("refused", "", ("limit",), registry=registry)
    return refused, CounterFamily("unmetered", "", ("reason",), registry=registry)


@dataclass
class Stage:
    """The layer around a pod that responds with `chunks`, then fails if configured."""

    chunks: tuple[bytes, ...] = ()
    failure: BaseException | None = None
    headers: dict[str, str] = field(default_factory=dict)
    code: int = 200
    attempted: bool = True
    tokens: float | None = 6000
    requests: float | None = 60
    trailers: Trailers = ()

    def __post_init__(self) -> None:
        self.now = 0.0
        refused, self.unmetered = counters()
        self.limits = Limits("", 1, refused, self.unmetered, lambda: self.now)
        policy = TenantPolicy(requests_per_minute=self.requests, tokens_per_minute=self.tokens)
        self.limits.rates.know(Tenants(default=policy))

    def _pod(self, record: RequestRecord) -> Response:
        record.attempts = int(self.attempted)
        if self.failure is not None and not self.chunks:
            raise self.failure
        record.first_chunk = 1.0
        ends = [] if self.failure is None else [self.failure]
        chunks = forward([*self.chunks, *ends])
        return Response(chunks, self.code, self.headers, self._trailers)

    async def _trailers(self) -> Trailers:
        return self.trailers

    async def send(self, request: GatewayRequest, leave_after: int | None = None) -> Response:
        record, came = RequestRecord(), 0

        def write(_: bytes) -> None:
            nonlocal came
            came += 1
            if came == leave_after:
                raise errors.Cancelled("the caller went away")

        account = self.limits.account_of(request)
        if account is None:
            return self._pod(record)
        meter, failure = self.limits.reserve(account, request, record), None
        try:
            reply = meter.read(self._pod(record))
            await reply.forward(write)
        except BaseException as error:
            failure = error
            raise
        finally:
            meter.settle(failure)
        return reply

    @property
    def left(self) -> tuple[float, float]:
        account = self.limits.rates.account_of("acme", self.now)
        assert account and account.requests and account.tokens
        return account.requests.level(self.now), account.tokens.level(self.now)

    @property
    def charged(self) -> float:
        return 6000 - self.left[1]


def request(make: Any, target: str = STREAM, wire: str = "grpc", **changes: Any) -> Any:
    info = RequestInfo(
        changes.pop("operation", Operation.GENERATE),
        "glm",
        prompts=[Prompt("text", 4 * PROMPT)],
        sampling=Sampling(max_tokens=MOST),
        billing=changes.pop("billing", Billing.TOKENS),
    )
    return make.request(
        info=info, target=target, wire=wire, principal=Principal("acme", "alice"), **changes
    )


@pytest.mark.parametrize(
    ("wire", "target", "chunks", "headers", "charged"),
    [
        ("grpc", STREAM, (chunk(3), chunk(4, COUNTED)), {}, 97),
        ("grpc", UNARY, (v1.GenerateResponse(usage=COUNTED).SerializeToString(),), {}, 97),
        ("grpc", STREAM, (chunk(3), chunk(4)), {}, PROMPT + MOST),
        ("grpc", STREAM, (chunk(900),), {}, PROMPT + 900),
        (
            "http",
            "/",
            (b'data: {"usage": {"prompt_tokens": 5, "completion_tokens": 6}}\n\n',),
            SSE,
            11,
        ),
        ("http", "/", (b"data: {}\n\n", b"data: {}\n\ndata: [DONE]\n\n"), SSE, PROMPT + MOST),
        ("http", "/", (b'{"usage": {"prompt_tokens"', b': 5, "completion_tokens": 6}}'), JSON, 11),
        ("http", "/", (b"{}",), JSON, PROMPT + MOST),
        ("http", "/", (b"{}",), JSON | {"autoglm-usage": "prompt=90 completion=7"}, 97),
        ("http", "/", (b'{"usage": {"input_tokens": 7, "output_tokens": 2}}',), JSON, 9),
        (
            "http",
            "/",
            (
                b'event: message_start\ndata: {"message": {"usage": {"input_tokens": 50}}}\n\n',
                *(b'event: content_block_delta\ndata: {"delta": {"text": "x"}}\n\n',) * 400,
                b'event: message_delta\ndata: {"usage": {"output_tokens": 40}}\n\n',
            ),
            SSE,
            90,
        ),
    ],
)
async def test_finished_request_is_charged_for_its_usage_or_else_as_estimated(
    make: Any,
    wire: str,
    target: str,
    chunks: tuple[bytes, ...],
    headers: dict[str, str],
    charged: float,
) -> None:
    stage = Stage(chunks, headers=headers)
    await stage.send(request(make, target, wire))
    assert stage.charged == charged
    assert stage.left[0] == 59


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
async def test_open_inference_over_grpc_is_charged_by_the_pods_trailer(
    make: Any, method: str
) -> None:
    stage = Stage((b"",), trailers=(("autoglm-usage", "prompt=90 completion=7"),))
    await stage.send(request(make, f"/inference.GRPCInferenceService/{method}"))
    assert stage.charged == 97
    assert not [s for m in stage.unmetered.collect() for s in m.samples if s.value]


@pytest.mark.parametrize(
    ("billing", "chunks", "headers", "reasons"),
    [
        (Billing.TOKENS, (b"{}",), JSON, {"no_usage": 1}),
        (Billing.BODY, (b"{}",), JSON, {"unknown_path": 1}),
        (Billing.TOKENS, (b"data: {}\n\n",), SSE, {}),
        (Billing.TOKENS, (b'{"usage": {"total_tokens": 9}}',), JSON, {}),
        (Billing.FREE, (b"{}",), JSON, {}),
    ],
)
async def test_served_request_that_is_charged_by_an_estimate_alone_is_counted(
    make: Any, billing: Billing, chunks: tuple[bytes, ...], headers: Any, reasons: Any
) -> None:
    stage = Stage(chunks, headers=headers)
    await stage.send(request(make, "/", "http", billing=billing))
    samples = [s for m in stage.unmetered.collect() for s in m.samples if "total" in s.name]
    assert {s.labels["reason"]: s.value for s in samples} == reasons
    assert (stage.charged > 0) == (billing is not Billing.FREE)


@pytest.mark.parametrize(
    ("wire", "chunks", "headers"),
    [
        ("grpc", (chunk(3), chunk(2), chunk(9)), {}),
        ("http", (b"data: {}\n\n" * 3, b"data: {}\n\n" * 2, b"data: {}\n\n"), SSE),
    ],
)
async def test_stream_that_is_left_is_charged_for_what_had_come(
    make: Any, wire: str, chunks: tuple[bytes, ...], headers: dict[str, str]
) -> None:
    stage = Stage(chunks, headers=headers)
    with pytest.raises(errors.Cancelled):
        await stage.send(request(make, wire=wire), leave_after=2)
    assert stage.charged == PROMPT + 5


@pytest.mark.parametrize(
    ("failure", "attempted", "charged", "requests"),
    [
        (errors.QueueFull("full"), False, 0, 60),
        (errors.NoReadyEndpoint("none"), False, 0, 60),
        (errors.NoReadyEndpoint("none"), True, 0, 59),
        (errors.InvalidRequest("too long"), True, 0, 59),
        (asyncio.CancelledError(), False, 0, 60),
        (asyncio.CancelledError(), True, PROMPT, 59),
        (errors.DeadlineExceeded("late"), True, PROMPT, 59),
    ],
)
async def test_request_without_a_response_is_charged_by_whose_doing_it_was(
    make: Any, failure: BaseException, attempted: bool, charged: float, requests: float
) -> None:
    stage = Stage(failure=failure, attempted=attempted)
    with pytest.raises(type(failure)):
        await stage.send(request(make))
    assert (stage.charged, stage.left[0]) == (charged, requests)


async def test_broken_stream_is_charged_for_what_had_come(make: Any) -> None:
    stage = Stage((chunk(3),), errors.StreamBroken("gone"))
    with pytest.raises(errors.StreamBroken):
        await stage.send(request(make))
    assert stage.charged == PROMPT + 3


async def test_pods_own_refusal_costs_no_tokens(make: Any) -> None:
    stage = Stage((b'{"error": {}}',), headers=JSON, code=400)
    await stage.send(request(make, wire="http"))
    assert (stage.charged, stage.left[0]) == (0, 59)


async def test_tokenizing_costs_a_request_and_no_tokens(make: Any) -> None:
    stage = Stage((b"",))
    await stage.send(
        request(
            make,
            "/autoglm.v1.Inference/Tokenize",
            operation=Operation.TOKENIZE,
            billing=Billing.FREE,
        )
    )
    assert (stage.charged, stage.left[0]) == (0, 59)


async def test_tenant_over_its_rate_gets_a_retry_after_and_is_then_served(make: Any) -> None:
    stage = Stage((chunk(1, COUNTED),), tokens=600)
    for _ in range(2):
        await stage.send(request(make))
    with pytest.raises(errors.RateLimited) as caught:
        await stage.send(request(make))
    wait = caught.value.retry_after
    assert wait is not None and wait > 0
    http = to_http(caught.value, "r1", "/v1/completions")
    assert http.headers["x-ratelimit-remaining-tokens"].isdecimal()
    assert int(http.headers["retry-after"]) >= wait
    assert ("x-ratelimit-limit-tokens", "600") in status.to_grpc(caught.value, "r1").trailers
    stage.now += wait
    await stage.send(request(make))


async def test_others_are_not_held_up_by_a_tenant_over_its_rate(make: Any) -> None:
    stage = Stage((chunk(1, COUNTED),), requests=1)
    await stage.send(request(make))
    with pytest.raises(errors.RateLimited):
        await stage.send(request(make))
    other = make.request(
        info=request(make).info, target=STREAM, principal=Principal("other", "bob")
    )
    await stage.send(other)


async def test_what_is_left_is_in_headers_of_rest_and_trailers_of_grpc(make: Any) -> None:
    http = await Stage((b"{}",), headers=JSON).send(request(make, wire="http"))
    assert http.headers["x-ratelimit-remaining-requests"] == "59"
    assert http.headers["content-type"] == "application/json"
    grpc = await Stage((chunk(1),)).send(request(make))
    assert dict(await grpc.trailers())["x-ratelimit-remaining-tokens"] == "5500"


async def test_tenant_without_limits_is_not_touched(make: Any) -> None:
    stage = Stage((chunk(1),), tokens=None, requests=None)
    reply = await stage.send(request(make, wire="http"))
    assert reply.headers == {}


@pytest.mark.looptime
async def test_rules_are_followed_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "tenants.json"
    file.write_text('{"tenants": {"acme": {"weight": 3}}}')
    limits = Limits(str(file), 1, *counters())
    async with AsyncExitStack() as closing:
        await limits.start(closing)
        assert limits.rates.policy_of("acme").weight == 3
        file.write_text('{"tenants": {"acme": {"weight": 5, "priority": 2}}}')
        await asyncio.sleep(2)
        assert limits.rates.policy_of("acme") == TenantPolicy(weight=5, priority=2)
    file.write_text("nonsense")
    with pytest.raises(ValueError, match=r"tenants\.json: the tenants file"):
        await Limits(str(file), 1, *counters()).start(AsyncExitStack())
