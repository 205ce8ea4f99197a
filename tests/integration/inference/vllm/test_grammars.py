"""Constraints on the output: judged off the event loop, within a time, and rejected with a name."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from autoglm import v1
from autoglm.common import errors
from autoglm.inference.engine import Engine, EngineRequest

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

# What another tenant's request for one token may take meanwhile: so long, and so many times as long
# as with no constraint beside it.
OTHERS_SECONDS, OTHERS_FACTOR = 2.0, 5
PATTERNED = {f"p{i}": {"type": "string", "pattern": f"^[a-z]{{1,20}}{i}$"} for i in range(1500)}
BOUNDED = {name: schema | {"maxLength": 30} for name, schema in PATTERNED.items()}
ONE_TOKEN = {"model": "tiny", "prompt": "x", "max_tokens": 1}


def json_schema(schema: Any) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return {"response_format": wanted}


def structured(**constraint: Any) -> dict[str, Any]:
    return {"structured_outputs": constraint}


COSTLY = [
    json_schema({"type": "object", "properties": PATTERNED}),
    json_schema({"type": "object", "properties": BOUNDED}),
    json_schema({"enum": [f"value-{i}" for i in range(3000)]}),
    json_schema({"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000}),
    structured(regex="(a{1,1000}){1,1000}"),
    structured(grammar='root ::= (("a"{1,500} "b"){1,500} "c"){1,500}'),
    structured(grammar='root ::= s\ns ::= s s s | "a" | ""'),
]
WRONG = [
    (json_schema({"type": "frob"}), "response_format"),
    (json_schema({"$ref": "#/nope"}), "response_format"),
    (json_schema({"type": "object", "properties": 5}), "response_format"),
    (json_schema({"enum": []}), "response_format"),
    (json_schema({"type": "array", "uniqueItems": True}), "response_format"),
    (json_schema({"type": "object", "properties": BOUNDED}), "response_format"),
    (structured(regex="["), "structured_outputs"),
    (structured(regex="(?=a)b"), "structured_outputs"),
    (structured(grammar="((("), "structured_outputs"),
]


@pytest_asyncio.fixture(loop_scope="session")
async def http(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=engine.http_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://pod", timeout=60) as client:
        yield client


def chat(**fields: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 4,
        **fields,
    }


async def others(http: httpx.AsyncClient, seen: list[float]) -> None:
    while True:
        begin = time.monotonic()
        (await http.post("/v1/completions", json=ONE_TOKEN)).raise_for_status()
        seen.append(time.monotonic() - begin)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("constraint", COSTLY)
async def test_a_costly_constraint_costs_others_little(
    http: httpx.AsyncClient, constraint: dict[str, Any]
) -> None:
    seen: list[float] = []
    neighbour = asyncio.create_task(others(http, seen))
    while len(seen) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    alone = max(seen)

    found = await http.post("/v1/chat/completions", json=chat(**constraint))
    while len(seen) < 6:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    neighbour.cancel()

    # 503 where the threads still work on the one before.
    assert found.status_code in (200, 400, 503), found.text
    assert max(seen) < OTHERS_SECONDS + OTHERS_FACTOR * alone


@pytest.mark.parametrize(("constraint", "field"), WRONG)
async def test_a_wrong_constraint_is_a_400_that_names_the_field(
    http: httpx.AsyncClient, constraint: dict[str, Any], field: str
) -> None:
    found = await http.post("/v1/chat/completions", json=chat(**constraint))

    assert found.status_code == 400, found.text
    assert found.json()["error"]["param"] == field
    assert found.json()["error"]["message"].startswith(field)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_wrong_constraint_is_named_on_grpc(engine: Engine, stream: bool) -> None:
    schema = v1.ResponseFormat.JsonSchema(schema='{"type": "array", "uniqueItems": true}')
    wanted = v1.ResponseFormat(json_schema=schema)
    message = v1.ChatMessage(role="user", content="x")
    request = v1.ChatRequest(model="tiny", messages=[message], response_format=wanted)

    with pytest.raises(errors.InvalidRequest) as rejected:
        if stream:
            await anext(aiter(engine.chat_stream(request, EngineRequest("grammar-stream"))))
        else:
            await engine.chat(request, EngineRequest("grammar"))

    assert rejected.value.field == "response_format"


async def test_each_grammar_is_compiled_by_the_backend_that_knows_it(
    http: httpx.AsyncClient,
) -> None:
    """A pattern with a length is llguidance's, one without is xgrammar's."""
    pattern = {"type": "string", "pattern": "^[ab]+$"}
    schemas = [pattern, pattern | {"maxLength": 5}, {"enum": ["a"]}]
    for schema in schemas:
        found = await http.post("/v1/chat/completions", json=chat(**json_schema(schema)))
        assert found.status_code == 200, found.text


# -- the time limit, with a judge of our own --------------------------------------------------


class Slow:
    """Judges when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.judged = 0

    def __call__(self, params: Any) -> Any:
        self.judged += 1
        self.go.wait(60)
        return params.structured_outputs


@pytest.fixture
def slow() -> Iterator[Slow]:
    judge = Slow()
    yield judge
    judge.go.set()


def sampling(regex: str) -> Any:
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams

    return SamplingParams(structured_outputs=StructuredOutputsParams(regex=regex))


async def test_what_does_not_compile_in_time_is_rejected_and_remembered(slow: Slow) -> None:
    from vllm.exceptions import VLLMValidationError

    from autoglm.inference.vllm.grammars import Grammars

    grammars = Grammars(slow, seconds=1, threads=1)
    for _ in range(2):
        with pytest.raises(VLLMValidationError, match="does not compile within 1 s") as late:
            await grammars.check(sampling("a"))
        assert late.value.parameter == "structured_outputs"

    assert slow.judged == 1
    grammars.close()


async def test_who_waits_behind_a_slow_one_may_retry(slow: Slow) -> None:
    from vllm.exceptions import QueueOverflowError, VLLMValidationError

    from autoglm.inference.vllm.grammars import Grammars

    grammars = Grammars(slow, seconds=1, threads=1)
    first = asyncio.create_task(grammars.check(sampling("a")))
    await asyncio.sleep(0)
    with pytest.raises(QueueOverflowError):
        await grammars.check(sampling("b"))
    with pytest.raises(VLLMValidationError):
        await first
    slow.go.set()
    await grammars.check(sampling("b"))
    grammars.close()


async def test_equal_constraints_are_judged_once(slow: Slow) -> None:
    from autoglm.inference.vllm.grammars import Grammars

    grammars = Grammars(slow, seconds=60, threads=2)
    waiting = [asyncio.create_task(grammars.check(sampling("a"))) for _ in range(5)]
    await asyncio.sleep(0)
    slow.go.set()
    await asyncio.gather(*waiting)

    assert slow.judged == 1
    grammars.close()
